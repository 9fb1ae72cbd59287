package redisstore

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// outageLogEvery spaces the log lines of an outage that lasts.
const outageLogEvery = 5 * time.Second

// outage turns the errors of many requests into a few log lines: one when an
// outage starts, one every outageLogEvery while it lasts, one when it ends.
type outage struct {
	log    *slog.Logger
	down   atomic.Bool // read by every success; written twice an outage
	mu     sync.Mutex
	since  time.Time
	logged time.Time
	errors int
}

// observed takes note of a failed operation.
func (o *outage) observed(err error) {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.down.Load() {
		o.since, o.logged, o.errors = now, now, 1
		o.down.Store(true)
		o.log.Error("unavailable", "err", err)
		return
	}
	o.errors++
	if now.Sub(o.logged) >= outageLogEvery {
		o.logged = now
		o.log.Error("still unavailable", "err", err, "for", now.Sub(o.since).Round(time.Second).String(), "errors", o.errors)
	}
}

// ended takes note of a success.
func (o *outage) ended() {
	if !o.down.Load() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.down.CompareAndSwap(true, false) {
		o.log.Info("back", "after", time.Since(o.since).Round(time.Millisecond).String(), "errors", o.errors)
	}
}
