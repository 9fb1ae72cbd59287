package clicks

import (
	"context"
	"errors"
	"time"
)

// ErrQueueFull reports that a queue keeps no more batches until some were applied.
var ErrQueueFull = errors.New("the queue of clicks is full")

// A Queue carries batches from those who make them to those who apply them. It is safe for
// concurrent use.
type Queue interface {
	// Send hands over a batch. Once it has returned nil, the queue has the batch, on more than this
	// process. The error wraps link.ErrUnavailable or ErrQueueFull. After any error the queue may
	// have the batch or not: it is to be sent again, as it is.
	Send(ctx context.Context, b *Batch) error

	// Receive gives batches to apply until ctx ends, and returns nil then. It outlasts outages.
	// Batches for which apply returned nil are rarely given again, and others are, to this process
	// or another. Several may receive at a time, in one process or many: they share the batches.
	Receive(ctx context.Context, apply func(context.Context, []Batch) error) error

	// Lag says how far those who apply are behind. The error wraps link.ErrUnavailable.
	Lag(ctx context.Context) (Lag, error)
}

// Lag is what waits in a queue.
type Lag struct {
	Batches int64         // 0 if it is not known
	Oldest  time.Duration // since the oldest of them was sent; 0 if there is none
}

// A Feed tells whoever is there what was applied, for live views. What nobody hears is gone.
type Feed interface {
	// Publish tells of batches. It does not fail: live views miss what cannot be told.
	Publish(ctx context.Context, batches []Batch)
	// Subscribe calls hear with what is published, until ctx ends. It outlasts outages. hear must
	// not block for long.
	Subscribe(ctx context.Context, hear func(Count))
}
