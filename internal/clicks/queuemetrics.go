package clicks

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// lagEvery is how often a process that receives batches looks how far it is behind.
const lagEvery = 5 * time.Second

// QueueMetrics is what a Queue counts, whichever it is. What it counts are batches, or records where
// a queue takes batches apart.
type QueueMetrics struct {
	Sent, Refused                  prometheus.Counter // by Send: taken, and not
	Received, Repeated, Unreadable prometheus.Counter // by Receive
	lagBatches, lagSeconds         prometheus.Gauge
}

// NewQueueMetrics makes the metrics and registers them with reg.
func NewQueueMetrics(reg prometheus.Registerer) *QueueMetrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "snowlink_clicks_queue_" + name, Help: help})
		reg.MustRegister(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "snowlink_clicks_queue_" + name, Help: help})
		reg.MustRegister(g)
		return g
	}
	return &QueueMetrics{
		Sent:       counter("sent_total", "Batches of clicks that the queue took."),
		Refused:    counter("refused_total", "Times the queue did not take a batch of clicks, since it was full or away. It is sent again."),
		Received:   counter("received_total", "Batches of clicks, or with Kafka records, that the queue gave to be applied."),
		Repeated:   counter("repeated_total", "Those of them that it had given before. They are counted once."),
		Unreadable: counter("unreadable_total", "Batches of clicks, or with Kafka records, that cannot be read. They are set aside and not counted."),
		lagBatches: gauge("lag_batches", "Batches of clicks, or with Kafka records, that wait to be applied."),
		lagSeconds: gauge("lag_seconds", "Age of the oldest of them; 0 if there is none."),
	}
}

// Watch keeps the metrics of the lag true, until ctx ends.
func (m *QueueMetrics) Watch(ctx context.Context, q Queue) {
	for tick := time.NewTicker(lagEvery); ; {
		if lag, err := q.Lag(ctx); err == nil {
			m.lagBatches.Set(float64(lag.Batches))
			m.lagSeconds.Set(lag.Oldest.Seconds())
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
	}
}
