package httpapi

import (
	"slices"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"snowlink/internal/apikey"
)

// Service is how the service is, as an operator sees it. A part that cannot be asked says so in its
// Error, and has nothing else.
type Service struct {
	// Status is "ok", "degraded" if the operator should attend to something, or "unavailable" if this
	// backend cannot serve every route. Reasons say why, in words for people.
	Status  string   `json:"status"`
	Reasons []string `json:"reasons"`
	Version string   `json:"version"`
	// Redis has the Redis of links, and that of what is no link if it is another one.
	Redis    []RedisStatus  `json:"redis"`
	Archive  *ArchiveStatus `json:"archive,omitempty"` // nil without an archive
	Clicks   *ClicksStatus  `json:"clicks,omitempty"`  // nil if clicks are not counted
	Backends BackendsStatus `json:"backends"`
}

// RedisStatus is a Redis. Of a Cluster, numbers are the sums over its masters.
type RedisStatus struct {
	Name       string `json:"name"` // links or state
	Error      string `json:"error,omitempty"`
	Version    string `json:"version,omitempty"`
	Policy     string `json:"maxmemory_policy,omitempty"`
	Used       uint64 `json:"used_bytes"`
	Max        uint64 `json:"max_bytes"` // 0 for no bound
	Evicted    uint64 `json:"evicted_keys"`
	Keys       uint64 `json:"keys"`
	WithoutTTL uint64 `json:"keys_without_ttl"`
}

// ArchiveStatus is the archive, and what waits for it.
type ArchiveStatus struct {
	Error   string  `json:"error,omitempty"`
	Pending int64   `json:"pending_marks"`
	Lag     float64 `json:"lag_seconds"`
	Moving  bool    `json:"moving"` // links are on their way to another shard
	Shards  []Shard `json:"shards"`
}

// Shard is a database of the archive.
type Shard struct {
	Shard   int    `json:"shard"`
	Address string `json:"address"`
	Error   string `json:"error,omitempty"`
	Rows    int64  `json:"rows_estimate"`
	Bytes   int64  `json:"bytes"`
}

// ClicksStatus is the counting of clicks. Recorded, Dropped and Applied are of this backend since it
// started.
type ClicksStatus struct {
	Error    string  `json:"error,omitempty"`
	Queue    string  `json:"queue"` // redis or kafka
	Waiting  int64   `json:"waiting_batches"`
	Lag      float64 `json:"lag_seconds"`
	Recorded int64   `json:"recorded"`
	Dropped  int64   `json:"dropped"`
	Applied  int64   `json:"applied"`
}

// BackendsStatus are the processes that hold a node ID.
type BackendsStatus struct {
	Error string    `json:"error,omitempty"`
	List  []Backend `json:"list"`
}

// Backend is a process that holds a node ID.
type Backend struct {
	Node  int        `json:"node"`
	Host  string     `json:"host"`
	PID   int        `json:"pid,omitzero"`
	Since *time.Time `json:"since,omitempty"`
	This  bool       `json:"this,omitzero"`
}

// keyStatus is a key, without anything that could be used as one.
type keyStatus struct {
	Name   string   `json:"name"`
	Scopes []string `json:"scopes"`
	Rate   string   `json:"rate,omitempty"`
}

// service answers GET /service.
func (a *API) service(ctx *fasthttp.RequestCtx) {
	within := a.deadline(ctx)
	if _, ok := a.authorize(ctx, within, apikey.ScopeAdmin); !ok {
		return
	}
	keys := []keyStatus{}
	for _, key := range a.Keys.All() {
		status := keyStatus{key.Name, key.Scopes.Names(), ""}
		if key.Rate != (apikey.Rate{}) {
			status.Rate = key.Rate.String()
		}
		keys = append(keys, status)
	}
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	writeJSON(ctx, fasthttp.StatusOK, contentJSON, struct {
		Service
		Keys []keyStatus `json:"keys"`
	}{a.Service(within), keys})
}

// secretHeaders are those whose values nobody should see, not even who sent them.
var secretHeaders = []string{"Cookie", "Api-Key", "X-Api-Key", "Authorization", "Proxy-Authorization"}

// describeYou answers GET /service/you with what the request looked like when it came here. It shows
// what a proxy in front does wrong.
func (a *API) describeYou(ctx *fasthttp.RequestCtx) {
	if _, ok := a.authorize(ctx, a.deadline(ctx), apikey.ScopeAdmin); !ok {
		return
	}
	type header struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	you := struct {
		Address string   `json:"address,omitempty"`
		Country string   `json:"country,omitempty"`
		Scheme  string   `json:"scheme"`
		Host    string   `json:"host"`
		Headers []header `json:"headers"`
	}{Scheme: "http", Host: string(ctx.Host()), Headers: []header{}}
	request := &ctx.Request.Header
	if peer, known := peerOf(ctx); !known || near(peer) { // a proxy of ours may have set them
		if scheme := request.Peek(fasthttp.HeaderXForwardedProto); len(scheme) > 0 {
			you.Scheme = string(scheme)
		}
		if host := request.Peek(fasthttp.HeaderXForwardedHost); len(host) > 0 {
			you.Host = string(host)
		}
	}
	address := addressOf(ctx)
	if address.IsValid() {
		you.Address = address.String()
	}
	if a.Country != nil {
		you.Country = a.Country(request.Peek(a.countryHeader), address)
	}
	for name, value := range request.All() {
		if !slices.Contains(secretHeaders, string(name)) {
			you.Headers = append(you.Headers, header{string(name), strings.ToValidUTF8(string(value), "\uFFFD")})
		}
	}
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	writeJSON(ctx, fasthttp.StatusOK, contentJSON, you)
}
