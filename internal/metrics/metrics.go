// Package metrics holds every Prometheus collector of a backend, and the
// handler that shows them.
//
// Its decision: labels are bounded. Every label value is named in this file or
// comes from a fixed set of Redis commands; a code, a target, an address or a
// key is never one, so that a scrape costs the same after a billion links. All
// label combinations of the request path are resolved once, in New: observing a
// request takes two atomic updates and no map look-up.
package metrics

import (
	"net/http"
	"net/http/pprof"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Route names what a request was for. It is the only thing about a request's
// path that becomes a label.
type Route uint8

// The routes of the HTTP contract. Other is any path or method the contract does
// not know; Refused is what was answered before a route could be found (a malformed
// request, headers or a body too large, a request that never came).
const (
	Create Route = iota
	Redirect
	Read
	Change
	Delete
	List
	Bulk
	Export
	Import
	Preview
	QR
	Ping
	Healthz
	OpenAPI
	Other
	Refused
	routes
)

var routeNames = [routes]string{"create", "redirect", "read", "change", "delete", "list", "bulk", "export", "import", "preview", "qr", "ping", "healthz", "openapi", "other", "refused"}

// Op names a Redis operation of the store.
type Op uint8

// The store's operations.
const (
	OpGet Op = iota
	OpCreate
	OpVisit
	OpUpdate
	OpList
	OpRemember
	OpLease
	OpPing
	OpLimit
	ops
)

var opNames = [ops]string{"get", "create", "visit", "update", "list", "remember", "lease", "ping", "limit"}

// String is the value of the op label.
func (o Op) String() string { return opNames[o] }

// CacheEvent names what the near cache did.
type CacheEvent uint8

// The near cache's events.
const (
	CacheHit        CacheEvent = iota // a link was answered from memory
	CacheMiss                         // the store was asked, once for all who waited
	CacheNegative                     // a code was known to have no link
	CacheStale                        // a link was served past its bound: the store did not answer
	CacheRefresh                      // a link in memory was read again
	CacheInvalidate                   // a change was announced
	CacheDistrust                     // announcements may have been missed
	cacheEvents
)

var cacheEventNames = [cacheEvents]string{"hit", "miss", "negative", "stale", "refresh", "invalidate", "distrust"}

// SlotRefusal is why a bulk or an import was refused although nothing was wrong with it.
type SlotRefusal uint8

// The reasons.
const (
	SlotKey    SlotRefusal = iota // its key has as many under way as it may have
	SlotMemory                    // those under way take all the memory that they may
	slotRefusals
)

var slotRefusalNames = [slotRefusals]string{"key", "memory"}

var classNames = [6]string{"", "1xx", "2xx", "3xx", "4xx", "5xx"}

// latencyBuckets are upper bounds in seconds. They are dense where a redirect
// lives (tens of microseconds from the process, some hundred from Redis) and
// end where Nginx has given up (3 s).
var latencyBuckets = []float64{
	25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 3,
}

// Metrics is the set of collectors of one backend. All methods may be called
// concurrently.
type Metrics struct {
	registry    *prometheus.Registry
	requests    [routes][len(classNames)]prometheus.Counter
	latency     [routes]prometheus.Observer
	creates     prometheus.Counter
	collisions  prometheus.Counter
	redisErrors [ops]prometheus.Counter
	cache       [cacheEvents]prometheus.Counter
	slots       prometheus.Gauge
	slotRefused [slotRefusals]prometheus.Counter
	memoryUsed  prometheus.Gauge
	memoryMax   prometheus.Gauge
	evicted     prometheus.Gauge // not a counter: a failover may set it back
}

// New registers everything but the Redis pool, which does not exist yet: see
// WatchPool.
func New() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		creates: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "snowlink_creates_total", Help: "Links stored and acknowledged."}),
		collisions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "snowlink_collisions_total", Help: "Minted codes that were taken and minted again. Above zero, two processes share a node ID or a clock went back."}),
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		m.registry.MustRegister(g)
		return g
	}
	m.slots = gauge("snowlink_slots_held", "Bulks and imports under way.")
	m.memoryUsed = gauge("snowlink_redis_memory_used_bytes", "Memory that Redis uses.")
	m.memoryMax = gauge("snowlink_redis_memory_max_bytes", "maxmemory of Redis; 0 for no bound.")
	m.evicted = gauge("snowlink_redis_evicted_keys", "Keys that Redis has evicted since it started.")
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "snowlink_http_requests_total", Help: "Requests answered, by route and status class.",
	}, []string{"route", "class"})
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "snowlink_http_request_duration_seconds", Help: "Time from the parsed request to the finished answer, not yet written; of an answer that is made while it is sent, to its end.",
		Buckets: latencyBuckets,
	}, []string{"route"})
	redisErrors := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "snowlink_redis_errors_total", Help: "Redis operations that failed, by operation.",
	}, []string{"op"})
	cache := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "snowlink_cache_events_total", Help: "What the near cache did, by event.",
	}, []string{"event"})
	slotRefused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "snowlink_slot_refusals_total", Help: "Bulks and imports answered 503 unread: their key has as many under way as it may have, or all together take the memory that there is for them.",
	}, []string{"reason"})
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "snowlink_build_info", Help: "Always 1; what runs is in the labels.",
	}, []string{"version", "goversion"})

	for r := range routes {
		for c := 1; c < len(classNames); c++ {
			m.requests[r][c] = requests.WithLabelValues(routeNames[r], classNames[c])
		}
		m.latency[r] = latency.WithLabelValues(routeNames[r])
	}
	for o := range ops {
		m.redisErrors[o] = redisErrors.WithLabelValues(opNames[o])
	}
	for e := range cacheEvents {
		m.cache[e] = cache.WithLabelValues(cacheEventNames[e])
	}
	for r := range slotRefusals {
		m.slotRefused[r] = slotRefused.WithLabelValues(slotRefusalNames[r])
	}
	build.WithLabelValues(Version(), runtime.Version()).Set(1)

	m.registry.MustRegister(requests, latency, m.creates, m.collisions, redisErrors, cache, slotRefused, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// version is set by the linker where there is no version control to ask:
// -ldflags "-X snowlink/internal/metrics.version=…".
var version string

// Version is what the linker was told, or the version control revision this
// binary was built from, or "devel" where neither was recorded.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "devel"
}

// Request counts one answered request: its route, its status (100 to 599) and
// how long it took.
func (m *Metrics) Request(r Route, status int, took time.Duration) {
	m.requests[r][status/100].Inc()
	m.latency[r].Observe(took.Seconds())
}

// Created counts a link that was stored.
func (m *Metrics) Created() { m.creates.Inc() }

// Collision counts a minted code that was taken by another target.
func (m *Metrics) Collision() { m.collisions.Inc() }

// RedisError counts a Redis operation that failed.
func (m *Metrics) RedisError(o Op) { m.redisErrors[o].Inc() }

// Cache counts an event of the near cache.
func (m *Metrics) Cache(e CacheEvent) { m.cache[e].Inc() }

// Slots counts bulks and imports that begin, or below zero end.
func (m *Metrics) Slots(n int) { m.slots.Add(float64(n)) }

// SlotRefused counts a bulk or an import that was refused unread.
func (m *Metrics) SlotRefused(why SlotRefusal) { m.slotRefused[why].Inc() }

// WatchCache registers gauges that ask the near cache at every scrape for its
// size. It must be called once at most.
func (m *Metrics) WatchCache(bytes, entries func() float64) {
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "snowlink_cache_bytes", Help: "What the near cache takes, of CACHE_BYTES."}, bytes),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "snowlink_cache_entries", Help: "Links in the near cache."}, entries))
}

// Memory is the state of Redis's memory at one moment, in bytes; Max is 0 where
// there is no bound. Evicted counts keys since Redis started.
type Memory struct{ Used, Max, Evicted uint64 }

// RedisMemory takes note of what Redis last told.
func (m *Metrics) RedisMemory(now Memory) {
	m.memoryUsed.Set(float64(now.Used))
	m.memoryMax.Set(float64(now.Max))
	m.evicted.Set(float64(now.Evicted))
}

// Pool is the state of the connections to Redis at one moment.
type Pool struct {
	Total, Idle    int    // connections
	Waiting        int    // callers without a connection
	Hits, Timeouts uint64 // since the start: connections found free, waits given up
}

// WatchPool registers gauges that ask read at every scrape. It must be called
// once at most.
func (m *Metrics) WatchPool(read func() Pool) {
	m.registry.MustRegister(poolCollector(read))
}

type poolCollector func() Pool

var (
	poolConns    = prometheus.NewDesc("snowlink_redis_pool_connections", "Connections to Redis, by state.", []string{"state"}, nil)
	poolWaiting  = prometheus.NewDesc("snowlink_redis_pool_waiting", "Callers waiting for a connection to Redis.", nil, nil)
	poolHits     = prometheus.NewDesc("snowlink_redis_pool_hits_total", "Times a free connection was found in the pool.", nil, nil)
	poolTimeouts = prometheus.NewDesc("snowlink_redis_pool_timeouts_total", "Times the wait for a connection was given up.", nil, nil)
)

func (poolCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- poolConns
	ch <- poolWaiting
	ch <- poolHits
	ch <- poolTimeouts
}

func (read poolCollector) Collect(ch chan<- prometheus.Metric) {
	p := read()
	ch <- prometheus.MustNewConstMetric(poolConns, prometheus.GaugeValue, float64(p.Idle), "idle")
	ch <- prometheus.MustNewConstMetric(poolConns, prometheus.GaugeValue, float64(p.Total-p.Idle), "used")
	ch <- prometheus.MustNewConstMetric(poolWaiting, prometheus.GaugeValue, float64(p.Waiting))
	ch <- prometheus.MustNewConstMetric(poolHits, prometheus.CounterValue, float64(p.Hits))
	ch <- prometheus.MustNewConstMetric(poolTimeouts, prometheus.CounterValue, float64(p.Timeouts))
}

// Handler serves /metrics and, beside it, /debug/pprof/. It is for a listener
// of its own that the world cannot reach: a profile shows what is in memory.
func (m *Metrics) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}
