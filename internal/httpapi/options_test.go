package httpapi_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/shorten"
	"snowlink/snowflake"
)

// shown is a link as an answer shows it.
type shown struct {
	ShortURL     string    `json:"short_url"`
	Code         string    `json:"code"`
	URL          string    `json:"url"`
	CreatedAt    time.Time `json:"created_at"`
	ExpiresAt    time.Time `json:"expires_at"`
	MaxVisits    int64     `json:"max_visits"`
	VisitsLeft   *int64    `json:"visits_left"`
	Status       int
	ForwardQuery bool `json:"forward_query"`
	Title        string
	Tags         []string
	Disabled     bool
}

func wantShown(t testing.TB, a answer, status int) shown {
	t.Helper()
	if a.status != status {
		t.Fatalf("answer %d %s, want %d", a.status, a.body, status)
	}
	var s shown
	decode(t, a.body, &s)
	return s
}

// with returns the body of a create with these fields and a URL.
func with(fields string) string { return `{"url":"https://example.com/",` + fields + `}` }

func (b *backend) manage(method, path, body string, headers ...string) answer {
	return b.do(method, path, body, append(headers, "API-Key: "+key)...)
}

// follow visits a code, and returns whether and where it leads.
func (b *backend) follow(code string) (status int, target string) {
	a := b.do("GET", "/"+code, "")
	return a.status, string(a.header.Peek("Location"))
}

func TestCreateShowsOptions(t *testing.T) {
	b := newBackend(t)
	const tail = `"expires_at":"2099-01-02T01:04:05.678Z","max_visits":100,"status":308,"forward_query":true,"title":"<Grüße> & \"mehr\"","tags":["a b","ü"]}`
	const sent = `"expires_at":"2099-01-02T03:04:05.6789+02:00","max_visits":100,"status":308,"forward_query":true,"title":"<Grüße> & \"mehr\"","tags":["a b","ü","a b"]`
	a := b.manage("POST", "/links", with(sent))
	wantShown(t, a, 201)
	if !strings.HasSuffix(a.body, tail) {
		t.Errorf("answer %s, want the end %s", a.body, tail)
	}

	a = b.create(with(`"ttl":60`))
	s := wantShown(t, a, 201)
	if got := s.ExpiresAt.Sub(s.CreatedAt); got < 59*time.Second || got > 61*time.Second {
		t.Errorf("ttl 60 expires %s after the link was made", got)
	}

	// Options that say nothing make a plain link, which costs what a plain link costs.
	client := fleettest.RedisClient(t, b.redis.Addr)
	for _, fields := range []string{
		`"status":302`, `"title":"","tags":[],"forward_query":false`,
		`"code":"","expires_at":null,"ttl":null,"max_visits":null,"status":null,"title":null,"tags":null,"forward_query":null`,
	} {
		a := b.create(with(fields))
		c := wantCreated(t, a)
		plain := fmt.Sprintf(`{"short_url":"%s/%s","code":"%[2]s","url":"https://example.com/","created_at":"%s"}`,
			baseURL, c.Code, c.CreatedAt.Format("2006-01-02T15:04:05.000Z07:00"))
		if a.body != plain {
			t.Errorf("%s: answer %s, want %s", fields, a.body, plain)
		}
		if record := client.Get(t.Context(), "link:"+c.Code).Val(); record != "https://example.com/" {
			t.Errorf("%s: record %q", fields, record)
		}
	}
}

func TestCreateRefusesOptions(t *testing.T) {
	b := newBackend(t)
	for _, tt := range []struct{ name, fields, code, detail string }{
		{"both expiries", `"ttl":60,"expires_at":"2099-01-01T00:00:00Z"`, "invalid_field", `"expires_at" and "ttl"`},
		{"ttl 0", `"ttl":0`, "invalid_field", `"ttl"`},
		{"ttl of 101 years", `"ttl":3185136000`, "invalid_field", `"ttl"`},
		{"ttl past 64 bits", `"ttl":99999999999999999999`, "invalid_json", `"ttl" must be a whole number`},
		{"ttl as text", `"ttl":"60"`, "invalid_json", `"ttl" must be a whole number`},
		{"half a second", `"ttl":0.5`, "invalid_json", `"ttl" must be a whole number`},
		{"a past expiry", `"expires_at":"2020-01-01T00:00:00Z"`, "invalid_field", "future"},
		{"an expiry of 9999", `"expires_at":"9999-01-01T00:00:00Z"`, "invalid_field", "100 years"},
		{"a day", `"expires_at":"2099-01-01"`, "invalid_field", "RFC 3339"},
		{"a date that is none", `"expires_at":"2099-02-30T00:00:00Z"`, "invalid_field", "RFC 3339"},
		{"a number", `"expires_at":4070908800`, "invalid_json", `"expires_at" must be a string`},
		{"no visits", `"max_visits":0`, "invalid_field", `"max_visits"`},
		{"too many visits", `"max_visits":1000000001`, "invalid_field", `"max_visits"`},
		{"status 303", `"status":303`, "invalid_field", `"status"`},
		{"status 0", `"status":0`, "invalid_field", `"status"`},
		{"a long title", `"title":"` + strings.Repeat("é", 256) + `"`, "invalid_field", `"title"`},
		{"two lines", `"title":"a\nb"`, "invalid_field", `"title"`},
		{"tags as text", `"tags":"a"`, "invalid_json", `"tags" must be a list of strings`},
		{"a number among tags", `"tags":["a",1]`, "invalid_json", `"tags" must be a list of strings`},
		{"an empty tag", `"tags":["a",""]`, "invalid_field", `"tags"`},
		{"a comma", `"tags":["a,b"]`, "invalid_field", `"tags"`},
		{"a space before", `"tags":[" a"]`, "invalid_field", `"tags"`},
		{"a long tag", `"tags":["` + strings.Repeat("é", 51) + `"]`, "invalid_field", `"tags"`},
		{"11 tags", `"tags":["1","2","3","4","5","6","7","8","9","10","11"]`, "invalid_field", `10 tags`},
		{"a string for true", `"forward_query":"yes"`, "invalid_json", `"forward_query" must be true or false`},
		{"disabled", `"disabled":true`, "invalid_json", `"disabled" is not known`},
		{"a short code", `"code":"ab"`, "invalid_code", "3 to 64"},
		{"a long code", `"code":"` + strings.Repeat("a", 65) + `"`, "invalid_code", "3 to 64"},
		{"a dot in the code", `"code":"a.b"`, "invalid_code", ""},
		{"a reserved code", `"code":"Links"`, "invalid_code", ""},
		{"the shape of a minted code", `"code":"8h4LRT53E8"`, "invalid_code", ""},
		{"two codes", `"code":"abc","custom_path":"abd"`, "invalid_code", "custom_path"},
		{"a number as code", `"code":123`, "invalid_json", `"code" must be a string`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := b.create(with(tt.fields))
			if detail := wantProblem(t, a, 400, tt.code); !strings.Contains(detail, tt.detail) {
				t.Errorf("detail %q does not say %q", detail, tt.detail)
			}
			if len(a.body) > 500 {
				t.Errorf("the answer repeats too much: %.600s", a.body)
			}
		})
	}
	client := fleettest.RedisClient(t, b.redis.Addr)
	if keys, err := client.Keys(t.Context(), "*").Result(); len(keys) != 0 || err != nil {
		t.Errorf("stored: %v, %v", keys, err)
	}
}

func TestChosenCodes(t *testing.T) {
	b := newBackend(t)
	for i, name := range []string{"code", "custom_code", "custom_path", "custom_short"} {
		code := fmt.Sprintf("my_Own-%d", i)
		a := b.create(with(fmt.Sprintf(`%q:%q`, name, code)))
		c := wantCreated(t, a)
		if c.Code != code || c.ShortURL != baseURL+"/"+code || string(a.header.Peek("Location")) != c.ShortURL || time.Since(c.CreatedAt).Abs() > time.Minute {
			t.Errorf("%s: %s", name, a.body)
		}
		if status, target := b.follow(code); status != 302 || target != "https://example.com/" {
			t.Errorf("GET /%s = %d to %q", code, status, target)
		}
		wantProblem(t, b.create(fmt.Sprintf(`{"url":"https://example.org/",%q:%q}`, name, code)), 409, "code_taken")
		wantProblem(t, b.create(with(fmt.Sprintf(`%q:%q`, name, code))), 409, "code_taken") // the same target, too
		if status, target := b.follow(code); status != 302 || target != "https://example.com/" {
			t.Errorf("after a create that was refused GET /%s = %d to %q", code, status, target)
		}
	}
	// A backend without a node ID can still store links under chosen codes.
	b.mint = func() (snowflake.ID, error) { return 0, shorten.ErrNoNode }
	wantCreated(t, b.create(with(`"code":"no-node"`)))
	// One code under several names is one code.
	wantCreated(t, b.create(with(`"code":"same","custom_code":"same"`)))
}

func TestOfManyCreatesOfOneCodeOneWins(t *testing.T) {
	b := newBackend(t)
	const creators = 50
	var won, taken atomic.Int32
	var all sync.WaitGroup
	for range creators {
		all.Go(func() {
			switch a := b.create(with(`"code":"wanted"`)); a.status {
			case 201:
				won.Add(1)
			case 409:
				taken.Add(1)
			default:
				t.Errorf("answer %d %s", a.status, a.body)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 || taken.Load() != creators-1 {
		t.Errorf("%d creates of one code won and %d were refused, of %d", won.Load(), taken.Load(), creators)
	}
}

func TestRedirectStatus(t *testing.T) {
	b := newBackend(t)
	for _, tt := range []struct {
		fields string
		status int
		cache  func(string) bool
	}{
		{`"status":302`, 302, is("private, max-age=0")},
		{`"status":307`, 307, is("private, max-age=0")},
		{`"status":301`, 301, is("private, max-age=3600")},
		{`"status":308`, 308, is("private, max-age=3600")},
		{`"status":308,"forward_query":true`, 308, is("private, max-age=3600")},
		{`"status":301,"max_visits":9`, 301, is("private, max-age=0")},
		{`"status":301,"ttl":7200`, 301, is("private, max-age=3600")},
		{`"status":301,"ttl":60`, 301, func(got string) bool {
			var seconds int
			_, err := fmt.Sscanf(got, "private, max-age=%d", &seconds)
			return err == nil && seconds <= 60 && seconds > 30
		}},
	} {
		t.Run(tt.fields, func(t *testing.T) {
			code := wantCreated(t, b.create(with(tt.fields))).Code
			for _, method := range []string{"GET", "HEAD"} {
				a := b.do(method, "/"+code, "")
				if a.status != tt.status || string(a.header.Peek("Location")) != "https://example.com/" || a.body != "" {
					t.Errorf("%s = %d to %q, %q", method, a.status, a.header.Peek("Location"), a.body)
				}
				if got := string(a.header.Peek("Cache-Control")); !tt.cache(got) {
					t.Errorf("Cache-Control = %q", got)
				}
				if limited := strings.Contains(tt.fields, "max_visits"); (string(a.header.Peek("X-Accel-Expires")) == "0") != limited {
					t.Errorf("X-Accel-Expires = %q", a.header.Peek("X-Accel-Expires"))
				}
			}
		})
	}
}

func is(want string) func(string) bool { return func(got string) bool { return got == want } }

func TestForwardQuery(t *testing.T) {
	b := newBackend(t)
	for _, tt := range []struct{ target, query, want string }{
		{"https://example.com/", "", "https://example.com/"},
		{"https://example.com/", "?", "https://example.com/"},
		{"https://example.com/", "?a=1&b=2", "https://example.com/?a=1&b=2"},
		{"https://example.com/?x=0", "?a=1", "https://example.com/?x=0&a=1"},
		{"https://example.com/?a=0", "?a=1", "https://example.com/?a=0&a=1"},
		{"https://example.com/?", "?a=1", "https://example.com/?a=1"},
		{"https://example.com/?x&", "?a=1", "https://example.com/?x&a=1"},
		{"https://example.com/p#f?g", "?a=1", "https://example.com/p?a=1#f?g"},
		{"https://example.com/?x#f", "?a=1", "https://example.com/?x&a=1#f"},
		{"https://example.com/", "?a=%20%zz&u=\xc3\xa9\"<'>", "https://example.com/?a=%20%zz&u=%C3%A9%22%3C%27%3E"},
		{"https://example.com/", "?next=http://evil.example/?a", "https://example.com/?next=http://evil.example/?a"},
	} {
		code := wantCreated(t, b.create(fmt.Sprintf(`{"url":%q,"forward_query":true}`, tt.target))).Code
		// Built by hand, because a client would correct the query.
		if got := b.raw("GET /" + code + tt.query + " HTTP/1.1\r\nHost: x\r\n\r\n"); got.status != 302 || string(got.header.Peek("Location")) != tt.want {
			t.Errorf("%s with %q = %d to %q, want %q", tt.target, tt.query, got.status, got.header.Peek("Location"), tt.want)
		}
	}
	code := wantCreated(t, b.create(with(`"forward_query":true,"max_visits":1`))).Code
	wantProblem(t, b.do("GET", "/"+code+"?"+strings.Repeat("a", 4100), ""), 414, "too_large")
	if a := b.do("HEAD", "/"+code+"?"+strings.Repeat("a", 4100), ""); a.status != 414 {
		t.Errorf("HEAD = %d", a.status)
	}
	if a := b.do("GET", "/"+code+"?a", ""); a.status != 302 { // those took no visit
		t.Errorf("GET of the last visit = %d", a.status)
	}
}

// A link that expired answers 410 and is in no list. It can be read and be given more time.
func TestExpiry(t *testing.T) {
	b := newBackend(t)
	code := wantCreated(t, b.create(with(`"ttl":1`))).Code
	if status, _ := b.follow(code); status != 302 {
		t.Fatalf("before it expires = %d", status)
	}
	fleettest.Eventually(t, 20*time.Second, "the link expires", func() bool { status, _ := b.follow(code); return status == 410 })
	wantProblem(t, b.do("GET", "/"+code, ""), 410, "gone")
	if a := b.do("HEAD", "/"+code, ""); a.status != 410 {
		t.Errorf("HEAD = %d", a.status)
	}
	if s := wantShown(t, b.manage("GET", "/links/"+code, ""), 200); s.ExpiresAt.After(time.Now()) {
		t.Errorf("expires_at = %s", s.ExpiresAt)
	}
	wantShown(t, b.manage("PATCH", "/links/"+code, `{"expires_at":null}`), 200)
	if status, _ := b.follow(code); status != 302 {
		t.Errorf("with its expiry removed = %d", status)
	}
	client := fleettest.RedisClient(t, b.redis.Addr)
	if ttl := client.TTL(t.Context(), "link:"+code).Val(); ttl != -1 {
		t.Errorf("Redis forgets a link without expiry in %s", ttl)
	}

	own := wantCreated(t, b.create(with(`"code":"short-lived","ttl":1`))).Code
	fleettest.Eventually(t, 20*time.Second, "the chosen code expires", func() bool { status, _ := b.follow(own); return status == 410 })
	wantProblem(t, b.create(with(`"code":"short-lived"`)), 409, "code_taken") // within the grace
	if ttl := client.TTL(t.Context(), "link:"+own).Val(); ttl < 29*24*time.Hour || ttl > 30*24*time.Hour {
		t.Errorf("the grace ends in %s", ttl)
	}
}

func TestVisitsAreExact(t *testing.T) {
	b := newBackend(t)
	const visits, visitors = 100, 1000
	code := wantCreated(t, b.create(with(fmt.Sprintf(`"max_visits":%d`, visits)))).Code
	for range 10 {
		if a := b.do("HEAD", "/"+code, ""); a.status != 302 {
			t.Fatalf("HEAD = %d", a.status)
		}
	}
	var led, gone atomic.Int32
	var all sync.WaitGroup
	for range visitors {
		all.Go(func() {
			switch status, _ := b.follow(code); status {
			case 302:
				led.Add(1)
			case 410:
				gone.Add(1)
			default:
				t.Errorf("status %d", status)
			}
		})
	}
	all.Wait()
	if led.Load() != visits || gone.Load() != visitors-visits {
		t.Errorf("of %d visitors %d were led on and %d met the end, want %d and the rest", visitors, led.Load(), gone.Load(), visits)
	}
	if a := b.do("HEAD", "/"+code, ""); a.status != 410 {
		t.Errorf("HEAD of a link that is used up = %d", a.status)
	}
	if s := wantShown(t, b.manage("GET", "/links/"+code, ""), 200); s.VisitsLeft == nil || *s.VisitsLeft != 0 {
		t.Errorf("visits_left = %v", s.VisitsLeft)
	}

	// A higher limit opens the link again, for as many visits more.
	wantShown(t, b.manage("PATCH", "/links/"+code, `{"max_visits":102}`), 200)
	for _, want := range []int{302, 302, 410} {
		if status, _ := b.follow(code); status != want {
			t.Errorf("after two visits more: %d, want %d", status, want)
		}
	}
	wantShown(t, b.manage("PATCH", "/links/"+code, `{"max_visits":null}`), 200)
	if status, _ := b.follow(code); status != 302 {
		t.Errorf("without a limit: %d", status)
	}
}

// A count that Redis evicted closes its link.
func TestLostCountClosesTheLink(t *testing.T) {
	b := newBackend(t)
	code := wantCreated(t, b.create(with(`"max_visits":5`))).Code
	if status, _ := b.follow(code); status != 302 {
		t.Fatalf("first visit = %d", status)
	}
	client := fleettest.RedisClient(t, b.redis.Addr)
	if n := client.Del(t.Context(), "visits:{link:"+code+"}").Val(); n != 1 {
		t.Fatalf("%d counts evicted", n)
	}
	wantProblem(t, b.do("GET", "/"+code, ""), 410, "gone")
	if a := b.do("HEAD", "/"+code, ""); a.status != 410 {
		t.Errorf("HEAD = %d", a.status)
	}
}
