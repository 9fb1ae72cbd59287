// Package deadline bounds many operations by one timer. A context with a timer for each took a
// seventh of what a create costs here, so operations that begin at about the same time share one.
package deadline

import (
	"context"
	"sync/atomic"
	"time"
)

// every is how long operations share a context. That of the last of them ends too early by as much.
const every = 50 * time.Millisecond

// Shared hands out contexts that end a fixed time after an operation began, or up to 50 ms sooner.
// All methods may be called concurrently.
type Shared struct {
	after  time.Duration
	latest atomic.Pointer[shared]
}

type shared struct {
	ctx   context.Context
	began time.Time
}

// NewShared makes a Shared whose contexts end after the time.
func NewShared(after time.Duration) *Shared { return &Shared{after: after} }

// From returns the context of an operation that begins now. The caller says what now is, since most
// know it already. Other operations use the context, too.
func (s *Shared) From(now time.Time) context.Context {
	latest := s.latest.Load()
	if latest == nil || now.Sub(latest.began) > every {
		ctx, end := context.WithTimeout(context.Background(), s.after)
		context.AfterFunc(ctx, end) // nobody ends it before: it is everyone's
		next := &shared{ctx, time.Now()}
		s.latest.CompareAndSwap(latest, next) // or another is as new
		latest = next
	}
	return latest.ctx
}

// Sleep waits for d. It reports whether it did so before ctx ended.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
