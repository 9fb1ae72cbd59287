package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"snowlink/internal/clicks"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/httpapi"
	"snowlink/internal/link"
	"snowlink/internal/stats"
)

// visits keeps copies of what it is told.
type visits struct {
	mu     sync.Mutex
	clicks []clicks.Click
	missed []string
}

func (v *visits) Record(c clicks.Click) {
	for _, b := range []*[]byte{&c.Address, &c.UserAgent, &c.Referrer, &c.Query, &c.Purpose, &c.Country} {
		*b = bytes.Clone(*b)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clicks = append(v.clicks, c)
}

func (v *visits) Miss(code string, _ time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.missed = append(v.missed, code)
}

// take returns what came since the last call.
func (v *visits) take() (recorded []clicks.Click, missed []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	recorded, missed, v.clicks, v.missed = v.clicks, v.missed, nil, nil
	return recorded, missed
}

// fakeStats answers from what a test gives it, and keeps what it was asked.
type fakeStats struct {
	stats.Store
	away func() bool

	mu      sync.Mutex
	asked   []stats.Question
	answers []stats.Answer // in the order in which they are given
	top     []stats.LinkClicks
	forgot  []string
	err     error
}

func (f *fakeStats) fails() error {
	if f.away() {
		return fmt.Errorf("fake: %w", link.ErrUnavailable)
	}
	return f.err
}

func (f *fakeStats) Ask(_ context.Context, q stats.Question) (a stats.Answer, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, q)
	if a.Visitors = -1; len(f.answers) > 0 {
		a, f.answers = f.answers[0], f.answers[1:]
	}
	return a, f.fails()
}

func (f *fakeStats) Top(_ context.Context, s stats.Scope, from, to time.Time, bots stats.Bots, n int) ([]stats.LinkClicks, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, stats.Question{Scope: s, From: from, To: to, Bots: bots, Most: n})
	return f.top, f.fails()
}

func (f *fakeStats) Misses(ctx context.Context, from, to time.Time, n int) ([]stats.LinkClicks, error) {
	return f.Top(ctx, stats.Scope{}, from, to, 0, n)
}

func (f *fakeStats) Totals(_ context.Context, codes []string) ([]int64, error) {
	totals := make([]int64, len(codes))
	for i := range codes {
		totals[i] = int64(i)
	}
	return totals, f.fails()
}

func (f *fakeStats) Forget(_ context.Context, code string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgot = append(f.forgot, code)
	return f.fails()
}

func (f *fakeStats) Since(now time.Time) (hours, days time.Time) {
	return now.Add(-2160 * time.Hour).UTC().Truncate(time.Hour), time.Time{}
}

// last returns what was asked last.
func (f *fakeStats) last() stats.Question {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[len(f.asked)-1]
}

// fakeFeed tells whoever subscribes what a test tells it.
type fakeFeed struct {
	mu          sync.Mutex
	subscribers []func(clicks.Count)
	ended       int
}

func (f *fakeFeed) Publish(_ context.Context, batches []clicks.Batch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range batches {
		for _, c := range b.Counts {
			for _, hear := range f.subscribers {
				hear(c)
			}
		}
	}
}

func (f *fakeFeed) Subscribe(ctx context.Context, hear func(clicks.Count)) {
	f.mu.Lock()
	f.subscribers = append(f.subscribers, hear)
	f.mu.Unlock()
	<-ctx.Done()
	f.mu.Lock()
	f.subscribers = nil
	f.ended++
	f.mu.Unlock()
}

// heard says how many subscribe now, and how many have ceased to.
func (f *fakeFeed) heard() (now, ended int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.subscribers), f.ended
}

var browser = []string{
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Referer: https://example.org/page?a=b",
	"X-Forwarded-For: 203.0.113.7", "Sec-Purpose: prefetch", "CF-IPCountry: DE",
}

func TestVisitsAreRecorded(t *testing.T) {
	b := newBackend(t)
	b.keys.SetNamed(parseKeys(t, keyLine("shop", "shop-key", "scopes=create")))
	for _, status := range []string{"", `"status":301`, `"status":302`, `"status":307`, `"status":308`, `"max_visits":5`} {
		body := anyBody
		if status != "" {
			body = with(status + `,"tags":["a","b"]`)
		}
		code := wantCreated(t, b.do("POST", "/links", body, "API-Key: shop-key")).Code
		before := time.Now()
		if a := b.contractless("GET", "/"+code+"?utm_source=mail", browser...); a.status < 301 || a.status > 308 {
			t.Fatalf("%s: answer %d", status, a.status)
		}
		recorded, _ := b.visits.take()
		if len(recorded) != 1 {
			t.Fatalf("%s: %d visits were recorded", status, len(recorded))
		}
		got := recorded[0]
		if got.Code != code || got.Link.OwnerName() != "shop" || status != "" && !slices.Equal(got.Link.Tags, []string{"a", "b"}) || got.At.Sub(before).Abs() > 10*time.Second {
			t.Errorf("%s: recorded %+v", status, got)
		}
		for name, pair := range map[string][2]string{
			"address": {string(got.Address), "203.0.113.7"}, "user agent": {string(got.UserAgent), strings.TrimPrefix(browser[0], "User-Agent: ")},
			"referrer": {string(got.Referrer), "https://example.org/page?a=b"}, "query": {string(got.Query), "utm_source=mail"},
			"purpose": {string(got.Purpose), "prefetch"}, "country": {string(got.Country), "DE"},
		} {
			if pair[0] != pair[1] {
				t.Errorf("%s: the %s is %q, want %q", status, name, pair[0], pair[1])
			}
		}
	}
}

// contractless is do without the contract: it says nothing of the headers that every browser sends.
func (b *backend) contractless(method, uri string, headers ...string) answer {
	return b.raw(method + " " + uri + " HTTP/1.1\r\nHost: a\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n")
}

func TestOtherRequestsAreNoVisits(t *testing.T) {
	b := newBackend(t)
	code := wantCreated(t, b.create(with(`"forward_query":true`))).Code
	used := wantCreated(t, b.create(with(`"max_visits":1`))).Code
	disabled := wantCreated(t, b.create(anyBody)).Code
	b.manage("PATCH", "/links/"+disabled, `{"disabled":true}`)
	b.do("GET", "/"+used, "")
	b.visits.take()
	for _, tt := range []struct {
		method, path string
		status       int
	}{
		{"HEAD", "/" + code, 302},
		{"GET", "/" + code + "+", 200},
		{"GET", "/" + code + "/qr", 200},
		{"GET", "/links/" + code, 401},
		{"GET", "/" + used, 410},
		{"GET", "/" + disabled, 410},
		{"GET", "/" + code + "?" + strings.Repeat("a", 4090), 414},
		{"GET", "/no.code", 404},
		{"HEAD", "/never-made", 404},
		{"GET", "/never-made+", 404},
	} {
		if a := b.do(tt.method, tt.path, ""); a.status != tt.status {
			t.Errorf("%s %.20s = %d, want %d", tt.method, tt.path, a.status, tt.status)
		}
	}
	if recorded, missed := b.visits.take(); len(recorded)+len(missed) > 0 {
		t.Errorf("recorded: %+v; missed: %q", recorded, missed)
	}
	for range 2 {
		b.do("GET", "/never-made", "")
	}
	if recorded, missed := b.visits.take(); len(recorded) > 0 || !slices.Equal(missed, []string{"never-made", "never-made"}) {
		t.Errorf("recorded: %+v; missed: %q", recorded, missed)
	}
	b.redis.Kill()
	wantProblem(t, b.do("GET", "/other", ""), 503, "unavailable")
	if _, missed := b.visits.take(); len(missed) > 0 {
		t.Errorf("missed in an outage: %q", missed)
	}
}

// elsewhere is a listener whose connections come from another address.
type elsewhere struct {
	net.Listener
	from net.Addr
}

func (l elsewhere) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return connFrom{conn, l.from}, err
}

type connFrom struct {
	net.Conn
	from net.Addr
}

func (c connFrom) RemoteAddr() net.Addr { return c.from }

// X-Forwarded-For counts only if a proxy of ours may have set it, and of several addresses only the one
// that this proxy has seen.
func TestAddressOfAVisitor(t *testing.T) {
	b := newBackend(t)
	code := wantCreated(t, b.create(anyBody)).Code
	for _, tt := range []struct{ peer, forwarded, want string }{
		{"127.0.0.1", "", "127.0.0.1"},
		{"127.0.0.1", "203.0.113.7", "203.0.113.7"},
		{"::1", "2001:db8::7", "2001:db8::7"},
		{"10.203.113.5", "198.51.100.1, 203.0.113.7", "203.0.113.7"},
		{"::ffff:192.168.0.5", "203.0.113.7", "203.0.113.7"},
		{"fd00::5", "203.0.113.7", "203.0.113.7"},
		{"fe80::5", "203.0.113.7", "203.0.113.7"},
		{"198.51.100.1", "203.0.113.7", "198.51.100.1"},
		{"::ffff:198.51.100.1", "203.0.113.7", "198.51.100.1"},
		{"2001:db8::1", "203.0.113.7", "2001:db8::1"},
		{"2001:db8::1", "", "2001:db8::1"},
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := b.api.Server()
		go srv.Serve(httpapi.RefusalListener(elsewhere{listener, &net.TCPAddr{IP: net.ParseIP(tt.peer), Port: 4711}}))
		request, err := http.NewRequest("GET", "http://"+listener.Addr().String()+"/"+code, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tt.forwarded != "" {
			request.Header.Set("X-Forwarded-For", tt.forwarded)
		}
		resp, err := http.DefaultTransport.RoundTrip(request)
		if err != nil || resp.StatusCode != 302 {
			t.Fatal(resp, err)
		}
		resp.Body.Close()
		srv.Shutdown()
		if recorded, _ := b.visits.take(); len(recorded) != 1 || string(recorded[0].Address) != tt.want {
			t.Errorf("from %s for %q: recorded %+v, want %s", tt.peer, tt.forwarded, recorded, tt.want)
		}
	}
}

// The query of a QR code is for us. Any other is the target's, if the link forwards it.
func TestQueryOfAQRCodeIsNotForwarded(t *testing.T) {
	b := newBackend(t)
	code := wantCreated(t, b.create(`{"url":"https://example.com/a?x=1","forward_query":true}`)).Code
	for query, want := range map[string]string{
		"?qr": "", "?qr=": "&qr=", "?qr&a": "&qr&a", "?QR": "&QR", "?a": "&a",
	} {
		if _, target := b.follow(code + query); target != "https://example.com/a?x=1"+want {
			t.Errorf("%s leads to %s", query, target)
		}
	}
	recorded, _ := b.visits.take()
	if !slices.ContainsFunc(recorded, func(c clicks.Click) bool { return string(c.Query) == "qr" }) {
		t.Errorf("recorded %+v, and no scan", recorded)
	}
}

func TestQuestionsAboutClicks(t *testing.T) {
	b := newBackend(t)
	code := wantCreated(t, b.create(anyBody)).Code
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	hour := func(text string) time.Time {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return at.UTC()
	}
	from, to := hour("2026-11-01T00:00:00Z"), hour("2026-11-03T00:00:00Z")
	const days = "from=2026-11-01&to=2026-11-03"
	mine := stats.Scope{Owner: "default"}
	for _, tt := range []struct {
		path string
		want stats.Question
	}{
		{"/clicks?" + days, stats.Question{Scope: mine, From: from, To: to, Unit: stats.Hour}},
		{"/links/" + code + "/clicks?" + days, stats.Question{Scope: stats.Scope{Code: code}, From: from, To: to, Unit: stats.Hour}},
		{"/clicks?owner=shop&tag=mail&unit=day&" + days, stats.Question{Scope: stats.Scope{Owner: "shop", Tag: "mail"}, From: from, To: to, Unit: stats.Day}},
		{"/clicks?owner=*&tag=mail&unit=whole&" + days, stats.Question{Scope: stats.Scope{Tag: "mail"}, From: from, To: to}},
		{"/clicks?owner=*&unit=week&" + days, stats.Question{From: from, To: to, Unit: stats.Week}},
		{"/clicks?by=country,device&limit=7&" + days, stats.Question{Scope: mine, From: from, To: to, By: []clicks.Dimension{clicks.Country, clicks.Device}, Most: 7}},
		{"/clicks?by=country&unit=month&bots=include&" + days, stats.Question{Scope: mine, From: from, To: to, Unit: stats.Month, By: []clicks.Dimension{clicks.Country}, Bots: stats.WithBots}},
		{"/clicks?by=bot&" + days, stats.Question{Scope: mine, From: from, To: to, By: []clicks.Dimension{clicks.Bot}, Bots: stats.WithBots}},
		{"/clicks?bot=crawler,prefetch&bots=only&" + days, stats.Question{Scope: mine, From: from, To: to, Unit: stats.Hour, Bots: stats.OnlyBots, Where: map[clicks.Dimension][]string{clicks.Bot: {"crawler", "prefetch"}}}},
		{"/clicks?country=DE,AT,&utm_source=a%20b&" + days, stats.Question{Scope: mine, From: from, To: to, Unit: stats.Hour, Where: map[clicks.Dimension][]string{clicks.Country: {"DE", "AT", ""}, clicks.Source: {"a b"}}}},
		{"/clicks?tz=Europe/Berlin&" + days, stats.Question{Scope: mine, From: from.Add(-time.Hour), To: to.Add(-time.Hour), Unit: stats.Hour, Zone: berlin}},
		// A time is taken with the hours that it begins and ends in.
		{"/clicks?from=2026-11-01T00:59:59Z&to=2026-11-02T23:00:01Z", stats.Question{Scope: mine, From: from, To: to, Unit: stats.Hour}},
		{"/clicks?from=2026-11-01T02:00:00%2B02:00&to=2026-11-03T00:00:00Z", stats.Question{Scope: mine, From: from, To: to, Unit: stats.Hour}},
		// In India a day begins in the middle of an hour: it counts from the next.
		{"/clicks?tz=Asia/Kolkata&" + days, stats.Question{Scope: mine, From: hour("2026-10-31T19:00:00Z"), To: hour("2026-11-02T19:00:00Z"), Unit: stats.Hour}},
		{"/clicks?from=2026-08-01&to=2026-11-03", stats.Question{Scope: mine, From: hour("2026-08-01T00:00:00Z"), To: to, Unit: stats.Day}},
		{"/clicks?from=2025-08-01&to=2026-11-03", stats.Question{Scope: mine, From: hour("2025-08-01T00:00:00Z"), To: to, Unit: stats.Month}},
		{"/clicks/top?bots=include&" + days, stats.Question{Scope: mine, From: from, To: to, Bots: stats.WithBots}},
		{"/clicks/misses?limit=1000&" + days, stats.Question{From: from, To: to, Most: 1000}},
	} {
		if a := b.manage("GET", tt.path, ""); a.status != 200 {
			t.Errorf("%s: answer %d %s", tt.path, a.status, a.body)
			continue
		}
		if tt.want.Most == 0 {
			tt.want.Most = 100
		}
		got := b.stats.last()
		if tt.want.Zone == nil {
			got.Zone = nil
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s asked %+v\nwant %+v", tt.path, got, tt.want)
		}
	}

	// Without a time, today and the 29 days before it.
	b.manage("GET", "/clicks?tz=Pacific/Auckland", "")
	q := b.stats.last()
	if wait := time.Until(q.To); wait < 0 || wait > time.Hour || q.From.In(q.Zone).Hour() != 0 || q.Unit != stats.Day {
		t.Errorf("by default: %s to %s by %d", q.From.In(q.Zone), q.To, q.Unit)
	}
	if n := q.To.Sub(q.From); n < 29*24*time.Hour-2*time.Hour || n > 30*24*time.Hour+2*time.Hour {
		t.Errorf("by default: %s", n)
	}
}

func TestQuestionsAboutClicksThatAreWrong(t *testing.T) {
	b := newBackend(t)
	const days = "from=2026-11-01&to=2026-11-03&"
	many := strings.Repeat("a,", 20)
	for query, want := range map[string]string{
		"unit=year":                              `"unit" must be hour, day, week, month or whole`,
		"tz=Mars/Olympus":                        `"tz" must be the name of a time zone`,
		"tz=":                                    `"tz" must be`,
		"tz=Local":                               `"tz" must be`,
		"tz=../../etc/passwd":                    `"tz" must be`,
		"from=yesterday":                         `"from" must be a date`,
		"to=2026-13-01":                          `"to" must be a date`,
		"from=2026-11-03&to=2026-11-03":          `"to" must be later than "from"`,
		"from=2010-01-01&to=2026-11-03":          `"from" must be within 10 years`,
		"by=planet":                              `"by" must be up to 3 different ones of country, referrer,`,
		"by=country,country":                     `"by" must be`,
		"by=country,os,device,browser":           `"by" must be`,
		"by=":                                    `"by" must be`,
		"bots=exclude":                           `"bots" must be include or only`,
		"compare=next":                           `"compare" must be previous`,
		"limit=0":                                `"limit" must be from 1 to 1,000`,
		"limit=1001":                             `"limit" must be from 1 to 1,000`,
		"owner=a%20b":                            `"owner" must be`,
		"tag=a,b":                                `"tag" must have`,
		"country=" + many:                        `"country" must have one to 20 values`,
		"utm_source=" + strings.Repeat("a", 101): `"utm_source" must have`,
		"colour=red":                             `"colour" is not known`,
		"code=abc":                               `"code" is not known`,
		days + "unit=hour&by=os&limit=1000":      `more than 20,000 rows`,
	} {
		if detail := wantProblem(t, b.manage("GET", "/clicks?"+query, ""), 400, "invalid_field"); !strings.Contains(detail, want) {
			t.Errorf("%s: %s", query, detail)
		}
	}
	for path, want := range map[string]string{
		"/clicks/top?unit=day": `"unit" is not known`, "/clicks/top?country=DE": `"country" is not known`, "/clicks/top?limit=x": `"limit" must be`,
		"/clicks/misses?owner=shop": `"owner" is not known`, "/clicks/live?from=2026-11-01": `"from" is not known`,
		"/links/abc/clicks?owner=shop": `"owner" is not known`, "/links?with=visitors": `"with" must be clicks`,
	} {
		if detail := wantProblem(t, b.manage("GET", path, ""), 400, "invalid_field"); !strings.Contains(detail, want) {
			t.Errorf("%s: %s", path, detail)
		}
	}
	b.stats.err = stats.ErrTooFine
	if detail := wantProblem(t, b.manage("GET", "/clicks", ""), 400, "invalid_field"); !strings.Contains(detail, "are kept since 20") {
		t.Errorf("too fine: %s", detail)
	}
}

func TestAnswersAboutClicks(t *testing.T) {
	b := newBackend(t)
	day := func(d int) time.Time { return time.Date(2026, 11, d, 0, 0, 0, 0, time.UTC) }
	answer := stats.Answer{Clicks: 5, Visitors: 3, Rows: []stats.Row{
		{Start: day(1), Values: []string{"=DE"}, Clicks: 4, Visitors: 2}, {Start: day(2), Values: []string{""}, Clicks: 1, Visitors: -1},
	}}
	before := stats.Answer{Clicks: 1, Visitors: -1, Rows: []stats.Row{{Start: day(1).AddDate(0, 0, -1), Values: []string{"FR"}, Clicks: 1, Visitors: -1}}}
	hours, _ := b.stats.Since(time.Now())
	since := hours.Format(time.RFC3339)

	b.stats.answers = []stats.Answer{answer, before}
	a := b.manage("GET", "/clicks?from=2026-11-01&to=2026-11-03&unit=day&by=country&compare=previous", "")
	want := `{"from":"2026-11-01T00:00:00Z","to":"2026-11-03T00:00:00Z","time_zone":"UTC","unit":"day","clicks":5,"visitors":3,"rows":[` +
		`{"start":"2026-11-01T00:00:00Z","country":"=DE","clicks":4,"visitors":2},{"start":"2026-11-02T00:00:00Z","country":"","clicks":1}],` +
		`"previous":{"from":"2026-10-30T00:00:00Z","to":"2026-11-01T00:00:00Z","clicks":1,"rows":[{"start":"2026-10-31T00:00:00Z","country":"FR","clicks":1}]},` +
		`"since":{"hours":"` + since + `"}}`
	if a.status != 200 || a.body != want || string(a.header.Peek("Cache-Control")) != "no-store" {
		t.Errorf("answer %d %s\nwant %s", a.status, a.body, want)
	}
	if got := b.stats.last(); !got.From.Equal(day(1).AddDate(0, 0, -2)) || !got.To.Equal(day(1)) {
		t.Errorf("compared with %s to %s", got.From, got.To)
	}

	for _, tt := range []struct{ query, want string }{
		{"&unit=day&by=country", "start,country,clicks,visitors\r\n2026-11-01T00:00:00Z,'=DE,4,2\r\n2026-11-02T00:00:00Z,,1,\r\n"},
		{"&unit=day&by=country&compare=previous", "period,start,country,clicks,visitors\r\nprevious,2026-10-31T00:00:00Z,FR,1,\r\n" +
			"current,2026-11-01T00:00:00Z,'=DE,4,2\r\ncurrent,2026-11-02T00:00:00Z,,1,\r\n"},
		{"&by=country", "start,country,clicks,visitors\r\n2026-11-01T00:00:00Z,'=DE,4,2\r\n2026-11-01T00:00:00Z,,1,\r\n"},
	} {
		b.stats.answers = []stats.Answer{answer, before}
		a := b.manage("GET", "/clicks?from=2026-11-01&to=2026-11-03"+tt.query, "", "Accept: text/csv")
		if a.status != 200 || a.body != tt.want {
			t.Errorf("%s: answer %d %q\nwant %q", tt.query, a.status, a.body, tt.want)
		}
	}

	b.stats.top = []stats.LinkClicks{{Code: "-abc", Clicks: 7}, {Code: "b", Clicks: 1}}
	const at = `{"from":"2026-11-01T00:00:00+01:00","to":"2026-11-03T00:00:00+01:00",`
	for path, want := range map[string]string{
		"/clicks/top":    at + `"links":[{"short_url":"` + baseURL + `/-abc","code":"-abc","clicks":7},{"short_url":"` + baseURL + `/b","code":"b","clicks":1}],"since":{"hours":"` + since + `"}}`,
		"/clicks/misses": at + `"misses":[{"code":"-abc","clicks":7},{"code":"b","clicks":1}],"since":{"hours":"` + since + `"}}`,
	} {
		path += "?from=2026-11-01&to=2026-11-03&tz=Europe/Berlin"
		if a := b.manage("GET", path, ""); a.status != 200 || a.body != want {
			t.Errorf("%s: answer %d %s\nwant %s", path, a.status, a.body, want)
		}
		if a := b.manage("GET", path, "", "Accept: text/csv"); a.body != "code,clicks\r\n'-abc,7\r\nb,1\r\n" {
			t.Errorf("%s: answer %d %q", path, a.status, a.body)
		}
	}
}

// An answer that is long needs as much of the memory that is set aside as it has bytes.
func TestLongAnswerAboutClicks(t *testing.T) {
	b := newBackend(t)
	rows := make([]stats.Row, 20_000)
	for i := range rows {
		rows[i] = stats.Row{Values: []string{strings.Repeat("é", 50)}, Clicks: 1, Visitors: -1}
	}
	b.stats.answers = []stats.Answer{{Rows: rows, Visitors: -1}}
	a := b.manage("GET", "/clicks?by=utm_source&limit=1000", "", "Accept: text/csv")
	if got, err := csv.NewReader(strings.NewReader(a.body)).ReadAll(); err != nil || len(got) != len(rows)+1 {
		t.Errorf("%d rows, %v", len(got), err)
	}
	b.held(0)
}

func TestClicksAreTheOwners(t *testing.T) {
	b := newBackend(t)
	b.keys.SetNamed(parseKeys(t,
		keyLine("shop", "shop", "scopes=create,read,manage"), keyLine("blog", "blog", "scopes=create,read,manage"),
		keyLine("audit", "audit", "scopes=read,admin"), keyLine("ops", "ops", "scopes=manage,read,admin"),
	))
	code := wantCreated(t, b.createAs("shop")).Code
	path := "/links/" + code + "/clicks"
	get := func(secret, path string) answer { return b.do("GET", path, "", "API-Key: "+secret) }
	for _, deleted := range []bool{false, true} {
		for _, secret := range []string{"shop", "audit", "ops"} {
			if a := get(secret, path); a.status != 200 {
				t.Errorf("%s, deleted %t: answer %d %s", secret, deleted, a.status, a.body)
			}
		}
		wantProblem(t, get("blog", path), 403, "forbidden")
		wantProblem(t, get("blog", "/clicks/live?code="+code), 403, "forbidden")
		b.do("DELETE", "/links/"+code, "", "API-Key: shop")
	}
	for _, path := range []string{"/clicks?owner=shop", "/clicks?owner=*", "/clicks/top?owner=shop", "/clicks/live?owner=shop", "/clicks/misses"} {
		wantProblem(t, get("blog", path), 403, "forbidden")
	}
	for secret, want := range map[string]stats.Scope{"shop": {Owner: "shop"}, "audit": {Owner: "audit"}} {
		if get(secret, "/clicks"); b.stats.last().Scope != want {
			t.Errorf("%s asked about %+v", secret, b.stats.last().Scope)
		}
	}
	// The code may have been another owner's before.
	made := time.Now().Truncate(time.Hour)
	for secret, want := range map[string]time.Time{"shop": made, "ops": time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if get(secret, path+"?from=2020-01-01&unit=month"); !b.stats.last().From.Equal(want) {
			t.Errorf("%s asked from %s on, want %s", secret, b.stats.last().From, want)
		}
	}
	if a := get("shop", path+"?from=2020-01-01&to=2020-02-01&compare=previous"); a.status != 200 || !strings.Contains(a.body, `"clicks":0`) {
		t.Errorf("before the link was made: %d %s", a.status, a.body)
	}
	wantProblem(t, get("ops", "/links/never-made/clicks"), 404, "not_found")
	wantProblem(t, get("ops", "/links/no.code/clicks"), 404, "not_found")

	forget := func(secret, code string) answer {
		return b.do("DELETE", "/links/"+code+"/clicks", "", "API-Key: "+secret)
	}
	wantProblem(t, forget("blog", code), 403, "forbidden")
	wantProblem(t, forget("audit", code), 403, "forbidden")
	wantProblem(t, forget("shop", "never-made"), 404, "not_found")
	wantProblem(t, forget("ops", "no.code"), 404, "not_found")
	if a := forget("shop", code); a.status != 204 || a.body != "" {
		t.Errorf("forget: %d %s", a.status, a.body)
	}
	if a := forget("ops", "never-made"); a.status != 204 { // the link may be long gone, and its numbers not
		t.Errorf("forget what has no link: %d %s", a.status, a.body)
	}
	if !slices.Equal(b.stats.forgot, []string{code, "never-made"}) {
		t.Errorf("forgot %q", b.stats.forgot)
	}
}

func TestListWithClicks(t *testing.T) {
	b := newBackend(t)
	b.create(anyBody)
	second := wantCreated(t, b.create(anyBody)).Code
	a := b.manage("GET", "/links?with=clicks", "")
	var page struct {
		Links []struct {
			Code   string
			Clicks *int64
		}
	}
	if decode(t, a.body, &page); len(page.Links) != 2 || page.Links[0].Code != second || *page.Links[0].Clicks != 0 || *page.Links[1].Clicks != 1 {
		t.Errorf("answer %s", a.body)
	}
	if a := b.manage("GET", "/links", ""); strings.Contains(a.body, "clicks") {
		t.Errorf("not asked for: %s", a.body)
	}
	b.stats.err = link.ErrUnavailable
	if detail := wantProblem(t, b.manage("GET", "/links?with=clicks", ""), 503, "unavailable"); !strings.Contains(detail, "clicks") {
		t.Errorf("detail %q", detail)
	}
}

func TestClicksOff(t *testing.T) {
	b := newBackendWith(t, func(addr string) string { return addr }, func(c *httpapi.Config) { c.Clicks, c.Stats, c.Feed = nil, nil, nil })
	code := wantCreated(t, b.create(anyBody)).Code
	if status, _ := b.follow(code); status != 302 {
		t.Errorf("GET = %d", status)
	}
	b.follow("never-made")
	for _, path := range []string{"/clicks", "/clicks/top", "/clicks/misses", "/clicks/live", "/links/" + code + "/clicks", "/links?with=clicks"} {
		if detail := wantProblem(t, b.manage("GET", path, ""), 404, "clicks_off"); !strings.Contains(detail, "CLICKS=off") {
			t.Errorf("%s: %s", path, detail)
		}
	}
	wantProblem(t, b.manage("DELETE", "/links/"+code+"/clicks", ""), 404, "clicks_off")
}

// watch asks for live clicks and returns what comes, line by line, until the answer has ended.
func (b *backend) watch(query string) (lines <-chan string, hangUp func()) {
	b.t.Helper()
	conn, err := b.client.Dial("backend")
	if err != nil {
		b.t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /clicks/live%s HTTP/1.1\r\nHost: a\r\nAPI-Key: %s\r\n\r\n", query, key)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("X-Accel-Buffering") != "no" {
		body, _ := io.ReadAll(resp.Body)
		b.t.Fatalf("answer %s %v %s", resp.Status, resp.Header, body)
	}
	came := make(chan string, 1000)
	go func() {
		defer close(came)
		for scanner := bufio.NewScanner(resp.Body); scanner.Scan(); {
			came <- scanner.Text()
		}
	}()
	return came, func() { conn.Close() }
}

func TestLiveClicks(t *testing.T) {
	b := newBackend(t)
	code := wantCreated(t, b.create(anyBody)).Code
	all, hangUp := b.watch("?owner=*")
	mine, _ := b.watch("")
	one, _ := b.watch("?code=" + code)
	fleettest.Eventually(t, 5*time.Second, "one subscription for all viewers", func() bool { now, _ := b.feed.heard(); return now == 1 })
	b.held(3)
	b.feed.Publish(t.Context(), []clicks.Batch{{Counts: []clicks.Count{
		{Code: code, Owner: "default", Clicks: 3, Bots: 1}, {Code: code, Owner: "default", Clicks: 2},
		{Code: "other", Owner: "default", Clicks: 9}, {Code: "third", Owner: "shop", Clicks: 1},
	}}})
	data := func(lines <-chan string) string {
		t.Helper()
		for {
			select {
			case line, ok := <-lines:
				if !ok {
					t.Fatal("the answer has ended")
				}
				if text, ok := strings.CutPrefix(line, "data: "); ok {
					return text
				}
			case <-time.After(10 * time.Second):
				t.Fatal("nothing comes")
			}
		}
	}
	type event struct {
		At           time.Time
		Clicks, Bots int64
		Links        []struct {
			Code   string
			Clicks int64
		}
	}
	for name, tt := range map[string]struct {
		lines <-chan string
		want  string
	}{
		"all":  {all, "15 1 [{other 9} {" + code + " 6} {third 1}]"},
		"mine": {mine, "14 1 [{other 9} {" + code + " 6}]"},
		"one":  {one, "5 1 [{" + code + " 6}]"},
	} {
		var e event
		decode(t, data(tt.lines), &e)
		if got := fmt.Sprint(e.Clicks, " ", e.Bots, " ", e.Links); got != tt.want || time.Since(e.At).Abs() > time.Minute {
			t.Errorf("%s: %s at %s, want %s", name, got, e.At, tt.want)
		}
	}

	// A client that goes is noticed, and a backend that stops ends the others.
	hangUp()
	b.held(2)
	b.api.Drain()
	for _, lines := range []<-chan string{mine, one} {
		for range lines { // until it ends
		}
	}
	b.held(0)
	fleettest.Eventually(t, 5*time.Second, "nobody subscribes", func() bool { now, ended := b.feed.heard(); return now == 0 && ended == 1 })
}

// One key may watch so often, and no more.
func TestLiveViewsAreBounded(t *testing.T) {
	b := newBackend(t)
	var hangUps []func()
	for range 16 {
		_, hangUp := b.watch("")
		hangUps = append(hangUps, hangUp)
	}
	b.held(16)
	if detail := wantProblem(t, b.manage("GET", "/clicks/live", ""), 503, "unavailable"); !strings.Contains(detail, "16 live views") {
		t.Errorf("detail %q", detail)
	}
	for _, hangUp := range hangUps {
		hangUp()
	}
	b.held(0)
}
