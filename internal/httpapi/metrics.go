package httpapi

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// route names what a request was for. It is the only thing about a request's path that becomes a
// label: a scrape costs the same after a billion links.
type route uint8

// The routes of the contract. routeOther is any path or method that the contract does not know.
// routeRefused is what was answered before a route could be found: a malformed request, headers or
// a body too large, a request that never came.
const (
	routeCreate route = iota
	routeRedirect
	routeRead
	routeChange
	routeDelete
	routeList
	routeBulk
	routeExport
	routeImport
	routePreview
	routeQR
	routeClicks
	routeLive
	routeKey
	routeCode
	routeService
	routeDashboard
	routeSession
	routeRoot
	routePing
	routeHealthz
	routeOpenAPI
	routeOther
	routeRefused
	routes
)

var routeNames = [routes]string{
	"create", "redirect", "read", "change", "delete", "list", "bulk", "export", "import", "preview", "qr",
	"clicks", "live", "key", "code", "service", "dashboard", "session", "root", "ping", "healthz", "openapi", "other", "refused",
}

var classNames = [6]string{"", "1xx", "2xx", "3xx", "4xx", "5xx"}

// latencyBuckets are upper bounds in seconds. They are dense where a redirect lives (tens of
// microseconds from the process, some hundred from Redis) and end where Nginx has given up (3 s).
var latencyBuckets = []float64{
	25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 3,
}

// requestMetrics count and time the requests. Every combination of labels is resolved once, so that
// to observe a request takes two atomic updates and no map look-up.
type requestMetrics struct {
	requests [routes][len(classNames)]prometheus.Counter
	latency  [routes]prometheus.Observer
}

func newRequestMetrics(reg prometheus.Registerer) *requestMetrics {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "snowlink_http_requests_total", Help: "Requests answered, by route and status class.",
	}, []string{"route", "class"})
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "snowlink_http_request_duration_seconds",
		Help:    "Time from the parsed request to the finished answer, not yet written; of an answer that is made while it is sent, to its end.",
		Buckets: latencyBuckets,
	}, []string{"route"})
	reg.MustRegister(requests, latency)

	m := new(requestMetrics)
	for r := range routes {
		for c := 1; c < len(classNames); c++ {
			m.requests[r][c] = requests.WithLabelValues(routeNames[r], classNames[c])
		}
		m.latency[r] = latency.WithLabelValues(routeNames[r])
	}
	return m
}

// answered counts one answered request: its route, its status (100 to 599) and how long it took.
func (m *requestMetrics) answered(r route, status int, took time.Duration) {
	m.requests[r][status/100].Inc()
	m.latency[r].Observe(took.Seconds())
}
