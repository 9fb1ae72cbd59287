package nearcache

import "github.com/prometheus/client_golang/prometheus"

// event names what the near cache did.
type event uint8

const (
	hit        event = iota // a link was answered from memory
	miss                    // the store was asked, once for all who waited
	negative                // a code was known to have no link
	stale                   // a link was served past its bound, since the store did not answer
	refreshed               // a link in memory was read again
	invalidate              // a change was announced
	distrust                // announcements may have been missed
	events
)

var eventNames = [events]string{"hit", "miss", "negative", "stale", "refresh", "invalidate", "distrust"}

type metrics [events]prometheus.Counter

// newMetrics registers the events, and gauges that ask the cache for its size at every scrape.
func newMetrics(reg prometheus.Registerer, bytes, entries func() float64) *metrics {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "snowlink_cache_events_total", Help: "What the near cache did, by event.",
	}, []string{"event"})
	m := new(metrics)
	for e := range events {
		m[e] = vec.WithLabelValues(eventNames[e])
	}
	reg.MustRegister(vec,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "snowlink_cache_bytes", Help: "What the near cache takes, of CACHE_BYTES."}, bytes),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "snowlink_cache_entries", Help: "Links in the near cache."}, entries))
	return m
}

func (m *metrics) count(e event) { m[e].Inc() }
