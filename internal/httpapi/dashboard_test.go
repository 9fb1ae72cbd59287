package httpapi_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"snowlink/internal/dashboard"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/httpapi"
)

const ourOrigin = "Origin: " + baseURL

// signedIn is a session as an answer shows it.
type signedIn struct {
	ID, Name, Browser string
	Scopes            []string
	Created           time.Time `json:"created_at"`
	Expires           time.Time `json:"expires_at"`
	Current           bool
}

// signIn signs in with a secret, and returns the session and its cookie as a header.
func (b *backend) signIn(secret string, headers ...string) (s signedIn, cookie string) {
	b.t.Helper()
	a := b.do("POST", "/dashboard/session", `{"key":"`+secret+`"}`, headers...)
	if a.status != 201 {
		b.t.Fatalf("sign in: %d %s", a.status, a.body)
	}
	decode(b.t, a.body, &s)
	value, _, _ := strings.Cut(string(a.header.Peek("Set-Cookie")), ";")
	return s, "Cookie: theme=dark; " + value
}

func (b *backend) sessions(headers ...string) []signedIn {
	b.t.Helper()
	a := b.do("GET", "/dashboard/sessions", "", headers...)
	if a.status != 200 {
		b.t.Fatalf("sessions: %d %s", a.status, a.body)
	}
	var list struct{ Sessions []signedIn }
	decode(b.t, a.body, &list)
	return list.Sessions
}

func TestSession(t *testing.T) {
	b := newBackend(t)
	const firefox = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
	b.keys.SetNamed(parseKeys(t, keyLine("shop", "shop-key", "scopes=create,read")))
	a := b.do("POST", "/dashboard/session", `{"key":"shop-key"}`, ourOrigin)
	cookie := string(a.header.Peek("Set-Cookie"))
	for _, want := range []string{"; max-age=43200;", "; path=/;", "; HttpOnly;", "; secure;", "; SameSite=Strict"} {
		if !strings.Contains(cookie, want) {
			t.Errorf("Set-Cookie %q lacks %q", cookie, want)
		}
	}
	if value, _, _ := strings.Cut(cookie, ";"); len(value) != len("snowlink_session=")+43 {
		t.Errorf("the token of %q is not of 32 bytes", cookie)
	}
	s, cookie := b.signIn("shop-key", firefox)
	if s.Name != "shop" || strings.Join(s.Scopes, ",") != "create,read" || s.Expires.Sub(s.Created) != 12*time.Hour || time.Since(s.Created).Abs() > time.Minute {
		t.Errorf("session %+v", s)
	}
	if a := b.do("GET", "/dashboard/session", "", cookie); a.status != 200 || !strings.Contains(a.body, s.ID) {
		t.Errorf("who is signed in: %d %s", a.status, a.body)
	}

	// It does what its key does, and no more.
	created := wantCreated(t, b.do("POST", "/links", anyBody, cookie, ourOrigin))
	if a := b.do("GET", "/links/"+created.Code, "", cookie); a.status != 200 || !strings.Contains(a.body, `"owner":"shop"`) {
		t.Errorf("a link made with a session: %d %s", a.status, a.body)
	}
	wantProblem(t, b.do("DELETE", "/links/"+created.Code, "", cookie, ourOrigin), 403, "forbidden")
	if a := b.do("GET", "/key", "", cookie); a.status != 200 || a.body != `{"name":"shop","scopes":["create","read"]}` {
		t.Errorf("/key: %d %s", a.status, a.body)
	}

	own := b.sessions(cookie)
	if len(own) != 2 || own[0].ID != s.ID || !own[0].Current || own[1].Current || own[0].Browser != "Firefox on Linux" || own[1].Browser != "" {
		t.Errorf("sessions %+v", own)
	}
	a = b.do("DELETE", "/dashboard/session", "", cookie, ourOrigin)
	if a.status != 204 || !strings.Contains(string(a.header.Peek("Set-Cookie")), "snowlink_session=;") {
		t.Errorf("sign out: %d, Set-Cookie %q", a.status, a.header.Peek("Set-Cookie"))
	}
	wantProblem(t, b.do("GET", "/dashboard/session", "", cookie), 401, "unauthorized")
	wantProblem(t, b.do("POST", "/links", anyBody, cookie, ourOrigin), 401, "unauthorized")
	if a := b.do("DELETE", "/dashboard/session", "", ourOrigin); a.status != 204 {
		t.Errorf("sign out without a session: %d", a.status)
	}
}

func TestSignInRefuses(t *testing.T) {
	b := newBackend(t)
	for _, tt := range []struct {
		name, body string
		status     int
		code       string
	}{
		{"a wrong key", `{"key":"wrong"}`, 401, "unauthorized"},
		{"an empty key", `{"key":""}`, 401, "unauthorized"},
		{"a token that is none", `{"token":"x"}`, 401, "unauthorized"},
		{"a key as a token", `{"token":"` + key + `"}`, 401, "unauthorized"},
		{"neither", `{}`, 400, "invalid_field"},
		{"both", `{"key":"` + key + `","token":"x"}`, 400, "invalid_field"},
		{"no JSON", `key=` + key, 400, "invalid_json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := b.do("POST", "/dashboard/session", tt.body)
			wantProblem(t, a, tt.status, tt.code)
			if cookie := a.header.Peek("Set-Cookie"); cookie != nil || strings.Contains(a.body, "s3cret") {
				t.Errorf("Set-Cookie %q, body %s", cookie, a.body)
			}
		})
	}
}

// A page of another host, or of another port of this one, does nothing with a session.
func TestSessionOfForeignPages(t *testing.T) {
	b := newBackend(t)
	_, cookie := b.signIn(key)
	for _, tt := range []struct {
		name    string
		headers []string
		ours    bool
	}{
		{"BASE_URL", []string{"Origin: https://sno.example"}, true},
		{"the host of the request", []string{"Origin: http://backend"}, true},
		{"the host of the request to Nginx", []string{"Origin: http://localhost:8080", "X-Forwarded-Host: localhost:8080"}, true},
		{"the browser says so", []string{"Sec-Fetch-Site: same-origin"}, true},
		{"another host", []string{"Origin: https://evil.example"}, false},
		{"another port", []string{"Origin: https://sno.example:8443"}, false},
		{"http for https", []string{"Origin: http://sno.example"}, false},
		{"a longer host", []string{"Origin: https://sno.example.evil.example"}, false},
		{"a host in user info", []string{"Origin: https://backend@evil.example"}, false},
		{"the same site", []string{"Sec-Fetch-Site: same-site"}, false},
		{"a sandboxed page", []string{"Origin: null"}, false},
		{"no browser", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			with := append(tt.headers, cookie)
			if a := b.do("POST", "/links", anyBody, with...); tt.ours {
				wantCreated(t, a)
			} else {
				wantProblem(t, a, 403, "foreign_origin")
			}
			if a := b.do("GET", "/links", "", with...); a.status != 200 { // which no other page can read
				t.Errorf("GET: %d %s", a.status, a.body)
			}
			wantCreated(t, b.do("POST", "/links", anyBody, append(with, "API-Key: "+key)...))
			wantProblem(t, b.do("POST", "/links", anyBody, append(with, "API-Key: wrong")...), 401, "unauthorized")
			if !tt.ours {
				wantProblem(t, b.do("DELETE", "/dashboard/session", "", with...), 403, "foreign_origin")
				wantProblem(t, b.do("DELETE", "/dashboard/sessions/"+strings.Repeat("a", 43), "", with...), 403, "foreign_origin")
			}
			if len(tt.headers) > 0 && !tt.ours {
				wantProblem(t, b.do("POST", "/dashboard/session", `{"key":"`+key+`"}`, tt.headers...), 403, "foreign_origin")
			}
		})
	}
	if a := b.do("GET", "/dashboard/session", "", cookie); a.status != 200 {
		t.Errorf("after all of them: %d %s", a.status, a.body)
	}
}

// Whoever has the key of a name sees and ends the sessions of that name. An administrator does so with
// all. A session that was ended is over at once, at every backend.
func TestRevokeSessions(t *testing.T) {
	b := newBackend(t)
	other := newBackendWith(t, func(string) string { return b.redis.Addr }, func(*httpapi.Config) {})
	for _, backend := range []*backend{b, other} {
		backend.keys.SetNamed(parseKeys(t, keyLine("shop", "shop-key", "scopes=create"), keyLine("shop", "second", "scopes=read"), keyLine("blog", "blog-key", "scopes=read")))
	}
	admin, adminCookie := b.signIn(key)
	shop, shopCookie := b.signIn("shop-key")
	second, secondCookie := b.signIn("second")
	blog, blogCookie := other.signIn("blog-key")
	if all := other.sessions(adminCookie); len(all) != 4 || all[0].ID != blog.ID {
		t.Errorf("an administrator sees %+v", all)
	}
	if own := other.sessions(secondCookie); len(own) != 2 || own[0].ID != second.ID || own[1].ID != shop.ID {
		t.Errorf("shop sees %+v", own)
	}
	if own := other.sessions("API-Key: blog-key"); len(own) != 1 || own[0].Current {
		t.Errorf("blog sees %+v", own)
	}
	for _, id := range []string{admin.ID, blog.ID, strings.Repeat("a", 43)} {
		wantProblem(t, b.do("DELETE", "/dashboard/sessions/"+id, "", shopCookie, ourOrigin), 404, "not_found")
	}
	if a := b.do("DELETE", "/dashboard/sessions/"+shop.ID, "", secondCookie, ourOrigin); a.status != 204 {
		t.Errorf("one's own name: %d %s", a.status, a.body)
	}
	wantProblem(t, other.do("GET", "/key", "", shopCookie), 401, "unauthorized")
	if a := b.do("DELETE", "/dashboard/sessions/"+blog.ID, "", "API-Key: "+key); a.status != 204 {
		t.Errorf("as administrator: %d %s", a.status, a.body)
	}
	wantProblem(t, other.do("GET", "/key", "", blogCookie), 401, "unauthorized")
	for _, cookie := range []string{adminCookie, secondCookie} {
		if a := other.do("GET", "/key", "", cookie); a.status != 200 {
			t.Errorf("another session: %d %s", a.status, a.body)
		}
	}
}

// A session follows its key: it ends with the key, and may do what the key may do now.
func TestSessionFollowsItsKey(t *testing.T) {
	b := newBackend(t)
	set := func(lines ...string) { b.keys.SetNamed(parseKeys(t, lines...)) }
	scopes := func(cookie string) string { return b.do("GET", "/key", "", cookie).body }
	set(keyLine("shop", "first", "scopes=create"))
	_, cookie := b.signIn("first")
	set(keyLine("shop", "first", "scopes=read"))
	if got := scopes(cookie); got != `{"name":"shop","scopes":["read"]}` {
		t.Errorf("after a change of scopes: %s", got)
	}
	for name, lines := range map[string][]string{
		"withdrawn":      {keyLine("other", "x", "scopes=read")},
		"another secret": {keyLine("shop", "second", "scopes=read")},
		"another name":   {keyLine("renamed", "first", "scopes=read")},
	} {
		set(lines...)
		wantProblem(t, b.do("GET", "/key", "", cookie), 401, "unauthorized")
		if list := b.sessions("API-Key: " + key); len(list) != 0 {
			t.Errorf("%s: sessions %+v", name, list)
		}
	}
	set(keyLine("shop", "first", "scopes=read"))
	if got := scopes(cookie); got != `{"name":"shop","scopes":["read"]}` { // a mistake in the file is no reason to sign in again
		t.Errorf("after the key came back: %s", got)
	}
}

// While Redis is away, nobody seems to be signed out.
func TestSessionWithoutRedis(t *testing.T) {
	b := newBackend(t)
	_, cookie := b.signIn(key)
	b.redis.Kill()
	for _, a := range []answer{
		b.do("GET", "/dashboard/session", "", cookie),
		b.do("GET", "/key", "", cookie),
		b.do("GET", "/links", "", cookie),
		b.do("POST", "/links", anyBody, cookie, ourOrigin),
		b.do("GET", "/dashboard/sessions", "", cookie),
		b.do("DELETE", "/dashboard/session", "", cookie, ourOrigin),
		b.do("POST", "/dashboard/session", `{"key":"`+key+`"}`),
		b.do("POST", "/dashboard/session", `{"key":"wrong"}`),
	} {
		wantProblem(t, a, 503, "unavailable")
		if a.header.Peek("Set-Cookie") != nil {
			t.Errorf("Set-Cookie %q", a.header.Peek("Set-Cookie"))
		}
	}
	if a := b.do("GET", "/dashboard/", ""); a.status != 200 {
		t.Errorf("the page: %d", a.status)
	}
}

// Wrong keys are slowed, by the network that sends them, at all backends together. Right ones are not
// counted.
func TestWrongKeysAreSlowed(t *testing.T) {
	b := newBackend(t)
	other := newBackendWith(t, func(string) string { return b.redis.Addr }, func(*httpapi.Config) {})
	from := func(b *backend, address, secret string) answer {
		return b.do("POST", "/dashboard/session", `{"key":"`+secret+`"}`, "X-Forwarded-For: 192.0.2.9, "+address)
	}
	const office = "203.0.113.7"
	for range 3 * dashboard.Tries {
		if a := from(b, office, key); a.status != 201 {
			t.Fatalf("a right key: %d %s", a.status, a.body)
		}
	}
	refused := 0
	for i := range 2 * dashboard.Tries {
		a := from([]*backend{b, other}[i%2], office, "wrong")
		if a.status == 429 {
			detail := wantProblem(t, a, 429, "rate_limited")
			if seconds, _ := strconv.Atoi(string(a.header.Peek("Retry-After"))); seconds < 1 || seconds > 6 || !strings.Contains(detail, "wrong keys") {
				t.Errorf("Retry-After %q, %s", a.header.Peek("Retry-After"), detail)
			}
			refused++
			continue
		}
		wantProblem(t, a, 401, "unauthorized")
	}
	if refused < dashboard.Tries-2 { // one or two more while this ran
		t.Errorf("%d of %d wrong keys were refused", refused, 2*dashboard.Tries)
	}
	wantProblem(t, from(other, office, key), 429, "rate_limited") // or a guess would be seen to be right
	if a := from(other, "203.0.113.8", key); a.status != 201 {
		t.Errorf("another address: %d %s", a.status, a.body)
	}
	for i := range dashboard.Tries + 2 {
		from(b, "2001:db8:1:2::"+strconv.Itoa(i+1), "wrong")
	}
	wantProblem(t, from(b, "2001:db8:1:2:ffff::1", key), 429, "rate_limited") // the same network
	if a := from(b, "2001:db8:1:3::1", key); a.status != 201 {
		t.Errorf("another network: %d %s", a.status, a.body)
	}
	client := fleettest.RedisClient(t, b.redis.Addr)
	for _, k := range client.Keys(t.Context(), "*").Val() {
		if strings.Contains(k, "203.0") || strings.Contains(k, "2001") {
			t.Errorf("Redis has the address in %q", k)
		}
	}
}

func TestPage(t *testing.T) {
	b := newBackend(t)
	page := b.do("GET", "/dashboard/", "")
	if page.status != 200 || !strings.HasPrefix(page.body, "<!doctype html>") || string(page.header.ContentType()) != "text/html; charset=utf-8" {
		t.Fatalf("%d %s %.60q", page.status, page.header.ContentType(), page.body)
	}
	if csp := string(page.header.Peek("Content-Security-Policy")); strings.Contains(csp, "unsafe") || !strings.HasPrefix(csp, "default-src 'none'; ") {
		t.Errorf("policy %q", csp)
	}
	for _, path := range []string{"/dashboard/links", "/dashboard/links/abc/edit", "/dashboard/../key"} { // addresses of the page
		if a := b.do("GET", path, ""); a.status != 200 || a.body != page.body {
			t.Errorf("%s: %d %.60q", path, a.status, a.body)
		}
	}
	for _, path := range []string{"/dashboard/none.js", "/dashboard/%2e%2e/files.go", "/dashboard/web/index.html.br", "/dashboard/vendor/none.json"} {
		wantProblem(t, b.do("GET", path, ""), 404, "not_found")
	}
	if a := b.do("GET", "/dashboard", ""); a.status != 302 || string(a.header.Peek("Location")) != "/dashboard/" {
		t.Errorf("/dashboard: %d to %q", a.status, a.header.Peek("Location"))
	}
	if a := b.do("HEAD", "/dashboard/", ""); a.status != 200 || a.body != "" {
		t.Errorf("HEAD: %d %q", a.status, a.body)
	}
	wantProblem(t, b.do("POST", "/dashboard/", ""), 405, "method_not_allowed")
	wantProblem(t, b.do("PUT", "/dashboard/session", ""), 405, "method_not_allowed")

	// A browser has each file once, in the encoding that it takes.
	etags := map[string]bool{}
	for accept, encoding := range map[string]string{"": "", "gzip": "gzip", "br": "br", "gzip, deflate, br": "br", "gzip,br;q=0": "gzip", "br;q=0.5": "br", "identity": ""} {
		a := b.do("GET", "/dashboard/index.html", "", "Accept-Encoding: "+accept)
		if got := string(a.header.ContentEncoding()); got != encoding {
			t.Errorf("Accept-Encoding %q: Content-Encoding %q, want %q", accept, got, encoding)
		}
		if text := decoded(t, a); text != page.body {
			t.Errorf("Accept-Encoding %q: %.60q", accept, text)
		}
		etag := string(a.header.Peek("ETag"))
		etags[etag] = true
		for _, tags := range []string{etag, `"x", W/` + etag} {
			again := b.do("GET", "/dashboard/index.html", "", "Accept-Encoding: "+accept, "If-None-Match: "+tags)
			if again.status != 304 || again.body != "" || string(again.header.Peek("ETag")) != etag {
				t.Errorf("If-None-Match %s: %d, ETag %s", tags, again.status, again.header.Peek("ETag"))
			}
		}
	}
	if len(etags) != 3 {
		t.Errorf("ETags %v, want one for each encoding", etags)
	}
	if a := b.do("GET", "/dashboard/", "", `If-None-Match: "other"`); a.status != 200 {
		t.Errorf("another ETag: %d", a.status)
	}
}

// decoded returns the body of an answer without its encoding.
func decoded(t *testing.T, a answer) string {
	t.Helper()
	body := []byte(a.body)
	var err error
	switch string(a.header.ContentEncoding()) {
	case "br":
		body, err = fasthttp.AppendUnbrotliBytes(nil, body)
	case "gzip":
		var r *gzip.Reader
		if r, err = gzip.NewReader(bytes.NewReader(body)); err == nil {
			body, err = io.ReadAll(r)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestWithoutDashboard(t *testing.T) {
	b := newBackendWith(t, func(addr string) string { return addr }, func(c *httpapi.Config) { c.Sessions, c.RootURL = nil, "" })
	for _, path := range []string{"/", "/dashboard", "/dashboard/", "/dashboard/session"} {
		wantProblem(t, plain(b, "GET", path), 404, "not_found")
	}
	wantProblem(t, b.do("GET", "/links", "", "Cookie: snowlink_session="+strings.Repeat("a", 43)), 401, "unauthorized")
}

// plain sends a request that openapi.yaml does not know of.
func plain(b *backend, method, path string) answer {
	return b.raw(method + " " + path + " HTTP/1.1\r\nHost: x\r\n\r\n")
}

func TestRoot(t *testing.T) {
	b := newBackendWith(t, func(addr string) string { return addr }, func(c *httpapi.Config) { c.RootURL = "https://example.com/about?a=1" })
	for _, method := range []string{"GET", "HEAD"} {
		if a := b.do(method, "/", ""); a.status != 302 || string(a.header.Peek("Location")) != "https://example.com/about?a=1" {
			t.Errorf("%s /: %d to %q", method, a.status, a.header.Peek("Location"))
		}
	}
}
