package httpapi_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttputil"

	"snowlink/internal/apikey"
	"snowlink/internal/clicks"
	"snowlink/internal/dashboard"
	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/httpapi"
	"snowlink/internal/link"
	"snowlink/internal/redisstore"
	"snowlink/internal/shorten"
	"snowlink/snowflake"
)

const key, baseURL = "s3cret-key", "https://sno.example"

// backend is the real handler in the real server over the real store, on an in-memory listener.
type backend struct {
	t       testing.TB
	client  *fasthttp.Client
	api     *httpapi.API
	redis   *fleet.Redis
	metrics *prometheus.Registry
	store   *fragile
	keys    *apikey.Keys
	mint    func() (snowflake.ID, error)
	missing []string

	degraded string

	service httpapi.Service
	visits  *visits
	stats   *fakeStats
	feed    *fakeFeed
}

func newBackend(t testing.TB) *backend {
	t.Helper()
	return newBackendVia(t, func(addr string) string { return addr })
}

// newBackendVia is newBackend with its Redis behind the address that via returns.
func newBackendVia(t testing.TB, via func(redisAddr string) string) *backend {
	t.Helper()
	return newBackendWith(t, via, func(*httpapi.Config) {})
}

// newBackendWith is newBackendVia with a configuration that change has changed.
func newBackendWith(t testing.TB, via func(redisAddr string) string, change func(*httpapi.Config)) *backend {
	t.Helper()
	redis := fleettest.Redis(t)
	log, m := slog.New(slog.DiscardHandler), prometheus.NewRegistry()
	store := redisstore.New(fleettest.Conn(t, "redis://"+via(redis.Addr), log), redisstore.Options{JournalMax: 1_000_000})
	keys := apikey.NewKeys("another-key", key)
	_, own, err := link.ParseBaseURL(baseURL)
	if err != nil {
		t.Fatal(err)
	}
	generator, err := snowflake.NewGenerator(5)
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{t: t, redis: redis, metrics: m, store: &fragile{Store: store, pages: -1, batches: -1}, keys: keys, mint: func() (snowflake.ID, error) { return generator.Next(), nil }}
	b.service = httpapi.Service{Status: "ok", Reasons: []string{}, Redis: []httpapi.RedisStatus{}, Backends: httpapi.BackendsStatus{List: []httpapi.Backend{}}}
	b.visits, b.feed = new(visits), new(fakeFeed)
	b.stats = &fakeStats{away: func() bool { return !redis.Running() }}
	c := httpapi.Config{
		Store: b.store, Shortener: shorten.New(b.store, store, func() (snowflake.ID, error) { return b.mint() }, m),
		Ready:    func(context.Context) []string { return b.missing },
		Degraded: func() string { return b.degraded },
		BaseURL:  baseURL, OwnHosts: own, Keys: b.keys, TakeRequest: store.TakeRequest, Registry: m, Log: log,
		BulkMemory: 3 * httpapi.SlotMemory,
		Clicks:     b.visits, Stats: b.stats, Feed: b.feed, CountryHeader: "CF-IPCountry",
		Country:  func(header []byte, address netip.Addr) string { return clicks.CountryOf(header, nil, address) },
		Service:  func(ctx context.Context) httpapi.Service { return b.service },
		Sessions: dashboard.NewSessions(store, keys), RootURL: "/dashboard/",
	}
	change(&c)
	b.api = httpapi.New(context.Background(), c)
	listener := fasthttputil.NewInmemoryListener()
	srv := b.api.Server()
	go srv.Serve(httpapi.RefusalListener(listener))
	b.client = &fasthttp.Client{
		Dial:                     func(string) (net.Conn, error) { return listener.Dial() },
		NoDefaultUserAgentHeader: true,
		DisablePathNormalizing:   true,
		MaxConnsPerHost:          2000,
	}
	t.Cleanup(func() { srv.Shutdown() })
	return b
}

// fragile is a store that can be made to panic, to take no links, or to fail after so many more
// pages or batches; -1 means never.
type fragile struct {
	link.Store
	panics, refuses bool
	mu              sync.Mutex
	pages, batches  int
	away            error      // of lists, in place of link.ErrUnavailable
	page            *link.Page // in place of the store's, if it is not nil
	asked           link.Query
	after, behind   int // after so many pages, so many are incomplete
}

func (f *fragile) List(ctx context.Context, q link.Query) (link.Page, error) {
	f.mu.Lock()
	over, behind := f.pages == 0, f.after == 0 && f.behind > 0
	if behind {
		f.behind--
	}
	f.after = max(f.after-1, 0)
	f.asked = q
	if f.pages > 0 {
		f.pages--
	}
	f.mu.Unlock()
	if over {
		return link.Page{}, cmp.Or(f.away, link.ErrUnavailable)
	}
	if f.page != nil {
		return *f.page, nil
	}
	page, err := f.Store.List(ctx, q)
	page.Incomplete = behind
	return page, err
}

func (f *fragile) CreateAll(ctx context.Context, owner string, links []link.Coded) []error {
	if f.panics {
		panic("secret state")
	}
	if f.batches == 0 {
		return slices.Repeat([]error{link.ErrUnavailable}, len(links))
	}
	f.batches = max(f.batches-1, -1)
	return f.Store.CreateAll(ctx, owner, links)
}

func (f *fragile) Create(ctx context.Context, owner, code string, l link.Link) error {
	if f.refuses {
		return link.ErrUnavailable
	}
	return f.Store.Create(ctx, owner, code, l)
}

func (f *fragile) Read(ctx context.Context, code string) (link.State, error) {
	if f.panics {
		panic("secret state")
	}
	return f.Store.Read(ctx, code)
}

func (f *fragile) Get(ctx context.Context, code string) (link.Link, error) {
	if f.panics {
		panic("secret state")
	}
	return f.Store.Get(ctx, code)
}

type answer struct {
	status int
	header *fasthttp.ResponseHeader
	body   string
}

// do sends one request. headers are "Name: value".
func (b *backend) do(method, uri, body string, headers ...string) answer {
	request := fasthttp.AcquireRequest()
	request.Header.SetMethod(method)
	request.SetRequestURI("http://backend" + uri)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		request.Header.Add(name, value)
	}
	request.SetBodyString(body)
	response := new(fasthttp.Response)
	if err := b.client.DoTimeout(request, response, 10*time.Second); err != nil {
		b.t.Fatalf("%s %s: %v", method, uri, err)
	}
	a := answer{response.StatusCode(), &response.Header, string(response.Body())}
	holdToContract(b.t, request, a)
	return a
}

// raw sends a request as it stands.
func (b *backend) raw(request string) answer {
	conn, err := b.client.Dial("backend")
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		b.t.Fatal(err)
	}
	response := new(fasthttp.Response)
	if err := response.Read(bufio.NewReader(conn)); err != nil {
		b.t.Fatalf("%q: %v", request, err)
	}
	return answer{response.StatusCode(), &response.Header, string(response.Body())}
}

func (b *backend) create(body string) answer {
	return b.do("POST", "/generate_url", body, "API-Key: "+key)
}

// wantProblem checks the shape that every error has.
func wantProblem(t testing.TB, a answer, status int, code string) (detail string) {
	t.Helper()
	var p struct {
		Type, Title, Detail, Code string
		Status                    int
	}
	decode(t, a.body, &p)
	if a.status != status || p.Status != status || p.Code != code {
		t.Errorf("answer %d with status %d and code %q, want %d %q", a.status, p.Status, p.Code, status, code)
	}
	if p.Type != "about:blank" || p.Title != fasthttp.StatusMessage(status) || p.Detail == "" {
		t.Errorf("problem is not whole: %s", a.body)
	}
	if got := string(a.header.ContentType()); got != "application/problem+json" {
		t.Errorf("Content-Type = %q", got)
	}
	if got := string(a.header.Peek("Retry-After")); (got != "") != (status == 503 || status == 429) {
		t.Errorf("Retry-After = %q with %d", got, status)
	}
	return p.Detail
}

// decode reads JSON of an answer.
func decode(t testing.TB, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
}

func wantCreated(t testing.TB, a answer) shown {
	t.Helper()
	return wantShown(t, a, 201)
}

func TestCreateThenFollow(t *testing.T) {
	b := newBackend(t)
	const target = "https://example.com//a/../b/%7Euser?x=1&y=<b>#frag"
	const stored = "https://example.com//b/%7Euser?x=1&y=%3Cb%3E#frag"
	a := b.create(`{"url":"` + target + `"}`)
	c := wantCreated(t, a)
	if c.ShortURL != baseURL+"/"+c.Code || string(a.header.Peek("Location")) != c.ShortURL {
		t.Errorf("short_url %q, Location %q, code %q", c.ShortURL, a.header.Peek("Location"), c.Code)
	}
	if c.URL != stored || strings.Contains(a.body, `\u0026`) {
		t.Errorf("url = %q in %s", c.URL, a.body)
	}
	id, err := snowflake.Decode(c.Code)
	if err != nil || id.Node() != 5 || !id.Time().Equal(c.CreatedAt) || time.Since(c.CreatedAt).Abs() > time.Minute {
		t.Errorf("code %q is %v %v of node %d at %s, created_at %s", c.Code, id, err, id.Node(), id.Time(), c.CreatedAt)
	}
	for _, method := range []string{"GET", "HEAD"} {
		for _, query := range []string{"", "?utm=1"} {
			got := b.do(method, "/"+c.Code+query, "")
			if got.status != 302 || string(got.header.Peek("Location")) != stored || got.body != "" {
				t.Errorf("%s %s = %d, Location %q, body %q", method, query, got.status, got.header.Peek("Location"), got.body)
			}
			if cc := string(got.header.Peek("Cache-Control")); cc != "private, max-age=0" {
				t.Errorf("Cache-Control = %q", cc)
			}
			if server := got.header.Server(); len(server) > 0 {
				t.Errorf("Server = %q", server)
			}
		}
	}
}

func TestCreateTakesLongURL(t *testing.T) {
	b := newBackend(t)
	if c := wantCreated(t, b.create(`{"long_url":"http://example.com"}`)); c.URL != "http://example.com/" {
		t.Errorf("url = %q", c.URL)
	}
	wantCreated(t, b.create(`{"url":"http://example.com","long_url":"http://example.com"}`))
	wantProblem(t, b.create(`{"url":"http://example.com","long_url":"http://example.org"}`), 400, "invalid_url")
}

func TestKeyForms(t *testing.T) {
	b := newBackend(t)
	const body = `{"url":"https://example.com/"}`
	for name, headers := range map[string][]string{
		"API-Key":            {"API-Key: " + key},
		"X-API-Key":          {"X-API-Key: " + key},
		"any case":           {"api-KEY: " + key},
		"Bearer":             {"Authorization: Bearer " + key},
		"bearer":             {"Authorization: bearer " + key},
		"the other key":      {"API-Key: another-key"},
		"beside other authz": {"Authorization: Basic dTpw", "X-API-Key: " + key},
	} {
		t.Run(name, func(t *testing.T) { wantCreated(t, b.do("POST", "/generate_url", body, headers...)) })
	}
	for name, headers := range map[string][]string{
		"none":                {},
		"wrong":               {"API-Key: wrong-key"},
		"empty":               {"API-Key: "},
		"a prefix":            {"API-Key: " + key[:5]},
		"longer":              {"API-Key: " + key + "x"},
		"another case":        {"API-Key: " + strings.ToUpper(key)},
		"Basic":               {"Authorization: Basic " + key},
		"no scheme":           {"Authorization: " + key},
		"both, comma between": {"API-Key: " + key + ",another-key"},
	} {
		t.Run(name, func(t *testing.T) {
			a := b.do("POST", "/generate_url", body, headers...)
			wantProblem(t, a, 401, "unauthorized")
			if got := string(a.header.Peek("WWW-Authenticate")); got != "Bearer" {
				t.Errorf("WWW-Authenticate = %q", got)
			}
			if strings.Contains(a.body, "s3cret") || strings.Contains(a.body, "wrong-key") {
				t.Errorf("the body repeats a key: %s", a.body)
			}
		})
	}
}

func TestCreateRefusesAndStoresNothing(t *testing.T) {
	b := newBackend(t)
	for _, tt := range []struct{ name, body, code, detail string }{
		{"empty body", ``, "invalid_json", "empty"},
		{"a form", `url=https://example.com`, "invalid_json", "byte 0"},
		{"cut off", `{"url":"https://example.com/"`, "invalid_json", "byte 29"},
		{"two objects", `{"url":"https://example.com/"}{}`, "invalid_json", "byte 30"},
		{"an array", `["https://example.com/"]`, "invalid_json", "object"},
		{"a number", `{"url":5}`, "invalid_json", `"url" must be a string`},
		{"unknown field", `{"url":"https://example.com/","alias":"x"}`, "invalid_json", `"alias" is not known`},
		{"a field twice", `{"url":"https://example.com/","url":"https://example.org/"}`, "invalid_json", `"url" is there twice`},
		{"not UTF-8", "{\"url\":\"https://example.com/\xff\"}", "invalid_json", "UTF-8"},
		{"null", `null`, "invalid_url", "missing"},
		{"no url", `{}`, "invalid_url", "missing"},
		{"null url", `{"url":null}`, "invalid_url", "missing"},
		{"not a URL", `{"url":"example"}`, "invalid_url", ""},
		{"another scheme", `{"url":"javascript:alert(1)"}`, "invalid_url", ""},
		{"user info", `{"url":"https://u:p4ss@example.com/"}`, "invalid_url", ""},
		{"a line feed", `{"url":"https://example.com/\nSet-Cookie: a=b"}`, "invalid_url", ""},
		{"own host", `{"url":"https://SNO.example.:444/x"}`, "invalid_url", ""},
		{"2,049 bytes", `{"url":"https://example.com/` + strings.Repeat("a", 2049-20) + `"}`, "invalid_url", "2,048"},
		{"a field name of 60 KB", `{"` + strings.Repeat("é", 30_000) + `":1}`, "invalid_json", "…"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := b.create(tt.body)
			if detail := wantProblem(t, a, 400, tt.code); !strings.Contains(detail, tt.detail) {
				t.Errorf("detail %q does not say %q", detail, tt.detail)
			}
			if strings.Contains(a.body, "p4ss") || len(a.body) > 500 {
				t.Errorf("the answer repeats too much: %.600s", a.body)
			}
		})
	}
	client := fleettest.RedisClient(t, b.redis.Addr)
	if keys, err := client.Keys(t.Context(), "*").Result(); len(keys) != 0 || err != nil {
		t.Errorf("stored: %v, %v", keys, err)
	}
	wantCreated(t, b.create(`{"url":"https://example.com/`+strings.Repeat("a", 2048-20)+`"}`))
}

func TestRoutes(t *testing.T) {
	b := newBackend(t)
	code := wantCreated(t, b.create(`{"url":"https://example.com/"}`)).Code
	for _, tt := range []struct {
		method, path string
		status       int
		want         string // a problem's code, or what is in the body
	}{
		{"GET", "/ping", 200, "pong"},
		{"HEAD", "/ping", 200, ""},
		{"GET", "/healthz", 200, `{"status":"ok"}`},
		{"GET", "/8h4LRT53E7", 404, "not_found"}, // a code, never made
		{"HEAD", "/8h4LRT53E7", 404, ""},
		{"GET", "/zzzzzzzzzzz", 404, "not_found"},
		{"GET", "/" + strings.Repeat("a", 300), 404, "not_found"},
		{"GET", "/" + code + "/", 404, "not_found"},
		{"GET", "//" + code, 404, "not_found"},
		{"GET", "/a/../" + code, 404, "not_found"},
		{"GET", "/0" + code, 404, "not_found"}, // the same number, another string
		{"GET", "/" + code + "++", 404, "not_found"},
		{"GET", "/+", 404, "not_found"},
		{"GET", "/" + code + "/qr/", 404, "not_found"},
		{"GET", "/ping/qr", 404, "not_found"},
		{"GET", "/favicon.ico", 404, "not_found"},
		{"POST", "/favicon.ico", 404, "not_found"},
		{"POST", "/", 405, "GET, HEAD"},
		{"GET", "/links/", 404, "not_found"},
		{"PATCH", "/links/", 404, "not_found"},
		{"DELETE", "/links/no.code", 404, "not_found"},
		{"GET", "/links/" + code + "/x", 404, "not_found"},
		{"PUT", "/links/no.code", 404, "not_found"},
		{"PUT", "/links", 405, "GET, HEAD, POST"},
		{"PUT", "/links/" + code, 405, "DELETE, GET, HEAD, PATCH"},
		{"POST", "/links/" + code, 405, "DELETE, GET, HEAD, PATCH"},
		{"OPTIONS", "/", 405, "GET, HEAD"},
		{"GET", "/generate_url", 405, "POST"},
		{"HEAD", "/generate_url", 405, "POST"},
		{"PUT", "/generate_url", 405, "POST"},
		{"POST", "/ping", 405, "GET, HEAD"},
		{"DELETE", "/healthz", 405, "GET, HEAD"},
		{"DELETE", "/" + code, 405, "GET, HEAD"},
		{"DELETE", "/" + code + "+", 405, "GET, HEAD"},
		{"POST", "/" + code + "/qr", 405, "GET, HEAD"},
		{"OPTIONS", "/" + code, 405, "GET, HEAD"},
		{"BREW", "/ping", 405, "GET, HEAD"},
		{"PATCH", "/no.code", 404, "not_found"},
	} {
		t.Run(tt.method+" "+tt.path[:min(len(tt.path), 20)], func(t *testing.T) {
			a := b.do(tt.method, tt.path, "{}", "API-Key: "+key)
			switch {
			case tt.status == 200:
				if a.status != 200 || a.body != tt.want {
					t.Errorf("answer %d %q, want 200 %q", a.status, a.body, tt.want)
				}
			case tt.status == 405:
				if got := string(a.header.Peek("Allow")); got != tt.want {
					t.Errorf("Allow = %q, want %q", got, tt.want)
				}
				if tt.method != "HEAD" {
					wantProblem(t, a, 405, "method_not_allowed")
				}
			case tt.method == "HEAD":
				if a.status != tt.status || a.body != "" {
					t.Errorf("answer %d %q, want %d", a.status, a.body, tt.status)
				}
			default:
				wantProblem(t, a, tt.status, tt.want)
			}
		})
	}
}

func TestOutageIs503(t *testing.T) {
	b := newBackend(t)
	code := wantCreated(t, b.create(`{"url":"https://example.com/"}`)).Code
	b.redis.Kill()
	wantProblem(t, b.do("GET", "/"+code, ""), 503, "unavailable")
	detail := wantProblem(t, b.create(`{"url":"https://example.com/"}`), 503, "unavailable")
	if strings.Contains(detail, "dial") || strings.Contains(detail, "127.0.0.1") {
		t.Errorf("detail shows an internal error: %q", detail)
	}
	if a := b.do("GET", "/ping", ""); a.status != 200 {
		t.Errorf("/ping = %d", a.status)
	}
	// A path that cannot be a code is refused without Redis.
	wantProblem(t, b.do("GET", "/not.a.code", ""), 404, "not_found")
}

func TestWithoutNodeIDCreatesAre503(t *testing.T) {
	b := newBackend(t)
	code := wantCreated(t, b.create(`{"url":"https://example.com/"}`)).Code
	b.mint = func() (snowflake.ID, error) { return 0, shorten.ErrNoNode }
	wantProblem(t, b.create(`{"url":"https://example.com/"}`), 503, "unavailable")
	if a := b.do("GET", "/"+code, ""); a.status != 302 {
		t.Errorf("GET without a node ID = %d, want 302", a.status)
	}
}

func TestCollisionIsMintedAgain(t *testing.T) {
	b := newBackend(t)
	var last atomic.Int64
	last.Store(1 << 40)
	stuck := func() (snowflake.ID, error) { return snowflake.ID(last.Load()), nil }
	b.mint = stuck
	first := wantCreated(t, b.create(`{"url":"https://example.com/1"}`))

	b.mint = func() (snowflake.ID, error) { id, _ := stuck(); last.Add(1); return id, nil }
	second := wantCreated(t, b.create(`{"url":"https://example.com/2"}`))
	if first.Code == second.Code {
		t.Fatalf("two links under %q", first.Code)
	}
	last.Store(1 << 40)
	b.mint = stuck
	wantProblem(t, b.create(`{"url":"https://example.com/3"}`), 503, "unavailable")
	if !strings.Contains(b.scrape(), "\nsnowlink_collisions_total 4\n") { // one, then three in vain
		t.Errorf("the collisions were not counted")
	}
	for _, c := range []shown{first, second} {
		if a := b.do("GET", "/"+c.Code, ""); string(a.header.Peek("Location")) != c.URL {
			t.Errorf("%s leads to %q, want %q", c.Code, a.header.Peek("Location"), c.URL)
		}
	}
}

func TestHealthzSaysWhatIsMissing(t *testing.T) {
	b := newBackend(t)
	b.missing = []string{"Redis does not answer", "no node ID is held"}
	detail := wantProblem(t, b.do("GET", "/healthz", ""), 503, "unavailable")
	if detail != "Not ready: Redis does not answer, no node ID is held." {
		t.Errorf("detail = %q", detail)
	}
}

func TestHealthzSaysWhatIsDegraded(t *testing.T) {
	b := newBackend(t)
	b.degraded = "Redis is nearly full"
	if a := b.do("GET", "/healthz", ""); a.status != 200 || a.body != `{"status":"degraded","detail":"Redis is nearly full"}` {
		t.Errorf("answer %d %s", a.status, a.body)
	}
}

// fill leaves Redis no room for anything new, until its maxmemory is 0 again.
func (b *backend) fill() *redis.Client {
	client := fleettest.RedisClient(b.t, b.redis.Addr)
	// The order matters: otherwise the links would be evicted in between.
	for _, setting := range [][2]string{{"maxmemory-policy", "noeviction"}, {"maxmemory", "1"}} {
		if err := client.ConfigSet(context.Background(), setting[0], setting[1]).Err(); err != nil {
			b.t.Fatal(err)
		}
	}
	return client
}

func TestFullIs507(t *testing.T) {
	b := newBackend(t)
	code := wantCreated(t, b.create(`{"url":"https://example.com/"}`)).Code
	client := b.fill()
	wantProblem(t, b.create(`{"url":"https://example.com/"}`), 507, "storage_full")
	if a := b.do("GET", "/"+code, ""); a.status != 302 {
		t.Errorf("GET while full = %d, want 302", a.status)
	}
	if err := client.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	wantCreated(t, b.create(`{"url":"https://example.com/"}`))
}

func TestDrainSaysSoAndServesOn(t *testing.T) {
	b := newBackend(t)
	code := wantCreated(t, b.create(`{"url":"https://example.com/"}`)).Code
	b.api.Drain()
	wantProblem(t, b.do("GET", "/healthz", ""), 503, "unavailable")
	for _, path := range []string{"/" + code, "/ping", "/nothing/here"} {
		if a := b.do("GET", path, ""); a.status >= 500 || !a.header.ConnectionClose() {
			t.Errorf("GET %s while draining = %d, Connection: close %v", path, a.status, a.header.ConnectionClose())
		}
	}
}

// TestRefused speaks TCP. It covers what is refused before a route is found, and the answer that
// must reach a client which is still sending.
func TestRefused(t *testing.T) {
	b := newBackend(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := b.api.Server()
	go srv.Serve(httpapi.RefusalListener(listener))
	t.Cleanup(func() { srv.Shutdown() })

	post := "POST /generate_url HTTP/1.1\r\nHost: x\r\nAPI-Key: " + key + "\r\n"
	for _, tt := range []struct {
		name, request string
		status        int
		code          string
	}{
		{"not HTTP", "GARBAGE\r\n\r\n", 400, "invalid_request"},
		{"TLS to a plain port", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "invalid_request"},
		{"a long header", "GET /ping HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", 9000) + "\r\n\r\n", 431, "too_large"},
		{"a long path", "GET /" + strings.Repeat("a", 9000) + " HTTP/1.1\r\nHost: x\r\n\r\n", 431, "too_large"},
		{"10 MB", post + "Content-Length: 10000000\r\n\r\n" + strings.Repeat("a", 10_000_000), 413, "too_large"},
		{"10 MB, asked for before", post + "Expect: 100-continue\r\nContent-Length: 10000000\r\n\r\n", 413, "too_large"},
		{"10 MB in chunks", post + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("2710\r\n"+strings.Repeat("a", 10_000)+"\r\n", 1000), 413, "too_large"},
		{"a body cut off", post + "Content-Length: 100\r\n\r\n{", 408, "timeout"},
		{"headers cut off", "GET /ping HTTP/1.1\r\nHo", 408, "timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.WriteString(conn, tt.request); err != nil {
				t.Fatalf("send: %v", err)
			}
			var response fasthttp.Response
			reader := bufio.NewReader(conn)
			if err := response.Read(reader); err != nil {
				t.Fatalf("no answer: %v", err)
			}
			a := answer{response.StatusCode(), &response.Header, string(response.Body())}
			wantProblem(t, a, tt.status, tt.code)
			holdToContract(t, new(fasthttp.Request), a) // none was read
			if !response.Header.ConnectionClose() {
				t.Error("the connection is not said to close")
			}
			if rest, err := io.ReadAll(reader); len(rest) > 0 || err != nil {
				t.Errorf("after the answer: %q, %v, want the end", rest, err)
			}
		})
	}
}

func TestPanicIsOnePlain500(t *testing.T) {
	b := newBackend(t)
	b.mint = func() (snowflake.ID, error) { panic("secret state") }
	a := b.create(`{"url":"https://example.com/"}`)
	if detail := wantProblem(t, a, 500, "internal"); strings.Contains(detail, "secret") {
		t.Errorf("detail = %q", detail)
	}
	b.store.panics = true
	if detail := wantProblem(t, b.do("GET", "/8h4LRT53E7", ""), 500, "internal"); strings.Contains(detail, "secret") {
		t.Errorf("detail = %q", detail)
	}
	if detail := wantProblem(t, b.manage("POST", "/links/import", `{"url":"https://example.com/","code":"abc"}`), 500, "internal"); strings.Contains(detail, "secret") {
		t.Errorf("detail = %q", detail)
	}
	b.mint = func() (snowflake.ID, error) { return 0, errors.New("secret state") }
	if detail := wantProblem(t, b.create(`{"url":"https://example.com/"}`), 500, "internal"); strings.Contains(detail, "secret") {
		t.Errorf("detail = %q", detail)
	}
}

// FuzzCreateBody: whatever the body, the answer is 201 and the link leads to the target in the
// answer, or the answer is a whole problem that blames the body.
func FuzzCreateBody(f *testing.F) {
	f.Add(`{"url":"https://example.com/"}`)
	f.Add(`{"long_url":"http://[::1]:80/\u0000"}`)
	f.Add(`{"url":"https://example.com/","x":[{"y":1e999}]}`)
	f.Add(`{"url":"https://example.com/#f","ttl":60,"max_visits":2,"status":308,"forward_query":true,"title":"é","tags":["a","b"]}`)
	f.Add(`{"url":"https://example.com/","expires_at":"2099-01-01T00:00:00Z","ttl":null,"tags":[null]}`)
	b := newBackend(f)
	f.Fuzz(func(t *testing.T, body string) {
		b.t = t
		a := b.create(body)
		if a.status != 201 {
			var p struct{ Code string }
			decode(t, a.body, &p)
			wantProblem(t, a, a.status, p.Code)
			taken := a.status == 409 && p.Code == "code_taken" // of another body with this code
			if a.status != 400 && !taken && len(body) <= httpapi.MaxBody {
				t.Errorf("answer %d to %q", a.status, body)
			}
			return
		}
		c := wantCreated(t, a)
		if got := b.do("GET", "/"+c.Code, ""); string(got.header.Peek("Location")) != c.URL {
			t.Errorf("%q leads to %q, answered was %q", body, got.header.Peek("Location"), c.URL)
		}
	})
}
