// Package outage is for logs: whatever is asked thousands of times a second fails as often when it is
// away, and says so in a few lines.
package outage

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// logEvery spaces the log lines of an outage that lasts.
	logEvery = 5 * time.Second
	// quiet is how long there must be only successes for an outage to be over. One success says
	// nothing while every other request fails.
	quiet = 5 * time.Second
)

// Outage turns the errors of many operations into a few log lines: one when an outage starts, one
// every few seconds while it lasts, one when it is over. All methods may be called concurrently.
type Outage struct {
	log    *slog.Logger
	down   atomic.Bool // read by every success; written twice an outage
	mu     sync.Mutex
	since  time.Time // the first error
	last   time.Time // the last one
	logged time.Time
	errors int
	over   *time.Timer // runs since the first success after the last error
}

// New makes the outage of something, as the log names it. There is none yet.
func New(log *slog.Logger, of string) *Outage { return &Outage{log: log.With("of", of)} }

// Observed takes note of a failed operation.
func (o *Outage) Observed(err error) {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = now
	if o.over != nil {
		o.over.Stop()
		o.over = nil
	}
	if !o.down.Load() {
		o.since, o.logged, o.errors = now, now, 1
		o.down.Store(true)
		o.log.Error("unavailable", "err", err)
		return
	}
	o.errors++
	if now.Sub(o.logged) >= logEvery {
		o.logged = now
		o.log.Error("still unavailable", "err", err, "for", now.Sub(o.since).Round(time.Second).String(), "errors", o.errors)
	}
}

// Ended takes note of a success. Without an outage it costs one atomic read.
func (o *Outage) Ended() {
	if !o.down.Load() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.down.Load() && o.over == nil {
		o.over = time.AfterFunc(quiet, o.back)
	}
}

// back ends the outage, unless an error came first.
func (o *Outage) back() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.down.Load() && time.Since(o.last) >= quiet {
		o.down.Store(false)
		o.over = nil
		o.log.Info("back", "after", o.last.Sub(o.since).Round(time.Millisecond).String(), "errors", o.errors)
	}
}
