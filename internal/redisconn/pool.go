package redisconn

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

var (
	poolConns    = prometheus.NewDesc("snowlink_redis_pool_connections", "Connections to Redis, by state.", []string{"state"}, nil)
	poolWaiting  = prometheus.NewDesc("snowlink_redis_pool_waiting", "Callers waiting for a connection to Redis.", nil, nil)
	poolHits     = prometheus.NewDesc("snowlink_redis_pool_hits_total", "Times a free connection was found in the pool.", nil, nil)
	poolTimeouts = prometheus.NewDesc("snowlink_redis_pool_timeouts_total", "Times the wait for a connection was given up.", nil, nil)
)

// poolCollector asks for the state of the connections at every scrape, all pools together.
type poolCollector struct{ *Conn }

func (poolCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- poolConns
	ch <- poolWaiting
	ch <- poolHits
	ch <- poolTimeouts
}

func (c poolCollector) Collect(ch chan<- prometheus.Metric) {
	var total redis.PoolStats
	add := func(stats *redis.PoolStats) {
		total.TotalConns += stats.TotalConns
		total.IdleConns += stats.IdleConns
		total.PendingRequests += stats.PendingRequests
		total.Hits += stats.Hits
		total.Timeouts += stats.Timeouts
	}
	for _, client := range []redis.UniversalClient{c.Client, c.Aside} {
		stats := client.PoolStats()
		add(stats)
		if stats.PipelineStats != nil {
			add((*redis.PoolStats)(stats.PipelineStats))
		}
	}
	ch <- prometheus.MustNewConstMetric(poolConns, prometheus.GaugeValue, float64(total.IdleConns), "idle")
	ch <- prometheus.MustNewConstMetric(poolConns, prometheus.GaugeValue, float64(total.TotalConns-total.IdleConns), "used")
	ch <- prometheus.MustNewConstMetric(poolWaiting, prometheus.GaugeValue, float64(total.PendingRequests))
	ch <- prometheus.MustNewConstMetric(poolHits, prometheus.CounterValue, float64(total.Hits))
	ch <- prometheus.MustNewConstMetric(poolTimeouts, prometheus.CounterValue, float64(total.Timeouts))
}
