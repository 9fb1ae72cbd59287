package browser_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	mathrand "math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	snow "snowlink/client"
	"snowlink/internal/clicks"
	"snowlink/internal/clickstream"
	"snowlink/internal/fleet/fleettest"
)

// An old is a link that was made and clicked in the past.
type old struct {
	code, url, title string
	tags             []string
	age              time.Duration
	// perDay is about how many clicks it had, and trend by how much more in the last month than in the one
	// before: 1 is as many.
	perDay, trend float64
	gone          bool // it was deleted
}

// importOld makes links with the age that they say.
func (h *house) importOld(t testing.TB, k key, links []old) {
	t.Helper()
	var lines strings.Builder
	for _, l := range links {
		line := map[string]any{"code": l.code, "url": l.url, "title": l.title, "tags": l.tags, "created_at": time.Now().Add(-l.age).UTC().Format(time.RFC3339)}
		if l.title == "" {
			delete(line, "title")
		}
		text, err := json.Marshal(line)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&lines, "%s\n", text)
	}
	h.importAll(t, k, lines.String())
	for _, l := range links {
		if l.gone {
			if err := h.api(k).Delete(t.Context(), l.code); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// importAll sends NDJSON to be imported. The test fails unless all of it is made.
func (h *house) importAll(t testing.TB, k key, lines string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), "POST", h.URL+"/links/import", strings.NewReader(lines))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("API-Key", k.secret)
	request.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("import: %s, %s (%v)", resp.Status, said[:min(len(said), 1000)], err)
	}
	if made, rows := strings.Count(string(said), `"result":"created"`), strings.Count(lines, "\n"); made != rows {
		t.Fatalf("import: %d rows of %d were made: %s", made, rows, said[:min(len(said), 2000)])
	}
}

// A ledger is clicks that are to be counted as if they had happened in the past.
type ledger struct {
	h        *house
	producer string
	number   uint64
	queue    *clickstream.Queue
	counts   []clicks.Count
	misses   []clicks.Miss
}

func (h *house) ledger(t testing.TB) *ledger {
	t.Helper()
	addr := h.Redis.Addr
	if h.State != nil {
		addr = h.State.Addr
	}
	silent := slog.New(slog.DiscardHandler)
	queue := clickstream.New(fleettest.Conn(t, "redis://"+addr, silent), silent, prometheus.NewRegistry(), clickstream.Options{})
	return &ledger{h: h, producer: rand.Text(), queue: queue}
}

// send has everything counted that was added since.
func (l *ledger) send(t testing.TB) {
	t.Helper()
	for len(l.counts)+len(l.misses) > 0 {
		n, m := min(len(l.counts), 500), min(len(l.misses), 500)
		l.number++
		b := &clicks.Batch{Producer: l.producer, Number: l.number, Counts: l.counts[:n], Misses: l.misses[:m]}
		fleettest.Eventually(t, patience, "the queue takes a batch", func() bool { return l.queue.Send(t.Context(), b) == nil })
		l.counts, l.misses = l.counts[n:], l.misses[m:]
	}
}

// counted waits until the service has added up so many clicks of people on the link.
func (h *house) counted(t testing.TB, k key, code string, want int64) {
	t.Helper()
	q := snow.ClicksQuery{Code: code, From: time.Now().AddDate(-2, 0, 0)}
	var got int64
	fleettest.Eventually(t, 3*patience, fmt.Sprintf("%d clicks of %s are counted", want, code), func() bool {
		answer, err := h.api(k).Clicks(t.Context(), q)
		got = answer.Clicks
		return err == nil && got >= want
	})
	if got != want {
		t.Fatalf("%s has %d clicks, want %d", code, got, want)
	}
}

// weighted are values with how often they come.
type weighted []struct {
	value string
	share float64
}

func (w weighted) pick(r *mathrand.Rand) string {
	at := r.Float64()
	for _, v := range w {
		if at -= v.share; at < 0 {
			return v.value
		}
	}
	return w[0].value
}

var (
	countries = weighted{{"DE", .34}, {"AT", .11}, {"CH", .09}, {"US", .13}, {"GB", .07}, {"FR", .06}, {"NL", .04}, {"IT", .03}, {"ES", .03}, {"PL", .02}, {"SE", .02}, {"BR", .02}, {"IN", .02}, {"JP", .01}, {"", .01}}
	referrers = weighted{{"", .38}, {"news.example", .18}, {"social.example", .16}, {"search.example", .12}, {"forum.example", .07}, {"blog.example", .05}, {"mail.example", .04}}
	browsers  = weighted{{"Chrome", .48}, {"Safari", .27}, {"Firefox", .15}, {"Edge", .08}, {"Opera", .02}}
	campaigns = weighted{{"", .55}, {"spring", .25}, {"launch", .12}, {"newsletter-47", .08}}
	bots      = weighted{{"crawler", .6}, {"preview", .3}, {"prefetch", .1}}
)

// grow adds clicks for the days since the link was made, more on working days, and in the day more than at
// night. It returns how many were those of people. The same link gets the same.
func (l *ledger) grow(owner string, o old) (people int64) {
	r := mathrand.New(mathrand.NewPCG(7, uint64(len(o.code))<<32|uint64(o.code[0])<<16|uint64(o.code[len(o.code)-1])))
	end := time.Now().UTC().Truncate(time.Hour)
	begin := end.Add(-min(o.age, 75*24*time.Hour))
	for hour := begin; !hour.After(end); hour = hour.Add(time.Hour) {
		days := end.Sub(hour).Hours() / 24
		rate := o.perDay / 24 * (1 + 0.9*math.Sin(2*math.Pi*(float64(hour.Hour())-8)/24))
		if d := hour.Weekday(); d == time.Saturday || d == time.Sunday {
			rate *= 0.6
		}
		rate *= 1 + (o.trend-1)*(1-days/75)
		n := int64(rate + r.Float64())
		if n <= 0 {
			continue
		}
		count := clicks.Count{Code: o.code, Owner: owner, Tags: o.tags, Hour: hour, Clicks: n}
		for i := range n {
			f := facts(r)
			count.Facts = append(count.Facts, clicks.FactCount{Facts: f, Clicks: 1})
			if i%4 != 3 { // some come twice
				count.Visitors = append(count.Visitors, r.Uint64())
			}
		}
		if r.Float64() < 0.15 {
			f := clicks.Facts{clicks.Country: "US", clicks.Bot: bots.pick(r)}
			count.Bots, count.Facts = 1, append(count.Facts, clicks.FactCount{Facts: f, Clicks: 1})
		}
		l.counts = append(l.counts, count)
		people += n
	}
	return people
}

// facts are those of somebody.
func facts(r *mathrand.Rand) clicks.Facts {
	f := clicks.Facts{clicks.Country: countries.pick(r), clicks.Referrer: referrers.pick(r), clicks.Browser: browsers.pick(r), clicks.Device: "desktop"}
	switch {
	case f[clicks.Browser] == "Safari" && r.Float64() < .7:
		f[clicks.OS], f[clicks.Device] = "iOS", "phone"
	case f[clicks.Browser] == "Safari":
		f[clicks.OS] = "macOS"
	case f[clicks.Browser] == "Edge":
		f[clicks.OS] = "Windows"
	case r.Float64() < .45:
		f[clicks.OS], f[clicks.Device] = "Android", "phone"
	case r.Float64() < .7:
		f[clicks.OS] = "Windows"
	default:
		f[clicks.OS] = "Linux"
	}
	if c := campaigns.pick(r); c != "" {
		f[clicks.Campaign], f[clicks.Source], f[clicks.Medium] = c, "newsletter", "email"
	}
	if r.Float64() < .08 {
		f[clicks.Via], f[clicks.Referrer] = "qr", ""
	}
	return f
}

// countedAll waits until the service has added up so many clicks of people on all links of the key.
func (h *house) countedAll(t testing.TB, k key, want int64) {
	t.Helper()
	var got int64
	fleettest.Eventually(t, 10*patience, fmt.Sprintf("%d clicks of %s are counted", want, k.name), func() bool {
		answer, err := h.api(k).Clicks(t.Context(), snow.ClicksQuery{From: time.Now().AddDate(-2, 0, 0)})
		got = answer.Clicks
		return err == nil && got >= want
	})
}
