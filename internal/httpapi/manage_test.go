package httpapi_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/shorten"
	"snowlink/snowflake"
)

func etagOf(a answer) string { return string(a.header.Peek("ETag")) }

func TestReadLink(t *testing.T) {
	b := newBackend(t)
	for _, body := range []string{`{"url":"https://example.com/"}`, with(`"code":"own-code","title":"T"`), with(`"max_visits":3`)} {
		made := b.create(body)
		code := wantCreated(t, made).Code
		a := b.manage("GET", "/links/"+code, "")
		want := strings.Replace(made.body, `"max_visits":3}`, `"max_visits":3,"visits_left":3}`, 1)
		if a.status != 200 || a.body != want || string(a.header.ContentType()) != "application/json" {
			t.Errorf("read = %d %s, created was %s", a.status, a.body, made.body)
		}
		if tag := etagOf(a); len(tag) < 10 || tag[0] != '"' || tag[len(tag)-1] != '"' {
			t.Errorf("ETag = %s", tag)
		}
		if cc := string(a.header.Peek("Cache-Control")); cc != "no-store" {
			t.Errorf("Cache-Control = %q", cc)
		}
		if head := b.manage("HEAD", "/links/"+code, ""); head.status != 200 || head.body != "" || etagOf(head) != etagOf(a) {
			t.Errorf("HEAD = %d %q", head.status, head.body)
		}
	}
	wantProblem(t, b.manage("GET", "/links/unknown", ""), 404, "not_found")
	for _, method := range []string{"GET", "PATCH", "DELETE"} {
		wantProblem(t, b.do(method, "/links/own-code", `{}`), 401, "unauthorized")
	}
}

func TestChange(t *testing.T) {
	b := newBackend(t)
	const options = `"expires_at":"2099-01-01T00:00:00.000Z","status":307,"forward_query":true,"title":"T","tags":["a"]`
	for _, tt := range []struct{ patch, want string }{
		{`{}`, `"url":"https://example.com/",` + options},
		{`{"url":"https://example.org/new"}`, `"url":"https://example.org/new",` + options},
		{`{"long_url":"https://example.org/new"}`, `"url":"https://example.org/new",` + options},
		{`{"title":"U","tags":null}`, `"url":"https://example.com/","expires_at":"2099-01-01T00:00:00.000Z","status":307,"forward_query":true,"title":"U"`},
		{`{"expires_at":null,"status":null,"forward_query":null,"title":null,"tags":[]}`, `"url":"https://example.com/"`},
		{`{"ttl":null,"status":302,"forward_query":false,"title":""}`, `"url":"https://example.com/","tags":["a"]`},
		{`{"expires_at":null,"ttl":null,"disabled":true}`, `"url":"https://example.com/","status":307,"forward_query":true,"title":"T","tags":["a"],"disabled":true`},
		{`{"expires_at":"2098-01-01T00:00:00Z","ttl":null}`, `"url":"https://example.com/","expires_at":"2098-01-01T00:00:00.000Z","status":307,"forward_query":true,"title":"T","tags":["a"]`},
	} {
		t.Run(tt.patch, func(t *testing.T) {
			c := wantCreated(t, b.create(with(options)))
			before := b.manage("GET", "/links/"+c.Code, "")
			a := b.manage("PATCH", "/links/"+c.Code, tt.patch)
			url, rest, _ := strings.Cut(tt.want, ",")
			want := fmt.Sprintf(`{"short_url":"%s","code":"%s",%s,"created_at":"%s"`, c.ShortURL, c.Code, url, c.CreatedAt.Format("2006-01-02T15:04:05.000Z07:00"))
			if rest != "" {
				want += "," + rest
			}
			if want += "}"; a.status != 200 || a.body != want {
				t.Errorf("answer %d %s, want %s", a.status, a.body, want)
			}
			after := b.manage("GET", "/links/"+c.Code, "")
			if after.body != want || etagOf(after) != etagOf(a) || (etagOf(after) == etagOf(before)) != (tt.patch == `{}`) {
				t.Errorf("read after it: %s %s; before it %s, in the answer %s", etagOf(after), after.body, etagOf(before), etagOf(a))
			}
		})
	}
}

func TestChangeRefuses(t *testing.T) {
	b := newBackend(t)
	code := wantCreated(t, b.create(with(`"max_visits":3`))).Code
	before := b.manage("GET", "/links/"+code, "")
	for _, tt := range []struct{ patch, problem string }{
		{``, "invalid_json"},
		{`[]`, "invalid_json"},
		{`{"code":"other"}`, "invalid_json"},
		{`{"disabled":1}`, "invalid_json"},
		{`{"url":null}`, "invalid_url"},
		{`{"url":""}`, "invalid_url"},
		{`{"url":"https://sno.example/x"}`, "invalid_url"},
		{`{"max_visits":0}`, "invalid_field"},
		{`{"ttl":60,"expires_at":"2099-01-01T00:00:00Z"}`, "invalid_field"},
		{`{"title":"good","status":200}`, "invalid_field"},
	} {
		wantProblem(t, b.manage("PATCH", "/links/"+code, tt.patch), 400, tt.problem)
	}
	if after := b.manage("GET", "/links/"+code, ""); after.body != before.body || etagOf(after) != etagOf(before) {
		t.Errorf("a change that was refused changed %s to %s", before.body, after.body)
	}
	wantProblem(t, b.manage("PATCH", "/links/unknown", `{}`), 404, "not_found")
}

func TestBan(t *testing.T) {
	b := newBackend(t)
	code := wantCreated(t, b.create(`{"url":"https://example.com/"}`)).Code
	wantShown(t, b.manage("PATCH", "/links/"+code, `{"disabled":true}`), 200)
	wantProblem(t, b.do("GET", "/"+code, ""), 410, "gone")
	if a := b.do("HEAD", "/"+code, ""); a.status != 410 {
		t.Errorf("HEAD = %d", a.status)
	}
	wantShown(t, b.manage("PATCH", "/links/"+code, `{"disabled":false}`), 200)
	if status, _ := b.follow(code); status != 302 {
		t.Errorf("enabled again = %d", status)
	}
}

func TestIfMatch(t *testing.T) {
	b := newBackend(t)
	code := wantCreated(t, b.create(`{"url":"https://example.com/"}`)).Code
	current := func() string { return etagOf(b.manage("GET", "/links/"+code, "")) }
	first := current()
	n := 0
	change := func(ifMatch ...string) answer {
		headers := make([]string, len(ifMatch))
		for i, tag := range ifMatch {
			headers[i] = "If-Match: " + tag
		}
		n++
		return b.manage("PATCH", "/links/"+code, fmt.Sprintf(`{"title":"%d"}`, n), headers...)
	}
	wantShown(t, change(first), 200)
	for _, tag := range []string{first, `"x"`, "W/" + current(), strings.Trim(current(), `"`), `""`} {
		before := current()
		wantProblem(t, change(tag), 412, "precondition_failed")
		if current() != before {
			t.Errorf("If-Match: %s changed the link", tag)
		}
	}
	wantProblem(t, b.manage("DELETE", "/links/"+code, "", "If-Match: "+first), 412, "precondition_failed")
	wantShown(t, change("*"), 200)
	wantShown(t, change(first+" , "+current()), 200)
	wantShown(t, change(first, current()), 200)
	if a := b.manage("DELETE", "/links/"+code, "", "If-Match: "+current()); a.status != 204 {
		t.Errorf("DELETE of the version that is = %d", a.status)
	}
}

// Of several changes of one version one wins, and the others are told.
func TestOfManyChangesOfOneVersionOneWins(t *testing.T) {
	b := newBackend(t)
	code := wantCreated(t, b.create(`{"url":"https://example.com/"}`)).Code
	version := etagOf(b.manage("GET", "/links/"+code, ""))
	const changers = 30
	var won, lost atomic.Int32
	var all sync.WaitGroup
	for i := range changers {
		all.Go(func() {
			a := b.manage("PATCH", "/links/"+code, fmt.Sprintf(`{"title":"%d"}`, i), "If-Match: "+version)
			switch a.status {
			case 200:
				won.Add(1)
			case 412:
				lost.Add(1)
			default:
				t.Errorf("answer %d %s", a.status, a.body)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 || lost.Load() != changers-1 {
		t.Errorf("of %d changes %d won and %d lost", changers, won.Load(), lost.Load())
	}
}

// Concurrent changes of different fields do not undo each other, whatever version they began with.
func TestNoChangeIsUndone(t *testing.T) {
	b := newBackend(t)
	for range 20 {
		code := wantCreated(t, b.create(`{"url":"https://example.com/"}`)).Code
		fields := []string{`"title":"T"`, `"status":307`, `"forward_query":true`, `"tags":["a"]`}
		statuses := make([]int, len(fields))
		var all sync.WaitGroup
		for i, field := range fields {
			all.Go(func() { statuses[i] = b.manage("PATCH", "/links/"+code, "{"+field+"}").status })
		}
		all.Wait()
		a := b.manage("GET", "/links/"+code, "")
		for i, field := range fields {
			if done := strings.Contains(a.body, field); done != (statuses[i] == 200) || statuses[i] != 200 && statuses[i] != 412 {
				t.Errorf("the change to %s was answered %d, and then the link is %s", field, statuses[i], a.body)
			}
		}
	}
}

func TestDelete(t *testing.T) {
	b := newBackend(t)
	minted := wantCreated(t, b.create(with(`"max_visits":5`))).Code
	own := wantCreated(t, b.create(with(`"code":"to-delete"`))).Code
	for _, code := range []string{minted, own} {
		for range 2 { // the second time as the first
			if a := b.manage("DELETE", "/links/"+code, ""); a.status != 204 || a.body != "" {
				t.Fatalf("DELETE = %d %q", a.status, a.body)
			}
		}
		wantProblem(t, b.do("GET", "/"+code, ""), 410, "gone")
		wantProblem(t, b.manage("GET", "/links/"+code, ""), 410, "gone")
		wantProblem(t, b.manage("PATCH", "/links/"+code, `{"disabled":false}`), 410, "gone")
		wantProblem(t, b.do("GET", "/"+code, ""), 410, "gone")
	}
	wantProblem(t, b.create(with(`"code":"to-delete"`)), 409, "code_taken")
	wantProblem(t, b.manage("DELETE", "/links/unknown", ""), 404, "not_found")
	if a := b.manage("GET", "/links", ""); !strings.HasPrefix(a.body, `{"links":[],`) {
		t.Errorf("the list has %s", a.body)
	}
}

func TestManagingDuringAnOutageIs503(t *testing.T) {
	b := newBackend(t)
	code := wantCreated(t, b.create(`{"url":"https://example.com/"}`)).Code
	b.redis.Kill()
	for _, r := range [][2]string{{"GET", "/links/" + code}, {"PATCH", "/links/" + code}, {"DELETE", "/links/" + code}, {"GET", "/links"}} {
		wantProblem(t, b.manage(r[0], r[1], `{"title":"x"}`), 503, "unavailable")
	}
	wantProblem(t, b.do("POST", "/links", with(`"code":"mine"`), "API-Key: "+key, "Idempotency-Key: k"), 503, "unavailable")
}

func TestIdempotencyKey(t *testing.T) {
	b := newBackend(t)
	again := func(idempotencyKey, body string) answer {
		return b.do("POST", "/links", body, "API-Key: "+key, "Idempotency-Key: "+idempotencyKey)
	}
	plain, own := `{"url":"https://example.com/"}`, with(`"code":"mine","ttl":3600,"title":"T"`)
	for _, body := range []string{plain, own} {
		k := fmt.Sprint("key ", len(body))
		first := again(k, body)
		code := wantCreated(t, first).Code
		same := func(when string) {
			t.Helper()
			if a := again(k, body); a.status != 201 || a.body != first.body || string(a.header.Peek("Location")) != string(first.header.Peek("Location")) {
				t.Errorf("%s: %d %s, the first answer was %s", when, a.status, a.body, first.body)
			}
		}
		same("at once")
		mint := b.mint
		b.mint = func() (snowflake.ID, error) { return 0, shorten.ErrNoNode }
		same("without a node ID")
		wantProblem(t, again("new "+k, plain), 503, "unavailable")
		b.mint = mint
		wantProblem(t, again(k, with(`"title":"other"`)), 422, "idempotency_mismatch")
		wantProblem(t, b.do("POST", "/generate_url", with(`"title":"other"`), "API-Key: "+key, "Idempotency-Key: "+k), 422, "idempotency_mismatch")
		wantShown(t, b.manage("PATCH", "/links/"+code, `{"title":"changed"}`), 200)
		same("after a change")
		b.manage("DELETE", "/links/"+code, "")
		same("after it was deleted")
		wantProblem(t, b.do("GET", "/"+code, ""), 410, "gone")
	}
	if a, z := wantCreated(t, again("a", plain)), wantCreated(t, again("z", plain)); a.Code == z.Code {
		t.Errorf("two creates under %s", a.Code)
	}
	for _, k := range []string{strings.Repeat("k", 256), "schlüssel"} {
		wantProblem(t, again(k, plain), 400, "invalid_field")
	}
	wantCreated(t, again(strings.Repeat("k", 255), plain))
}

// A create that failed frees its key.
func TestIdempotencyKeyOfAFailure(t *testing.T) {
	b := newBackend(t)
	again := func(body string) answer {
		return b.do("POST", "/links", body, "API-Key: "+key, "Idempotency-Key: k")
	}
	wantProblem(t, again(`{"url":"ftp://example.com/"}`), 400, "invalid_url")
	wantProblem(t, again(with(`"ttl":0`)), 400, "invalid_field")
	wantCreated(t, b.create(with(`"code":"taken"`)))
	wantProblem(t, again(with(`"code":"taken"`)), 409, "code_taken")
	wantProblem(t, again(with(`"code":"taken"`)), 409, "code_taken")
	wantCreated(t, again(with(`"code":"free-code"`)))
	wantProblem(t, again(with(`"code":"another"`)), 422, "idempotency_mismatch")
}

func TestIdempotencyKeyUnderConcurrency(t *testing.T) {
	b := newBackend(t)
	for _, body := range []string{`{"url":"https://example.com/"}`, with(`"code":"mine","ttl":60`)} {
		const tries = 50
		answers := make([]answer, tries)
		var all sync.WaitGroup
		for i := range tries {
			all.Go(func() {
				answers[i] = b.do("POST", "/links", body, "API-Key: "+key, fmt.Sprint("Idempotency-Key: ", len(body)))
			})
		}
		all.Wait()
		for _, a := range answers {
			if a.status != 201 || a.body != answers[0].body {
				t.Fatalf("answers %d %s and %d %s", answers[0].status, answers[0].body, a.status, a.body)
			}
		}
	}
}

// After a create whose answer was lost with Redis, the same key and body finish it under the code
// that was chosen then.
func TestIdempotencyKeySurvivesAnOutage(t *testing.T) {
	b := newBackend(t)
	b.store.refuses = true
	const body = `{"url":"https://example.com/","code":"mine","expires_at":"2099-01-01T00:00:00Z"}`
	again := func() answer {
		return b.do("POST", "/links", body, "API-Key: "+key, "Idempotency-Key: k")
	}
	wantProblem(t, again(), 503, "unavailable")
	before := time.Now()
	b.store.refuses = false
	fleettest.Eventually(t, 20*time.Second, "a later millisecond", func() bool { return time.Since(before) > 5*time.Millisecond })
	if c := wantCreated(t, again()); c.CreatedAt.After(before) {
		t.Errorf("created_at %s is not that of the first try, before %s", c.CreatedAt, before)
	}
}

// A code whose link was evicted and that an import took since is a stranger's. A repeat does not
// pass it off as the first answer. If the import restored the link as it was, or the link was
// changed, it is ours.
func TestIdempotencyKeyAndAStrangersLink(t *testing.T) {
	b := newBackend(t)
	client := fleettest.RedisClient(t, b.redis.Addr)
	for i, tt := range []struct {
		name string
		then func(t *testing.T, code string)
		want int
	}{
		{"another link imported", func(t *testing.T, code string) {
			client.Del(t.Context(), "link:"+code)
			b.imported("", `{"url":"https://example.org/stranger","code":"`+code+`"}`)
		}, 409},
		{"imported as it was", func(t *testing.T, code string) {
			client.Del(t.Context(), "link:"+code)
			b.imported("", `{"url":"https://example.com/","code":"`+code+`"}`)
		}, 201},
		{"evicted", func(t *testing.T, code string) { client.Del(t.Context(), "link:"+code) }, 201},
		{"changed", func(t *testing.T, code string) {
			b.manage("PATCH", "/links/"+code, `{"url":"https://example.org/new","title":"T"}`)
		}, 201},
		{"changed to another and back", func(t *testing.T, code string) {
			b.manage("PATCH", "/links/"+code, `{"title":"T"}`)
			b.manage("PATCH", "/links/"+code, `{"title":null}`)
		}, 201},
		{"deleted", func(t *testing.T, code string) { b.manage("DELETE", "/links/"+code, "") }, 201},
	} {
		t.Run(tt.name, func(t *testing.T) {
			again := func() answer {
				return b.do("POST", "/links", `{"url":"https://example.com/"}`, "API-Key: "+key, fmt.Sprint("Idempotency-Key: ", i))
			}
			first := again()
			code := wantCreated(t, first).Code
			tt.then(t, code)
			if a := again(); a.status != tt.want || tt.want == 201 && a.body != first.body {
				t.Errorf("again = %d %s, want %d; the first answer was %s", a.status, a.body, tt.want, first.body)
			}
		})
	}
}

// Redis becomes full after a link was stored and before the journal of its owner has it. The
// promise stays, and the repeat gets the first answer when there is room again.
func TestIdempotencyKeySurvivesAFullJournal(t *testing.T) {
	for name, body := range map[string]string{"chosen": with(`"code":"mine","title":"T"`), "minted": `{"url":"https://example.com/"}`} {
		t.Run(name, func(t *testing.T) {
			var client *redis.Client
			stored := func() []string { return client.Keys(t.Context(), "link:*").Val() }
			b := newBackendVia(t, func(addr string) string {
				client = fleettest.RedisClient(t, addr)
				return fleettest.Proxy(t, addr, fleettest.FullBefore(t, addr, "xadd", func() bool { return len(stored()) > 0 }))
			})
			again := func() answer { return b.do("POST", "/links", body, "API-Key: "+key, "Idempotency-Key: k") }
			wantProblem(t, again(), 503, "unavailable")
			links := stored()
			if len(links) != 1 {
				t.Fatalf("Redis has %v", links)
			}
			wantProblem(t, again(), 507, "storage_full") // Redis takes nothing, and forgets nothing
			if err := client.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
				t.Fatal(err)
			}
			if c := wantCreated(t, again()); "link:"+c.Code != links[0] || len(stored()) != 1 {
				t.Errorf("again: %s, Redis has %v, had %v", c.Code, stored(), links)
			}
		})
	}
}
