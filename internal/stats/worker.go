package stats

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"snowlink/internal/clicks"
	"snowlink/internal/deadline"
)

// LagMost is how old the oldest batch may be that waits to be applied, until the operator should attend
// to it.
const LagMost = time.Minute

// lookEvery is the time between two looks at the queue.
const lookEvery = time.Second

// A Worker applies what a queue carries to a store, and tells a feed of it. All methods may be called
// concurrently.
type Worker struct {
	queue  clicks.Queue
	store  Store
	feed   clicks.Feed
	behind atomic.Int64 // how old the oldest batch was, in nanoseconds

	applied, repeated, skipped, clicks prometheus.Counter
	lagBatches, lagSeconds             prometheus.Gauge
}

// NewWorker makes a worker.
func NewWorker(queue clicks.Queue, store Store, feed clicks.Feed, reg prometheus.Registerer) *Worker {
	register := promauto.With(reg)
	batches := register.NewCounterVec(prometheus.CounterOpts{
		Name: "snowlink_clicks_worker_batches_total",
		Help: "Batches of clicks that this process took from the queue: applied; repeated, which had been applied before; skipped, which the store will never take.",
	}, []string{"outcome"})
	return &Worker{
		queue: queue, store: store, feed: feed,
		clicks: register.NewCounter(prometheus.CounterOpts{
			Name: "snowlink_clicks_applied_total", Help: "Clicks that this process added up, those of bots with them."}),
		applied: batches.WithLabelValues("applied"), repeated: batches.WithLabelValues("repeated"), skipped: batches.WithLabelValues("skipped"),
		lagBatches: register.NewGauge(prometheus.GaugeOpts{
			Name: "snowlink_clicks_queue_lag_batches", Help: "Batches of clicks, or with Kafka records, that wait to be applied."}),
		lagSeconds: register.NewGauge(prometheus.GaugeOpts{
			Name: "snowlink_clicks_queue_lag_seconds", Help: "Age of the oldest of them; 0 if there is none."}),
	}
}

// Run applies what comes until ctx ends, and returns nil then. It outlasts outages.
func (w *Worker) Run(ctx context.Context) error { return w.queue.Receive(ctx, w.apply) }

func (w *Worker) apply(ctx context.Context, batches []clicks.Batch) error {
	done, err := w.store.Apply(ctx, batches)
	w.applied.Add(float64(len(done.New)))
	w.repeated.Add(float64(done.Repeated))
	w.clicks.Add(float64(done.Clicks))
	if err != nil {
		return err // the queue gives them again
	}
	w.skipped.Add(float64(max(0, len(batches)-len(done.New)-done.Repeated)))
	if len(done.New) > 0 {
		w.feed.Publish(ctx, done.New)
	}
	return nil
}

// Lag is how old the oldest batch was that nobody had applied when Watch looked last.
func (w *Worker) Lag() time.Duration { return time.Duration(w.behind.Load()) }

// Degraded says why the operator should attend to the counting of clicks, as of when Watch looked last,
// or returns "".
func (w *Worker) Degraded() string {
	if lag := w.Lag(); lag > LagMost {
		return fmt.Sprintf("counting clicks is %s behind", lag.Round(time.Second))
	}
	return ""
}

// Watch looks at the queue until ctx ends, for Lag, Degraded and the metrics, and returns nil. It does
// so whoever applies.
func (w *Worker) Watch(ctx context.Context) error {
	for {
		if lag, err := w.queue.Lag(ctx); err == nil { // otherwise an outage, which others log
			w.behind.Store(int64(lag.Oldest))
			w.lagBatches.Set(float64(lag.Batches))
			w.lagSeconds.Set(lag.Oldest.Seconds())
		}
		if !deadline.Sleep(ctx, lookEvery) {
			return nil
		}
	}
}
