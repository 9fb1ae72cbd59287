package clicks

import (
	"context"
	"time"
)

// DrainAndTake does at once what Run does 20 times a second, and with take what it does every second.
func (r *Recorder) DrainAndTake(take bool) (batches []Batch) {
	r.drain()
	if !take {
		return nil
	}
	t := r.adder.tally
	for next := 0; ; {
		var b Batch
		next = t.take(&b, next)
		batches = append(batches, b)
		if next == len(t.counts) {
			t.reset()
			return batches
		}
	}
}

// RefreshSalts does what Run does every few seconds.
func (r *Recorder) RefreshSalts(ctx context.Context, now time.Time) { r.salts.refresh(ctx, now) }

// SaltDays returns how many salts the recorder has.
func (r *Recorder) SaltDays() int { return len(r.salts.days) }
