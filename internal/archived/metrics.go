package archived

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics count what the archive was asked for.
type metrics struct{ queries, restored, stale prometheus.Counter }

func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{
		queries:  counter(reg, "snowlink_archive_lookups_total", "Questions to the archive for links that Redis does not have; many share one."),
		restored: counter(reg, "snowlink_archive_restored_total", "Links that Redis did not have and the archive had."),
		stale:    counter(reg, "snowlink_archive_stale_total", "Links answered from the archive while Redis was away."),
	}
}

func counter(reg prometheus.Registerer, name, help string) prometheus.Counter {
	return promauto.With(reg).NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}
