package httpapi_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/httpapi"
	"snowlink/internal/link"
)

// listed reads one page.
func (b *backend) listed(query string) (codes []string, next string) {
	b.t.Helper()
	a := b.manage("GET", "/links"+query, "")
	if a.status != 200 || string(a.header.Peek("Cache-Control")) != "no-store" {
		b.t.Fatalf("GET /links%s = %d %s", query, a.status, a.body)
	}
	var page struct {
		Links []shown
		Next  string
	}
	decode(b.t, a.body, &page)
	for _, l := range page.Links {
		codes = append(codes, l.Code)
	}
	return codes, page.Next
}

// all reads pages of a limit to the end, and calls between before each next one.
func (b *backend) all(limit int, query string, between func()) (codes []string) {
	b.t.Helper()
	for next := ""; ; {
		var page []string
		page, next = b.listed(fmt.Sprintf("?limit=%d%s&cursor=%s", limit, query, url.QueryEscape(next)))
		if len(page) > limit {
			b.t.Fatalf("%d links on a page of %d", len(page), limit)
		}
		codes = append(codes, page...)
		if next == "" {
			return codes
		}
		between()
	}
}

func TestList(t *testing.T) {
	b := newBackend(t)
	if a := b.manage("GET", "/links", ""); a.status != 200 || a.body != `{"links":[],"total":0,"newest_only":1000000}` {
		t.Errorf("an empty list = %d %s", a.status, a.body)
	}
	var newestFirst, tagged []string
	var last answer
	for i := range 25 {
		fields := fmt.Sprintf(`"title":"%d"`, i)
		if i%5 == 0 {
			fields += `,"tags":["fünf & mehr","x"]`
		}
		if i%2 == 0 {
			fields += fmt.Sprintf(`,"code":"own-%d"`, i)
		}
		last = b.create(with(fields))
		code := wantCreated(t, last).Code
		newestFirst = slices.Insert(newestFirst, 0, code)
		if i%5 == 0 {
			tagged = slices.Insert(tagged, 0, code)
		}
	}
	if got, next := b.listed(""); !slices.Equal(got, newestFirst) || next != "" {
		t.Errorf("list = %v and next %q, want %v", got, next, newestFirst)
	}
	if a := b.manage("GET", "/links?limit=1", ""); a.status != 200 || a.body[:len(`{"links":[`)+len(last.body)] != `{"links":[`+last.body {
		t.Errorf("the newest is listed as %s, created was %s", a.body, last.body)
	}
	// Links made meanwhile are before the cursor, and change nothing.
	for _, limit := range []int{1, 7, 25, 1000} {
		want := slices.Clone(newestFirst)
		got := b.all(limit, "", func() {
			newestFirst = slices.Insert(newestFirst, 0, wantCreated(t, b.create(`{"url":"https://example.com/new"}`)).Code)
		})
		if !slices.Equal(got, want) {
			t.Errorf("by %d: %v, want %v", limit, got, want)
		}
	}
	for _, limit := range []int{1, 3, 100} {
		if got := b.all(limit, "&tag="+url.QueryEscape("fünf & mehr"), func() {}); !slices.Equal(got, tagged) {
			t.Errorf("with the tag, by %d: %v, want %v", limit, got, tagged)
		}
	}
	if got := b.all(10, "&tag=unknown", func() {}); len(got) != 0 {
		t.Errorf("with an unknown tag: %v", got)
	}

	// Links with the tag are found however old they are.
	b.bulk(strings.Repeat(`{"url":"https://example.com/"}`+"\n", 2500))
	for _, limit := range []int{1, 100} {
		if got := b.all(limit, "&tag=x", func() {}); !slices.Equal(got, tagged) {
			t.Errorf("with the tag, far back, by %d: %v, want %v", limit, got, tagged)
		}
	}
	newestFirst, _ = b.listed("?limit=10")

	// A deleted link drops out, and a page is filled all the same.
	gone := newestFirst[0]
	b.manage("DELETE", "/links/"+gone, "")
	if got, _ := b.listed("?limit=2"); !slices.Equal(got, newestFirst[1:3]) {
		t.Errorf("after the newest went: %v, want %v", got, newestFirst[1:3])
	}
	// A disabled link is listed, or nobody could find it to enable it.
	wantShown(t, b.manage("PATCH", "/links/"+newestFirst[1], `{"disabled":true}`), 200)
	if got, _ := b.listed("?limit=2"); !slices.Equal(got, newestFirst[1:3]) {
		t.Errorf("after one was disabled: %v, want %v", got, newestFirst[1:3])
	}
}

func TestListRefuses(t *testing.T) {
	b := newBackend(t)
	for _, query := range []string{
		"limit=0", "limit=1001", "limit=-1", "limit=ten", "limit=", "cursor=nonsense", "cursor=%00", "tag=", "tag=a,b", "tags=a",
		"q=", "q=%20", "q=-", "q=%80", "q=" + strings.Repeat("a", 201), "state=", "state=kept", "state=Active", "sort=", "sort=-created", "sort=asc",
		"from=", "from=today", "from=2026-02-30", "from=1763751614", "from=2026-11-21T19:00:14", "to=", "to=2026-11-21T19:00:14+01:00",
		"from=2026-11-22&to=2026-11-22", "from=2026-11-22&to=2026-11-21T23:00:00Z", "owner=", "owner=**", "owner=*",
		"%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80%80=1",
	} {
		detail := wantProblem(t, b.manage("GET", "/links?"+query, ""), 400, "invalid_field")
		parameters := strings.Split(query, "&")
		if name, _, _ := strings.Cut(parameters[len(parameters)-1], "="); len(name) < 20 && !strings.Contains(detail, `"`+name+`"`) {
			t.Errorf("%s: %q does not name the parameter", query, detail)
		}
	}
	wantProblem(t, b.do("GET", "/links", ""), 401, "unauthorized")
}

// What a list can ask for. The links are those of a journal.
func TestListSearches(t *testing.T) {
	b := newBackend(t)
	code := func(fields string) string { return wantCreated(t, b.create(with(fields))).Code }
	first := code(`"title":"Summer Sale, Größe"`)
	then := time.Now().UnixMilli() + 1
	fleettest.Eventually(t, time.Second, "it is a millisecond later", func() bool { return time.Now().UnixMilli() >= then })
	later := time.UnixMilli(then).UTC().Format(time.RFC3339Nano)
	second := code(`"code":"own-code","tags":["news"]`)
	off := code(`"title":"off"`)
	gone := code(`"code":"own-gone"`)
	wantShown(t, b.manage("PATCH", "/links/"+off, `{"disabled":true}`), 200)
	if a := b.manage("DELETE", "/links/"+gone, ""); a.status != 204 {
		t.Fatal(a)
	}
	past := code(`"ttl":1`)
	fleettest.Eventually(t, 10*time.Second, "it expires", func() bool { return b.do("GET", "/"+past, "").status == 410 })
	for query, want := range map[string]string{
		"":                               off + " " + second + " " + first,
		"sort=newest":                    off + " " + second + " " + first,
		"sort=oldest":                    first + " " + second + " " + off,
		"state=active":                   second + " " + first,
		"state=disabled":                 off,
		"state=gone":                     past + " own-gone",
		"q=sale+SUMMER":                  first,
		"q=gr%C3%B6%C3%9Fe":              first,
		"q=own":                          second,
		"q=own&state=gone":               "own-gone",
		"q=example.com":                  off + " " + second + " " + first,
		"q=exam":                         "",
		"q=news&tag=news":                second,
		"from=2020-01-01&to=2021-01-01":  "",
		"from=2020-01-01":                off + " " + second + " " + first,
		"from=" + later + "&sort=oldest": second + " " + off,
		"to=" + later:                    first,
		"owner=default&state=disabled":   off,
	} {
		for limit := 1; limit <= 4; limit++ {
			if got := b.all(limit, "&"+query, func() {}); strings.Join(got, " ") != want {
				t.Errorf("%s, by %d: %q, want %q", query, limit, got, want)
			}
		}
	}
	if a := b.manage("GET", "/links?state=gone", ""); !strings.Contains(a.body, `,"deleted":true}`) || strings.Contains(a.body, `"url":""`) {
		t.Errorf("gone are %s", a.body)
	}
}

// What stores say of a page stands in the answer. A key without admin never asks for everyone's.
func TestListAnswers(t *testing.T) {
	b, as := owned(t)
	newest := 5
	for want, page := range map[string]link.Page{
		`{"links":[]}`:                                                          {},
		`{"links":[],"next":"a","total":7}`:                                     {Next: "a", Total: &link.Total{Links: 7}},
		`{"links":[],"total":7,"newest_only":5}`:                                {Total: &link.Total{Links: 7}, Newest: &newest},
		`{"links":[],"next":"a","incomplete":true}`:                             {Next: "a", Incomplete: true},
		`{"links":[],"total":70000,"total_is_estimate":true,"incomplete":true}`: {Total: &link.Total{Links: 70000, Estimate: true}, Incomplete: true},
	} {
		b.store.page = &page
		if a := b.manage("GET", "/links", ""); a.status != 200 || a.body != want {
			t.Errorf("list = %d %s, want %s", a.status, a.body, want)
		}
	}
	b.store.page = &link.Page{}
	for _, path := range []string{"/links", "/links/export"} {
		if a := as("audit", "GET", path+"?owner=*", ""); a.status != 200 || b.store.asked.Owner != "" {
			t.Errorf("%s = %d %s, the store was asked for %+v", path, a.status, a.body, b.store.asked)
		}
		wantForbidden(t, as("shop", "GET", path+"?owner=*", ""), "admin")
		if as("audit", "GET", path, ""); b.store.asked.Owner != "audit" {
			t.Errorf("%s: the store was asked for %+v", path, b.store.asked)
		}
		b.store.pages = 0
		b.store.away = link.ErrArchive
		if detail := wantProblem(t, as("shop", "GET", path, ""), 503, "unavailable"); !strings.Contains(detail, "archive") {
			t.Errorf("detail %q", detail)
		}
		b.store.pages = -1
	}
}

// smallBuffers accepts connections whose kernel buffers hold little of an answer.
type smallBuffers struct{ net.Listener }

func (l smallBuffers) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		err = conn.(*net.TCPConn).SetWriteBuffer(64 << 10)
	}
	return conn, err
}

// A client that takes a large page slowly gets all of it.
func TestListToASlowReader(t *testing.T) {
	const perSecond = 640 << 10 // bytes; the page takes longer than the 5 s that other answers may
	b := newBackend(t)
	var tags []string
	for i := range 10 {
		tags = append(tags, fmt.Sprintf("%02d%s", i, strings.Repeat("\U0001F600", 40)))
	}
	encoded, err := json.Marshal(tags)
	if err != nil {
		t.Fatal(err)
	}
	item := fmt.Sprintf(`{"url":"https://example.com/%s","title":"%s","tags":%s}`+"\n", strings.Repeat("a", 2000), strings.Repeat("\U0001F600", 255), encoded)
	b.bulk(strings.Repeat(item, 1000))

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := b.api.Server()
	go srv.Serve(httpapi.RefusalListener(smallBuffers{listener}))
	defer srv.Shutdown()
	transport := &http.Transport{DialContext: (&net.Dialer{}).DialContext, ReadBufferSize: 4 << 10}
	defer transport.CloseIdleConnections()
	request, _ := http.NewRequest("GET", "http://"+listener.Addr().String()+"/links?limit=1000", nil)
	request.Header.Set("API-Key", key)
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	began, n := time.Now(), int64(0)
	for err == nil {
		var read int64
		read, err = io.CopyN(io.Discard, response.Body, perSecond/20)
		n += read
		time.Sleep(time.Until(began.Add(time.Duration(n) * time.Second / perSecond)))
	}
	if err != io.EOF || n < 4_000_000 || n != response.ContentLength {
		t.Errorf("%d bytes of %d in %s: %v", n, response.ContentLength, time.Since(began), err)
	}
}
