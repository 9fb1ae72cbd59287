package redisstore

import (
	"context"
	"sync/atomic"
	"time"
)

// limitEvery is how long operations share a limit, and so by how much that of the
// last of them is shorter than opTimeout.
const limitEvery = 50 * time.Millisecond

// limits bounds operations by opTimeout. A timer for each took a seventh of what a
// create costs here; those that begin at about the same time share one.
type limits struct{ latest atomic.Pointer[limit] }

type limit struct {
	context.Context
	began time.Time
}

// limit returns a context that ends when ctx does, and opTimeout from now at the
// latest.
func (l *limits) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx.Done() != nil { // it may end sooner; that of requests does not
		return context.WithTimeout(ctx, opTimeout)
	}
	now := time.Now()
	latest := l.latest.Load()
	if latest == nil || now.Sub(latest.began) > limitEvery {
		shared, end := context.WithTimeout(context.Background(), opTimeout)
		time.AfterFunc(opTimeout, end)
		next := &limit{shared, now}
		l.latest.CompareAndSwap(latest, next) // or another is as new
		latest = next
	}
	return latest, func() {} // others use it
}
