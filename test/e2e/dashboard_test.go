package e2e_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/httpapi"
)

// Through Nginx the page has its own policy alone, and a session holds at every backend.
func TestDashboard(t *testing.T) {
	t.Parallel()
	f := fleettest.Start(t, fleet.Options{Backends: 3, Env: []string{"BASE_URL=https://sno.example"}})
	c := client(t, "127.0.0.1")
	ask := func(method, url, body string, headers ...string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequest(method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept-Encoding", "br")
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			req.Header.Set(name, value)
		}
		return answerTo(t, c, req)
	}

	resp, _ := ask("GET", f.URL+"/", "")
	if resp.StatusCode != 302 || resp.Header.Get("Location") != "/dashboard/" {
		t.Errorf("/: %s to %q", resp.Status, resp.Header.Get("Location"))
	}
	page, _ := ask("GET", f.URL+"/dashboard/", "")
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
		"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex", "Cache-Control": "no-cache",
		"Content-Encoding": "br", "Vary": "Accept-Encoding",
	} {
		if got := page.Header.Values(name); page.StatusCode != 200 || len(got) != 1 || got[0] != want {
			t.Errorf("%s: %s: %q, want %q", page.Status, name, got, want)
		}
	}
	if again, _ := ask("GET", f.URL+"/dashboard/", "", "If-None-Match: "+page.Header.Get("ETag")); again.StatusCode != 304 {
		t.Errorf("with its ETag: %s", again.Status)
	}
	none, body := ask("GET", f.URL+"/dashboard/none.js", "")
	wantProblem(t, none, body, 404, "not_found")

	// The address in the browser need not be BASE_URL.
	ours := "Origin: " + f.URL
	in, body := ask("POST", f.URL+"/dashboard/session", `{"key":"`+f.APIKey+`"}`, ours)
	if in.StatusCode != 201 || !strings.Contains(in.Header.Get("Set-Cookie"), "; secure;") {
		t.Fatalf("sign in: %s %s, Set-Cookie %q", in.Status, body, in.Header.Get("Set-Cookie"))
	}
	cookie, _, _ := strings.Cut(in.Header.Get("Set-Cookie"), ";")
	session := "Cookie: theme=dark; " + cookie
	for range 3 { // creates go round robin
		resp, body = ask("POST", f.URL+"/links", `{"url":"https://example.com/"}`, session, ours)
		if resp.StatusCode != 201 {
			t.Errorf("create: %s %s", resp.Status, body)
		}
	}
	var made struct{ Code string }
	if err := json.Unmarshal([]byte(body), &made); err != nil {
		t.Fatal(err)
	}
	if resp, body := ask("DELETE", f.URL+"/links/"+made.Code, "", session, "Sec-Fetch-Site: same-origin"); resp.StatusCode != 204 {
		t.Errorf("delete: %s %s", resp.Status, body)
	}
	for _, foreign := range []string{"Origin: http://evil.example", "Origin: http://127.0.0.1:1", "Origin: null"} {
		resp, body := ask("POST", f.URL+"/links", `{"url":"https://example.com/"}`, session, foreign, "X-Forwarded-Host: evil.example")
		wantProblem(t, resp, body, 403, "foreign_origin")
	}
	for _, b := range f.Backends {
		if resp, body := ask("GET", b.URL+"/dashboard/session", "", session); resp.StatusCode != 200 {
			t.Errorf("%s: %s %s", b.URL, resp.Status, body)
		}
	}
	if resp, body := ask("DELETE", f.URL+"/dashboard/session", "", session, ours); resp.StatusCode != 204 {
		t.Errorf("sign out: %s %s", resp.Status, body)
	}
	for _, b := range f.Backends {
		if resp, body := ask("GET", b.URL+"/key", "", session); resp.StatusCode != 401 {
			t.Errorf("%s after that: %s %s", b.URL, resp.Status, body)
		}
	}
}

// The edge cache keeps no answer to a session: the next visitor has none.
func TestEdgeCacheKeepsNothingOfSessions(t *testing.T) {
	t.Parallel()
	f := fleettest.Start(t, fleet.Options{Backends: 1})
	cacheAtEdge(t, f)
	c := client(t, "127.0.0.1")
	in, body := do(t, c, "POST", f.URL+"/dashboard/session", "", `{"key":"`+f.APIKey+`"}`)
	if in.StatusCode != 201 {
		t.Fatalf("sign in: %s %s", in.Status, body)
	}
	req, err := http.NewRequest("GET", f.URL+"/links/never-made", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, cookie := range in.Cookies() {
		req.AddCookie(cookie)
	}
	resp, body := answerTo(t, c, req)
	wantProblem(t, resp, body, 404, "not_found")
	resp, body = do(t, c, "GET", f.URL+"/links/never-made", "", "")
	wantProblem(t, resp, body, 401, "unauthorized")
}

// An operator sees all parts, and what is away keeps nothing else from showing.
func TestService(t *testing.T) {
	t.Parallel()
	f := fleettest.Start(t, fleet.Options{Backends: 2, Archive: 2})
	c := client(t, "127.0.0.1")
	type part struct{ Error string }
	type status struct {
		Status  string
		Reasons []string
		Redis   []struct {
			part
			Name, Policy string
			Used         int64 `json:"used_bytes"`
		}
		Archive struct {
			part
			Pending int `json:"pending_marks"`
			Shards  []struct {
				part
				Address string
				Rows    int64 `json:"rows_estimate"`
			}
		}
		Clicks struct {
			part
			Queue             string
			Recorded, Applied int
		}
		Backends struct {
			part
			List []struct {
				Node, PID int
				Host      string
				This      bool
			}
		}
		Keys []struct{ Name string }
	}
	ask := func(url string) (s status, took time.Duration) {
		t.Helper()
		began := time.Now()
		resp, body := do(t, c, "GET", url+"/service", f.APIKey, "")
		took = time.Since(began)
		if err := json.Unmarshal([]byte(body), &s); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s %s: %v", resp.Status, body, err)
		}
		return s, took
	}
	code := createOne(t, c, f.URL+"/links", f.APIKey, `{"url":"https://example.com/"}`)
	if resp, _ := do(t, c, "GET", f.Backends[0].URL+"/"+code, "", ""); resp.StatusCode != 302 {
		t.Fatalf("visit: %s", resp.Status)
	}
	fleettest.Eventually(t, 20*time.Second, "the link is archived and its click is added up", func() bool {
		a, _ := ask(f.Backends[0].URL)
		b, _ := ask(f.Backends[1].URL)
		return a.Clicks.Recorded == 1 && b.Clicks.Recorded == 0 && a.Clicks.Applied+b.Clicks.Applied == 1 &&
			a.Archive.Pending == 0 && a.Archive.Shards[0].Rows+a.Archive.Shards[1].Rows == 1
	})
	s, _ := ask(f.URL)
	if s.Status != "ok" || len(s.Reasons) > 0 || len(s.Redis) != 2 || s.Redis[0].Used == 0 || s.Redis[1].Name != "state" || s.Clicks.Queue != "redis" || len(s.Keys) == 0 {
		t.Errorf("%+v", s)
	}
	for i, b := range f.Backends {
		s, _ := ask(b.URL)
		if len(s.Backends.List) != 2 {
			t.Fatalf("backends %+v", s.Backends)
		}
		for k, l := range s.Backends.List {
			if l.Node != k+1 || l.This != (k == i) || l.PID == 0 || l.Host == "" {
				t.Errorf("backend %d sees %+v", i, l)
			}
		}
	}

	// The Redis of links hangs, and a database is gone.
	f.Redis.Pause()
	defer f.Redis.Resume()
	f.Archive[1].Kill()
	s, took := ask(f.Backends[0].URL)
	if took > httpapi.RequestTime+300*time.Millisecond { // what a busy machine adds
		t.Errorf("it took %s", took)
	}
	if s.Status != "unavailable" || len(s.Reasons) == 0 || s.Redis[0].Error == "" || s.Redis[1].Error != "" || s.Redis[1].Used == 0 {
		t.Errorf("%s %q, Redis %+v", s.Status, s.Reasons, s.Redis)
	}
	if s.Archive.Error == "" || s.Archive.Shards[0].Error != "" || s.Archive.Shards[1].Error == "" || s.Clicks.Error != "" || len(s.Backends.List) != 2 {
		t.Errorf("%+v", s)
	}
}
