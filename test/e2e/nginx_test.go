package e2e_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

func TestHeadersOfEveryAnswer(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{Backends: 1})
	c := client(t, "127.0.0.1")
	var code string
	for code = range create(t, f, 1) {
	}
	for _, tt := range []struct {
		method, path, key string
		status            int
	}{
		{"GET", "/" + code, "", 302},
		{"HEAD", "/" + code, "", 302},
		{"GET", "/ping", "", 200},
		{"GET", "/healthz", "", 200},
		{"POST", "/generate_url", f.APIKey, 201},
		{"POST", "/generate_url", "", 401},
		{"GET", "/nothing", "", 404},
		{"PUT", "/generate_url", "", 405},
	} {
		resp, _ := do(t, c, tt.method, f.URL+tt.path, tt.key, `{"url":"https://example.com/"}`)
		if resp.StatusCode != tt.status {
			t.Errorf("%s %s: %s, want %d", tt.method, tt.path, resp.Status, tt.status)
		}
		wantHeaders(t, resp)
	}
}

func TestNginxRefusesWithProblems(t *testing.T) {
	f := upstream(t, func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s reached a backend", r.Method, r.URL)
	})
	long := strings.Repeat("a", 9<<10)
	tests := []struct {
		name    string
		request string // without the end of its last line
		status  int
		code    string
	}{
		{"no HTTP", "hello", 400, "invalid_request"},
		{"no Host", "GET /abc HTTP/1.1", 400, "invalid_request"},
		{"two Hosts", "GET /abc HTTP/1.1\r\nHost: a\r\nHost: b", 400, "invalid_request"},
		{"malformed path", "GET /%zz HTTP/1.1\r\nHost: a", 400, "invalid_request"},
		{"metrics", "GET /metrics HTTP/1.1\r\nHost: a", 404, "not_found"},
		{"metrics, encoded", "GET /%6detrics?a HTTP/1.1\r\nHost: a", 404, "not_found"},
		{"debug", "GET /debug HTTP/1.1\r\nHost: a", 404, "not_found"},
		{"profile", "GET /debug/pprof/heap HTTP/1.1\r\nHost: a", 404, "not_found"},
		{"profile, around", "GET /x/..//debug/pprof/heap HTTP/1.1\r\nHost: a", 404, "not_found"},
		{"the error page itself", "GET /.problem HTTP/1.1\r\nHost: a", 404, "not_found"},
		{"TRACE", "TRACE /abc HTTP/1.1\r\nHost: a", 405, "method_not_allowed"},
		{"a bulk of no chunks", "POST /links/bulk HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nhello", 400, "invalid_request"},
		{"large body", "POST /generate_url HTTP/1.1\r\nHost: a\r\nContent-Length: 16385", 413, "too_large"},
		{"long request line", "GET /" + long + " HTTP/1.1\r\nHost: a", 414, "too_large"},
		{"long header line", "GET /abc HTTP/1.1\r\nHost: a\r\nCookie: " + long, 431, "too_large"},
		{"transfer encoding", "POST /generate_url HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip", 501, "invalid_request"},
		{"version", "GET /abc HTTP/9.0\r\nHost: a", 505, "invalid_request"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := exchange(t, f.URL, tt.request+"\r\n\r\n")
			wantProblem(t, resp, body, tt.status, tt.code)
			if allow := resp.Header.Get("Allow"); (allow != "") != (tt.status == 405) {
				t.Errorf("%d with Allow %q", tt.status, allow)
			}
		})
	}
}

// While no backend can be reached the answer says so. Once they are back, requests reach them at
// once.
func TestAllBackendsAway(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{NoRedis: true, Binary: fleettest.Binary(t, "snowlink/loadtest/limit")})
	c := client(t, "127.0.0.1")
	away := func(status int, code string) {
		t.Helper()
		resp, body := do(t, c, "GET", f.URL+"/abc", "", "")
		wantProblem(t, resp, body, status, code)
		if resp.Header.Get("Retry-After") == "" {
			t.Errorf("%d without Retry-After", status)
		}
	}
	for _, b := range f.Backends {
		b.Pause()
	}
	away(http.StatusGatewayTimeout, "timeout")
	for _, b := range f.Backends {
		b.Kill()
	}
	for range 10 { // until none counts as alive: max_fails is 3
		away(http.StatusBadGateway, "unavailable")
	}
	for _, b := range f.Backends {
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if resp, body := do(t, c, "GET", f.URL+"/abc", "", ""); resp.StatusCode != http.StatusFound {
		t.Errorf("with all backends back: %s: %s", resp.Status, body)
	}
}

func TestAccessLog(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{
		Backends: 1, NoRedis: true, Binary: fleettest.Binary(t, "snowlink/loadtest/limit"), AccessLog: true,
	})
	type line struct {
		Client       string
		Method, Path string
		Status       int
	}
	want := map[string]line{} // by X-Request-ID
	for _, r := range []struct {
		line
		header string
	}{
		{line{"127.0.0.0", "GET", "/abc", 302}, ""},
		{line{"127.0.0.0", "POST", "/generate_url", 413}, "Content-Length: 16385\r\n"},
		{line{"127.0.0.0", "TRACE", "/abc", 405}, ""},
	} {
		resp, _ := exchange(t, f.URL, r.Method+" "+r.Path+"?token=QUERY HTTP/1.1\r\nHost: a\r\n"+r.header+
			"API-Key: SECRET\r\nX-API-Key: SECRET\r\nAuthorization: Bearer SECRET\r\n\r\n")
		want[resp.Header.Get("X-Request-Id")] = r.line
	}

	// Nginx writes what it has every second.
	fleettest.Eventually(t, 10*time.Second, "all requests are in the access log", func() bool {
		log, err := os.ReadFile(filepath.Join(f.Dir, "nginx.log"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(log), "SECRET") {
			t.Fatalf("a key is in the log:\n%s", log)
		}
		for text := range strings.Lines(string(log)) {
			if !strings.HasPrefix(text, "{") {
				continue // the error log, which quotes request lines
			}
			if strings.Contains(text, "QUERY") {
				t.Fatalf("a query string is in the access log: %s", text)
			}
			var got struct {
				ID string
				line
			}
			if strings.HasSuffix(text, "\n") && json.Unmarshal([]byte(text), &got) != nil {
				t.Fatalf("not JSON: %s", text)
			}
			if w, ok := want[got.ID]; ok && got.line != w {
				t.Errorf("logged %+v, want %+v", got.line, w)
			}
			delete(want, got.ID)
		}
		return len(want) == 0
	})
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
		"Origin: https://go.example", "Sec-Fetch-Site: same-origin", "If-None-Match: \"b\"", "Accept-Encoding: br",
		"Cookie: theme=forged; snowlink_session=" + strings.Repeat("s", 43) + "; other=forged",
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
		"Origin": "https://go.example", "Sec-Fetch-Site": "same-origin", "If-None-Match": `"b"`, "Accept-Encoding": "br",
		"Cookie": "snowlink_session=" + strings.Repeat("s", 43),
	} {
		if got := header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("the backend got %s: %q, want %q", name, got, want)
		}
	}
}
