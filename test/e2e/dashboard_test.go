package e2e_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
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
