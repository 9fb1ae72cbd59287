package clicks

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// QueueMetrics is what a Queue counts, whichever it is. What it counts are batches, or records where
// a queue takes batches apart.
type QueueMetrics struct {
	Sent, Refused                  prometheus.Counter // by Send: taken, and not
	Received, Repeated, Unreadable prometheus.Counter // by Receive
}

// NewQueueMetrics makes the metrics and registers them with reg.
func NewQueueMetrics(reg prometheus.Registerer) *QueueMetrics {
	counter := func(name, help string) prometheus.Counter {
		return promauto.With(reg).NewCounter(prometheus.CounterOpts{Name: "snowlink_clicks_queue_" + name, Help: help})
	}
	return &QueueMetrics{
		Sent:       counter("sent_total", "Batches of clicks that the queue took."),
		Refused:    counter("refused_total", "Times the queue did not take a batch of clicks, since it was full or away. It is sent again."),
		Received:   counter("received_total", "Batches of clicks, or with Kafka records, that the queue gave to be applied."),
		Repeated:   counter("repeated_total", "Those of them that it had given before. They are counted once."),
		Unreadable: counter("unreadable_total", "Batches of clicks, or with Kafka records, that cannot be read. They are set aside and not counted."),
	}
}
