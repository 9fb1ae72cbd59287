package httpapi_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestPreviewShowsTheTarget(t *testing.T) {
	b := newBackend(t)
	// Characters of a URL that would end an attribute or begin a tag are escaped, here at the
	// latest.
	const target = `https://example.com/?a=1&b='><script>alert(1)</script>`
	c := wantCreated(t, b.create(`{"url":"`+target+`","title":"<b>Bank</b>"}`))
	a := b.do("GET", "/"+c.Code+"+", "")
	href := strings.NewReplacer("&", "&amp;", "'", "&#39;").Replace(c.URL)
	for _, want := range []string{c.ShortURL, `<a href="` + href + `"`, `<meta name="robots" content="noindex">`, `"Content-Security-Policy" content="default-src 'none'"`} {
		if !strings.Contains(a.body, want) {
			t.Errorf("the page has no %s: %s", want, a.body)
		}
	}
	for _, never := range []string{"<script", "Bank", "expires"} {
		if strings.Contains(a.body, never) {
			t.Errorf("the page has %q: %s", never, a.body)
		}
	}
	head := b.do("HEAD", "/"+c.Code+"+", "")
	if a.status != 200 || head.status != 200 || head.body != "" {
		t.Errorf("GET answered %d, HEAD %d %q", a.status, head.status, head.body)
	}
}

func TestPreviewShowsOptions(t *testing.T) {
	b := newBackend(t)
	c := wantCreated(t, b.create(with(`"expires_at":"2099-12-31T23:30:00+01:00","forward_query":true`)))
	a := b.do("GET", "/"+c.Code+"+", "")
	for _, want := range []string{"31 December 2099 at 22:30 UTC", "query"} {
		if !strings.Contains(a.body, want) {
			t.Errorf("the page has no %q: %s", want, a.body)
		}
	}
}

// To look at a link does not count as a visit. A link that leads nowhere shows no target.
func TestLookingIsNoVisit(t *testing.T) {
	b := newBackend(t)
	code := wantCreated(t, b.create(with(`"max_visits":1`))).Code
	for range 3 {
		for _, path := range []string{"/" + code + "+", "/" + code + "/qr"} {
			if a := b.do("GET", path, ""); a.status != 200 {
				t.Errorf("GET %s = %d %s", path, a.status, a.body)
			}
		}
	}
	if status, _ := b.follow(code); status != 302 {
		t.Errorf("the first visit after them = %d", status)
	}
	closed := map[string]string{"used up": code}

	disabled := wantCreated(t, b.create(`{"url":"https://example.com/"}`)).Code
	wantShown(t, b.manage("PATCH", "/links/"+disabled, `{"disabled":true}`), 200)
	closed["disabled"] = disabled

	deleted := wantCreated(t, b.create(`{"url":"https://example.com/"}`)).Code
	if a := b.manage("DELETE", "/links/"+deleted, ""); a.status != 204 {
		t.Fatalf("DELETE = %d", a.status)
	}
	closed["deleted"] = deleted

	at := time.Now().Add(100 * time.Millisecond)
	expired := wantCreated(t, b.create(with(fmt.Sprintf(`"expires_at":%q`, at.Format(time.RFC3339Nano))))).Code
	time.Sleep(time.Until(at.Add(time.Millisecond)))
	closed["expired"] = expired

	for why, code := range closed {
		t.Run(why, func(t *testing.T) {
			wantProblem(t, b.do("GET", "/"+code+"+", ""), 410, "gone")
			wantProblem(t, b.do("GET", "/"+code+"/qr", ""), 410, "gone")
		})
	}
	for _, path := range []string{"/none+", "/none/qr", "/no.code+", "/no.code/qr"} {
		wantProblem(t, b.do("GET", path, ""), 404, "not_found")
	}
	b.redis.Kill()
	for _, path := range []string{"/none+", "/none/qr"} {
		wantProblem(t, b.do("GET", path, ""), 503, "unavailable")
	}
}
