package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/redisstore"
)

func TestMain(m *testing.M) { os.Exit(fleettest.Main(m)) }

// client makes a client that follows no redirect and connects from an address of 127.0.0.0/8.
func client(t *testing.T, from string) *http.Client {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	transport := &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 200}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		Timeout:       10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// do sends a request and reads the whole answer.
func do(t *testing.T, c *http.Client, method, url, key, body string) (*http.Response, string) {
	t.Helper()
	return send(t, c, method, url, key, strings.NewReader(body))
}

// send is do for a body that is read while it is sent. It goes out in chunks, unless its type
// tells http.NewRequest its length.
func send(t *testing.T, c *http.Client, method, url, key string, body io.Reader) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("API-Key", key)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(answer)
}

// dial opens a connection that fails rather than hangs, for requests by hand.
func dial(t *testing.T, url string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// exchange sends a request byte for byte and reads the whole answer.
func exchange(t *testing.T, url, request string) (*http.Response, string) {
	t.Helper()
	conn, answers := dial(t, url)
	fmt.Fprint(conn, request)
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// create makes n links through the fleet and returns their targets by code.
func create(t *testing.T, f *fleet.Fleet, n int) map[string]string {
	t.Helper()
	c := client(t, "127.0.0.1")
	links := map[string]string{}
	for i := range n {
		target := fmt.Sprintf("https://example.com/%d", i)
		links[createOne(t, c, f.URL+"/generate_url", f.APIKey, fmt.Sprintf(`{"url":%q}`, target))] = target
	}
	return links
}

// createOne makes a link and returns its code.
func createOne(t *testing.T, c *http.Client, url, key, body string) string {
	t.Helper()
	resp, answer := do(t, c, "POST", url, key, body)
	var link struct{ Code string }
	if err := json.Unmarshal([]byte(answer), &link); err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("create: %s: %s (%v)", resp.Status, answer, err)
	}
	return link.Code
}

// cacheAtEdge switches the edge cache on, as its comment in server.conf says.
func cacheAtEdge(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	if err := f.Nginx.Edit("conf.d/server.conf", "# include snippets/edge-cache.conf;", "include snippets/edge-cache.conf;"); err != nil {
		t.Fatal(err)
	}
	if err := f.Nginx.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// answered returns how many requests each backend has answered on a route.
func answered(t *testing.T, f *fleet.Fleet, route, class string) []int {
	t.Helper()
	return counters(t, f, fmt.Sprintf(`snowlink_http_requests_total{class=%q,route=%q}`, class, route))
}

// counters reads a series from every backend's /metrics.
func counters(t *testing.T, f *fleet.Fleet, series string) []int {
	t.Helper()
	var counts []int
	for _, b := range f.Backends {
		counts = append(counts, int(fleettest.Metric(t, b, series)))
	}
	return counts
}

func TestCreatesReachEveryBackend(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{})
	create(t, f, 60)
	for i, n := range answered(t, f, "create", "2xx") {
		if n < 15 { // 20 each in one round robin; each worker of Nginx has its own
			t.Errorf("backend%d answered %d of 60 creates", i+1, n)
		}
	}
}

// Creates and redirects work on a real Redis Cluster too.
func TestOnRedisCluster(t *testing.T) {
	t.Parallel()
	f := fleettest.Start(t, fleet.Options{Cluster: true})
	c := client(t, "127.0.0.1")
	links := create(t, f, 60)
	for code, target := range links {
		for _, url := range []string{f.URL, f.Backends[0].URL, f.Backends[1].URL, f.Backends[2].URL} {
			resp, body := do(t, c, "GET", url+"/"+code, "", "")
			if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusFound || got != target {
				t.Fatalf("%s/%s: %s to %q, want 302 to %q\n%s", url, code, resp.Status, got, target, body)
			}
		}
	}
	stored := 0
	for _, master := range f.Cluster[:3] {
		keys, err := fleettest.RedisClient(t, master.Addr).Keys(t.Context(), redisstore.LinkKey("*")).Result()
		if len(keys) == 0 {
			t.Errorf("of %d links none is at %s: %v", len(links), master.Addr, err)
		}
		stored += len(keys)
	}
	if stored != len(links) {
		t.Errorf("%d links are stored, want %d", stored, len(links))
	}
}

func TestCodeMeetsOneBackend(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{})
	c := client(t, "127.0.0.1")
	met := make([]int, len(f.Backends))
	count := func() []int {
		counts := answered(t, f, "redirect", "3xx")
		for _, route := range []string{"preview", "qr"} {
			for i, n := range answered(t, f, route, "2xx") {
				counts[i] += n
			}
		}
		return counts
	}
	before := count()
	for code, target := range create(t, f, 60) {
		forms := []string{"/" + code, "/" + code + "?utm_source=a&b=%2F", "/" + code + "?"}
		for _, form := range forms {
			for _, method := range []string{"GET", "HEAD"} {
				resp, body := do(t, c, method, f.URL+form, "", "")
				if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusFound || got != target {
					t.Fatalf("%s %s: %s to %q, want 302 to %q\n%s", method, form, resp.Status, got, target, body)
				}
			}
		}
		for _, form := range []string{"/" + code + "+", "/" + code + "/qr", "/" + code + "/qr?size=200"} {
			if resp, body := do(t, c, "GET", f.URL+form, "", ""); resp.StatusCode != http.StatusOK {
				t.Fatalf("GET %s: %s\n%s", form, resp.Status, body)
			}
		}
		after := count()
		var which []int
		for i := range after {
			if after[i] != before[i] {
				which = append(which, i)
			}
		}
		if len(which) != 1 {
			t.Fatalf("%d backends answered for /%s in its %d forms", len(which), code, len(forms))
		}
		met[which[0]]++
		before = after
	}
	if slices.Contains(met, 0) {
		t.Errorf("60 codes met the backends %v times: one has no share", met)
	}
}

func TestKilledBackendCostsNoGET(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{})
	links := create(t, f, 50)
	c := client(t, "127.0.0.1")

	var followed atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for ctx.Err() == nil {
				for code, target := range links {
					resp, err := c.Get(f.URL + "/" + code)
					if err != nil {
						t.Errorf("GET /%s: %v", code, err)
						return
					}
					resp.Body.Close()
					if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusFound || got != target {
						t.Errorf("GET /%s: %s to %q, want 302 to %q", code, resp.Status, got, target)
					}
					followed.Add(1)
				}
			}
		})
	}
	more := func(n int64) {
		for until := followed.Load() + n; followed.Load() < until && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
	}
	more(500)
	f.Backends[1].Kill()
	more(2000)
	cancel()
	readers.Wait()
}

func TestLimits(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{})
	exempt := client(t, "127.0.0.1")
	tests := []struct {
		name         string
		method, path string
		requests     int // well above the burst, sent faster than the rate
	}{
		{"reads", "GET", "/ping", 1000},
		{"pictures", "GET", "/abc/qr", 200}, // too few for the limit of reads
		{"creates", "POST", "/generate_url", 300},
		{"creates by the other path", "POST", "/links", 300},
		{"changes", "PATCH", "/links/abc", 300},
		{"deletions", "DELETE", "/links/abc", 300},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stranger := client(t, fmt.Sprintf("127.0.0.%d", 2+i))
			var refused int
			for range tt.requests {
				resp, body := do(t, stranger, tt.method, f.URL+tt.path, "", "")
				if resp.StatusCode != http.StatusTooManyRequests {
					continue
				}
				refused++
				wantProblem(t, resp, body, http.StatusTooManyRequests, "rate_limited")
				if resp.Header.Get("Retry-After") == "" {
					t.Error("429 without Retry-After")
				}
			}
			if refused == 0 || refused == tt.requests {
				t.Errorf("%d of %d requests from one address were refused", refused, tt.requests)
			}
			for range tt.requests {
				if resp, _ := do(t, exempt, tt.method, f.URL+tt.path, "", ""); resp.StatusCode == http.StatusTooManyRequests {
					t.Fatal("the loopback address was refused")
				}
			}
		})
	}
}

// upstream starts a fleet whose one backend is a handler of the test.
func upstream(t *testing.T, handler http.HandlerFunc) *fleet.Fleet {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ping" { // which is how the fleet waits for Nginx
			handler(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return fleettest.Start(t, fleet.Options{Upstreams: []string{s.Listener.Addr().String()}})
}

func TestLimitOfRequestsInFlight(t *testing.T) {
	const allowed, sent = 100, 130
	release := make(chan struct{})
	f := upstream(t, func(http.ResponseWriter, *http.Request) { <-release })
	c := client(t, "127.0.0.2")

	statuses := make(chan int, sent)
	for range sent {
		go func() {
			resp, err := c.Get(f.URL + "/abc")
			if err != nil {
				statuses <- 0
				return
			}
			resp.Body.Close()
			statuses <- resp.StatusCode
		}()
	}
	for range sent - allowed {
		if status := <-statuses; status != http.StatusTooManyRequests {
			t.Errorf("a request over the limit of %d got %d, want 429", allowed, status)
		}
	}
	close(release)
	for range allowed {
		if status := <-statuses; status != http.StatusOK {
			t.Errorf("a request within the limit of %d got %d, want 200", allowed, status)
		}
	}
}

func TestForgedHeadersStayOutside(t *testing.T) {
	seen := make(chan http.Header, 1)
	f := upstream(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header })
	// By hand, for an http.Client would set some of these itself.
	exchange(t, f.URL, strings.Join([]string{
		"GET /abc HTTP/1.1", "Host: go.example",
		"Connection: X-Hop, keep-alive", "X-Hop: forged", "Keep-Alive: timeout=forged",
		"TE: trailers", "Trailer: X-Forged", "Upgrade: forged", "Proxy-Authorization: forged", "Proxy-Connection: forged",
		"X-Forwarded-For: 203.0.113.7, forged", "X-Forwarded-Host: forged", "X-Forwarded-Proto: forged",
		"X-Forwarded-Port: forged", "X-Real-IP: forged", "Forwarded: for=forged", "X-Request-ID: forged",
		"X-Original-URL: /forged", "API-Key: sent", "Accept: text/csv", "If-Match: \"a\"", "Idempotency-Key: k",
	}, "\r\n")+"\r\n\r\n")

	header := <-seen
	for _, name := range []string{"Connection", "Keep-Alive", "Te", "Trailer", "Upgrade", "Proxy-Authorization", "Proxy-Connection", "X-Hop", "X-Real-Ip", "Forwarded", "X-Request-Id"} {
		if value, ok := header[name]; ok {
			t.Errorf("the backend got %s: %q", name, value)
		}
	}
	for name, values := range header {
		if strings.Contains(strings.Join(values, ","), "forged") {
			t.Errorf("the backend got %s: %q", name, values)
		}
	}
	for name, want := range map[string]string{
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "go.example", "X-Forwarded-Proto": "http", "API-Key": "sent",
		"Accept": "text/csv", "If-Match": `"a"`, "Idempotency-Key": "k",
	} {
		if got := header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("the backend got %s: %q, want %q", name, got, want)
		}
	}
}

// A request begun before SIGTERM gets its answer, and no lease stays behind.
func TestStopFinishesWhatWasBegun(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{Backends: 1, NoNginx: true})
	db := fleettest.RedisClient(t, f.Redis.Addr)
	lease, _ := redisstore.NodeKeys(1)
	holder := func() error { return db.Get(t.Context(), lease).Err() }
	if err := holder(); err != nil {
		t.Fatalf("%s before the stop: %v", lease, err)
	}

	conn, answers := dial(t, f.URL)
	const body = `{"url":"https://example.com/slow"}`
	fmt.Fprintf(conn, "POST /generate_url HTTP/1.1\r\nHost: a\r\nAPI-Key: %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", f.APIKey, len(body))
	// The backend has the header and waits for the body.
	if resp, err := http.ReadResponse(answers, nil); err != nil || resp.StatusCode != http.StatusContinue {
		t.Fatalf("before the body: %v, %v", resp, err)
	}

	stopped := make(chan error, 1)
	go func() { stopped <- f.Backends[0].Stop(t.Context()) }()
	c := client(t, "127.0.0.1")
	for status := 0; status != http.StatusServiceUnavailable; {
		resp, err := c.Get(f.URL + "/healthz")
		if err != nil {
			t.Fatalf("/healthz was never 503: %v", err) // its listener is closed
		}
		resp.Body.Close()
		status = resp.StatusCode
	}

	fmt.Fprint(conn, body)
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var link struct{ Code string }
	if err := json.NewDecoder(resp.Body).Decode(&link); err != nil || resp.StatusCode != http.StatusCreated || !resp.Close {
		t.Errorf("answered %s, closing %t (%v), want 201 and a close", resp.Status, resp.Close, err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if target, err := db.Get(t.Context(), redisstore.LinkKey(link.Code)).Result(); target != "https://example.com/slow" {
		t.Errorf("the link %s is %q (%v)", link.Code, target, err)
	}
	if err := holder(); !errors.Is(err, redis.Nil) {
		t.Errorf("%s after the stop: %v, want none", lease, err)
	}
}

// Experiments kill, freeze and restart the programs of a fleet: this tests that the fleet does what
// they ask for.
func TestProgramsComeBack(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{Backends: 2, RedisConfig: []string{"appendfsync always"}})
	links := create(t, f, 5)
	c := client(t, "127.0.0.1")
	follow := func(url string) {
		t.Helper()
		for code, target := range links {
			if resp, _ := do(t, c, "GET", url+"/"+code, "", ""); resp.Header.Get("Location") != target {
				t.Fatalf("GET %s/%s: %s to %q, want %q", url, code, resp.Status, resp.Header.Get("Location"), target)
			}
		}
	}

	f.Redis.Kill()
	if err := f.Redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A pooled connection to the Redis that was killed may still fail a request.
	fleettest.Eventually(t, 10*time.Second, "backend1 is ready after Redis came back", func() bool {
		resp, _ := do(t, c, "GET", f.Backends[0].URL+"/healthz", "", "")
		return resp.StatusCode == http.StatusOK
	})
	follow(f.Backends[0].URL)

	if err := f.Backends[0].Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(f.Backends[0].URL + "/ping"); err == nil {
		t.Fatal("a stopped backend answers")
	}
	if err := f.Backends[0].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	follow(f.Backends[0].URL)

	f.Backends[1].Pause()
	short := client(t, "127.0.0.1")
	short.Timeout = 200 * time.Millisecond
	if _, err := short.Get(f.Backends[1].URL + "/ping"); err == nil {
		t.Fatal("a paused backend answers")
	}
	f.Backends[1].Resume()
	follow(f.Backends[1].URL)

	if err := f.Nginx.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	follow(f.URL)
}

// A ratio to the limit means something only if the limit sends what a backend sends: the same
// headers in the same order, and as many bytes.
func TestLimitAnswersAsABackend(t *testing.T) {
	backend := fleettest.Start(t, fleet.Options{Backends: 1, NoNginx: true})
	limit := fleettest.Start(t, fleet.Options{
		Backends: 1, NoNginx: true, NoRedis: true,
		Binary: fleettest.Binary(t, "snowlink/loadtest/limit"), Env: []string{"BASE_URL=" + backend.URL},
	})
	const body = `{"url":"https://example.com/load/12345678/01/0000000001/some/long/page"}`

	create := func(f *fleet.Fleet) string {
		return fmt.Sprintf("POST /generate_url HTTP/1.1\r\nHost: a\r\nAPI-Key: %s\r\nContent-Length: %d\r\n\r\n%s", f.APIKey, len(body), body)
	}
	created := raw(t, backend, create(backend))
	_, code, _ := strings.Cut(created, `"code":"`)
	code, _, _ = strings.Cut(code, `"`)
	alike(t, "create", created, raw(t, limit, create(limit)))
	for _, request := range []string{"GET /" + code, "HEAD /" + code, "GET /ping", "GET /healthz"} {
		request += " HTTP/1.1\r\nHost: a\r\n\r\n"
		alike(t, request, raw(t, backend, request), raw(t, limit, request))
	}
}

// raw returns what the first backend of a fleet answers, byte for byte.
func raw(t *testing.T, f *fleet.Fleet, request string) string {
	t.Helper()
	conn, answers := dial(t, f.Backends[0].URL)
	fmt.Fprint(conn, request)
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil { // the server answers, then closes
		t.Fatal(err)
	}
	answer, err := io.ReadAll(answers)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

func alike(t *testing.T, request, backend, limit string) {
	t.Helper()
	names := func(answer string) (names []string) {
		head, _, _ := strings.Cut(answer, "\r\n\r\n")
		for line := range strings.SplitSeq(head, "\r\n") {
			name, _, _ := strings.Cut(line, ": ")
			names = append(names, name)
		}
		return names
	}
	if backend == "" || len(backend) != len(limit) || !slices.Equal(names(backend), names(limit)) {
		t.Errorf("%q: the backend answers\n%s\nand the limit\n%s", request, backend, limit)
	}
}
