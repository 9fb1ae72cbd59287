package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
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
	return answerTo(t, c, req)
}

// answerTo sends a request and reads the whole answer.
func answerTo(t *testing.T, c *http.Client, req *http.Request) (*http.Response, string) {
	t.Helper()
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

// createWith makes a link with these fields beside the URL and returns its code.
func createWith(t *testing.T, f *fleet.Fleet, url, fields string) string {
	t.Helper()
	return createOne(t, client(t, "127.0.0.1"), url+"/links", f.APIKey, `{"url":"https://example.com/",`+fields+`}`)
}

func backendURLs(f *fleet.Fleet) (urls []string) {
	for _, b := range f.Backends {
		urls = append(urls, b.URL)
	}
	return urls
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

// cacheEvents returns how often the near cache of each backend has counted an event.
func cacheEvents(t *testing.T, f *fleet.Fleet, event string) []int {
	t.Helper()
	return counters(t, f, fmt.Sprintf(`snowlink_cache_events_total{event=%q}`, event))
}

func sum(counts []int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// wantProblem fails the test unless an answer is a whole RFC 9457 problem.
func wantProblem(t *testing.T, resp *http.Response, body string, status int, code string) {
	t.Helper()
	var p struct {
		Type, Title, Detail, Code string
		Status                    int
	}
	err := json.Unmarshal([]byte(body), &p)
	if err != nil || resp.StatusCode != status || resp.Header.Get("Content-Type") != "application/problem+json" ||
		p.Type != "about:blank" || p.Title == "" || p.Detail == "" || p.Status != status || p.Code != code {
		t.Errorf("answered %s, %s (%v), want %d with code %s", resp.Status, body, err, status, code)
	}
	wantHeaders(t, resp)
}

// wantHeaders fails the test unless an answer has each of the headers that every answer has, once.
func wantHeaders(t *testing.T, resp *http.Response) {
	t.Helper()
	for name, want := range map[string]string{
		"X-Content-Type-Options":  "nosniff",
		"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
		"Referrer-Policy":         "strict-origin-when-cross-origin",
		"X-Robots-Tag":            "noindex",
		"X-Request-Id":            "", // another each time
	} {
		if got := resp.Header.Values(name); len(got) != 1 || got[0] != want && want != "" {
			t.Errorf("%s has %s: %q, want %q", resp.Status, name, got, want)
		}
	}
}
