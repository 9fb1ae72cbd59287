package stats_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"snowlink/internal/clicks"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/stats"
)

// queue gives its batches to whoever receives, until they are applied.
type queue struct {
	clicks.Queue
	batches []clicks.Batch
	applied chan struct{}
	lag     time.Duration
}

func (q *queue) Receive(ctx context.Context, apply func(context.Context, []clicks.Batch) error) error {
	for apply(ctx, q.batches) != nil {
	}
	close(q.applied)
	<-ctx.Done()
	return nil
}

func (q *queue) Lag(context.Context) (clicks.Lag, error) {
	return clicks.Lag{Batches: 3, Oldest: q.lag}, nil
}

// store fails once, half-way, as a store may.
type store struct {
	stats.Store
	failed bool
}

func (s *store) Apply(_ context.Context, batches []clicks.Batch) (stats.Applied, error) {
	if !s.failed {
		s.failed = true
		return stats.Applied{New: batches[:1], Clicks: 10}, link.ErrUnavailable
	}
	return stats.Applied{New: batches[2:], Repeated: 1, Clicks: 5}, nil
}

type feed struct {
	clicks.Feed
	told int
}

func (f *feed) Publish(_ context.Context, batches []clicks.Batch) { f.told += len(batches) }

func TestWorker(t *testing.T) {
	q := &queue{batches: make([]clicks.Batch, 4), applied: make(chan struct{}), lag: 61 * time.Second}
	f, reg := new(feed), prometheus.NewRegistry()
	w := stats.NewWorker(q, new(store), f, reg)
	if why := w.Degraded(); why != "" {
		t.Errorf("degraded before it looked: %s", why)
	}
	stop, unwatch := fleettest.Background(t, w.Run), fleettest.Background(t, w.Watch)
	<-q.applied
	fleettest.Eventually(t, 5*time.Second, "a lag of over a minute is said", func() bool {
		return strings.Contains(w.Degraded(), "1m1s behind")
	})
	if err := errors.Join(stop(), unwatch()); err != nil {
		t.Error(err)
	}
	if f.told != 2 {
		t.Errorf("the feed was told of %d batches, want the 2 that were new, once", f.told)
	}
	// The try that failed counts what it did.
	page := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		"snowlink_clicks_applied_total 15",
		"snowlink_clicks_queue_lag_seconds 61",
		`snowlink_clicks_worker_batches_total{outcome="applied"} 3`,
		`snowlink_clicks_worker_batches_total{outcome="repeated"} 1`,
		`snowlink_clicks_worker_batches_total{outcome="skipped"} 1`,
	} {
		if !strings.Contains(page.Body.String(), "\n"+want+"\n") {
			t.Errorf("/metrics lacks %s:\n%s", want, page.Body)
		}
	}
}
