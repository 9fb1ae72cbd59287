// Package deadline bounds many operations by one timer. A context with a timer for
// each took a seventh of what a create costs here: those that begin at about the same
// time share one.
package deadline

import (
	"context"
	"sync/atomic"
	"time"
)

// every is how long operations share a context, and so by how much that of the last of
// them may end too early.
const every = 50 * time.Millisecond

// A Shared hands out contexts that end a fixed time after the operation began, or up to
// a twentieth of a second sooner. It is safe for concurrent use.
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

// From returns the context of an operation that begins now, which it is told since most
// callers know. Others use it, too.
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
