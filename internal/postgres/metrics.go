package postgres

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	poolConns = prometheus.NewDesc("snowlink_archive_pool_connections",
		"Connections to the archive, by shard and state.", []string{"shard", "state"}, nil)
	poolWaits = prometheus.NewDesc("snowlink_archive_pool_waits_total",
		"Queries that had to wait for a connection, by shard.", []string{"shard"}, nil)
	poolWaited = prometheus.NewDesc("snowlink_archive_pool_wait_seconds_total",
		"Time that queries waited for a connection, by shard.", []string{"shard"}, nil)
)

// metrics are those of all databases together. It is also the collector that asks for the state of the
// pools at every scrape.
type metrics struct {
	took   *prometheus.HistogramVec
	failed *prometheus.CounterVec
	shards *Shards
}

func newMetrics(s *Shards) *metrics {
	return &metrics{
		shards: s,
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "snowlink_archive_query_seconds", Help: "Time of queries to the archive, waiting included, by query.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}, []string{"query"}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "snowlink_archive_errors_total", Help: "Queries to the archive that failed, by query and shard.",
		}, []string{"query", "shard"}),
	}
}

func (*metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- poolConns
	ch <- poolWaits
	ch <- poolWaited
}

func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, db := range m.shards.dbs {
		shard, stat := strconv.Itoa(db.shard+1), db.pool.Stat()
		ch <- prometheus.MustNewConstMetric(poolConns, prometheus.GaugeValue, float64(stat.IdleConns()), shard, "idle")
		ch <- prometheus.MustNewConstMetric(poolConns, prometheus.GaugeValue, float64(stat.AcquiredConns()), shard, "used")
		ch <- prometheus.MustNewConstMetric(poolWaits, prometheus.CounterValue, float64(stat.EmptyAcquireCount()), shard)
		ch <- prometheus.MustNewConstMetric(poolWaited, prometheus.CounterValue, stat.EmptyAcquireWaitTime().Seconds(), shard)
	}
}
