// Package statstest is the contract of stats.Store as a test. Every store there is has to pass it,
// so that all keep the same promises.
package statstest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"snowlink/internal/clicks"
	"snowlink/internal/stats"
)

// Traits are what a store differs in from others, and what the test cannot do by the contract alone.
type Traits struct {
	// Another opens a store over the data of the last one that was opened, as another process would.
	// If it is nil, tests of several processes take the one store several times.
	Another func(t *testing.T) stats.Store
}

// Run checks that stores keep the promises of stats.Store. open makes one without any clicks. It
// must keep hours and facts for ten years: the clicks of the test are of certain days of 2026.
func Run(t *testing.T, open func(t *testing.T) stats.Store, traits Traits) {
	t.Helper()
	s := suite{open, traits}
	t.Run("sums", s.sums)
	t.Run("zones", s.zones)
	t.Run("nothing", s.nothing)
	t.Run("most", s.most)
	t.Run("dropped facts", s.dropped)
	t.Run("top", s.top)
	t.Run("totals", s.totals)
	t.Run("misses", s.misses)
	t.Run("forget", s.forget)
	t.Run("once", s.once)
	t.Run("ordered", s.ordered)
	t.Run("half", s.half)
	t.Run("visitors", s.visitors)
	t.Run("hostile", s.hostile)
	t.Run("too many", s.tooMany)
}

type suite struct {
	open   func(t *testing.T) stats.Store
	traits Traits
}

// another opens one more store over the same data.
func (s suite) another(t *testing.T, same stats.Store) stats.Store {
	if s.traits.Another == nil {
		return same
	}
	return s.traits.Another(t)
}

// monday is the first of the days that most of the clicks are of.
var monday = time.Date(2026, 10, 19, 0, 0, 0, 0, time.UTC)

// everything of the test.
var (
	begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	end   = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
)

func all(s stats.Scope) stats.Question {
	return stats.Question{Scope: s, From: begin, To: end, Bots: stats.WithBots}
}

// batch makes a batch of one producer.
func batch(producer string, number uint64, counts ...clicks.Count) clicks.Batch {
	return clicks.Batch{Producer: producer, Number: number, Counts: counts}
}

// count makes n clicks of people in an hour, all with the same facts.
func count(code string, hour time.Time, n int64, f clicks.Facts) clicks.Count {
	return clicks.Count{Code: code, Owner: "owner", Hour: hour, Clicks: n, Facts: []clicks.FactCount{{Facts: f, Clicks: n}}}
}

// visitor returns the hash of somebody who clicks on a link on a day.
func visitor(code string, day time.Time, number int) uint64 {
	return xxhash.Sum64String(fmt.Sprint(code, day.Truncate(24*time.Hour).Unix(), "visitor", number))
}

func apply(t *testing.T, store stats.Store, batches ...clicks.Batch) stats.Applied {
	t.Helper()
	a, err := store.Apply(t.Context(), batches)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (s suite) wantTotal(t *testing.T, store stats.Store, scope stats.Scope, want int64) {
	t.Helper()
	if a := ask(t, store, all(scope)); a.Clicks != want {
		t.Errorf("%+v has %d clicks, want %d", scope, a.Clicks, want)
	}
}

// pick makes clicks as links have them: some facts are frequent, and bots are among them.
func pick(r *rand.Rand, day time.Time, number int) clicks.Count {
	code := fmt.Sprint("code", number%12)
	c := clicks.Count{
		Code: code, Owner: []string{"default", "shop", "press"}[number%3],
		Tags: [][]string{nil, {"summer"}, {"summer", "sale"}, {"sale"}}[number%4],
		Hour: day.Add(time.Duration(r.IntN(24)) * time.Hour),
	}
	one := func(values ...string) string { return values[r.IntN(len(values))] }
	for range 1 + r.IntN(3) {
		f := clicks.Facts{
			clicks.Country: one("DE", "FR", "US", ""), clicks.Referrer: one("", "news.example", "example.org"),
			clicks.Browser: one("Firefox", "Chrome"), clicks.OS: "Linux", clicks.Via: one("", "", "qr"),
			clicks.Bot: one("", "", "", "crawler", "preview"),
		}
		n := 1 + r.Int64N(9)
		c.Facts = append(c.Facts, clicks.FactCount{Facts: f, Clicks: n})
		if f[clicks.Bot] == "" {
			c.Clicks += n
			for range n {
				c.Visitors = append(c.Visitors, visitor(code, c.Hour, r.IntN(30)))
			}
		} else {
			c.Bots += n
		}
	}
	slices.Sort(c.Visitors)
	c.Visitors = slices.Compact(c.Visitors)
	return c
}

// picked makes batches of two producers over ten days from monday on.
func picked() (batches []clicks.Batch) {
	r := rand.New(rand.NewPCG(1, 2))
	for number := range uint64(20) {
		b := clicks.Batch{Producer: fmt.Sprint("producer", number%2), Number: number/2 + 1}
		day := monday.AddDate(0, 0, int(number/2))
		for i := range 24 {
			b.Counts = append(b.Counts, pick(r, day, i))
		}
		batches = append(batches, b)
	}
	return batches
}

var scopes = []stats.Scope{
	{}, {Code: "code1"}, {Code: "code7"}, {Owner: "shop"}, {Owner: "default"}, {Tag: "sale"}, {Owner: "press", Tag: "sale"},
}

func (s suite) sums(t *testing.T) {
	store := s.open(t)
	var m model
	var clicked int64
	for some := range slices.Chunk(picked(), 7) {
		m.add(some...)
		a := apply(t, store, some...)
		clicked += a.Clicks
		if len(a.New) != len(some) || a.Repeated != 0 {
			t.Errorf("Apply of %d batches = %+v", len(some), a)
		}
	}
	if _, want := m.rows(all(stats.Scope{})); clicked != want {
		t.Errorf("%d clicks were applied, want %d", clicked, want)
	}
	another := s.another(t, store)
	for _, scope := range scopes {
		for name, change := range map[string]func(*stats.Question){
			"all":        func(*stats.Question) {},
			"people":     func(q *stats.Question) { q.Bots = stats.People },
			"bots":       func(q *stats.Question) { q.Bots = stats.OnlyBots },
			"hours":      func(q *stats.Question) { q.Unit = stats.Hour },
			"days":       func(q *stats.Question) { q.Unit, q.Bots = stats.Day, stats.People },
			"weeks":      func(q *stats.Question) { q.Unit = stats.Week },
			"months":     func(q *stats.Question) { q.Unit = stats.Month },
			"a day":      func(q *stats.Question) { q.From, q.To = monday.AddDate(0, 0, 3), monday.AddDate(0, 0, 4) },
			"some hours": func(q *stats.Question) { q.From, q.To = monday.Add(5*time.Hour), monday.Add(31*time.Hour) },
			"some hours apart": func(q *stats.Question) {
				q.From, q.To, q.Unit = monday.Add(5*time.Hour), monday.Add(31*time.Hour), stats.Hour
			},
			"countries":        func(q *stats.Question) { q.By, q.Bots = []clicks.Dimension{clicks.Country}, stats.People },
			"bots by kind":     func(q *stats.Question) { q.By = []clicks.Dimension{clicks.Bot} },
			"empty dimension":  func(q *stats.Question) { q.By = []clicks.Dimension{clicks.Campaign} },
			"countries a day":  func(q *stats.Question) { q.By, q.Unit = []clicks.Dimension{clicks.Country}, stats.Day },
			"two dimensions":   func(q *stats.Question) { q.By, q.Unit = []clicks.Dimension{clicks.Browser, clicks.Country}, stats.Week },
			"three dimensions": func(q *stats.Question) { q.By = []clicks.Dimension{clicks.Via, clicks.Referrer, clicks.Bot} },
			"of a country": func(q *stats.Question) {
				q.Where = map[clicks.Dimension][]string{clicks.Country: {"DE"}}
				q.Unit = stats.Day
			},
			"of none and of two countries, by browser": func(q *stats.Question) {
				q.Where = map[clicks.Dimension][]string{clicks.Country: {"FR", "", "US", "XX"}}
				q.By, q.Bots = []clicks.Dimension{clicks.Browser}, stats.People
			},
			"two filters": func(q *stats.Question) {
				q.Where = map[clicks.Dimension][]string{clicks.Country: {"DE"}, clicks.Via: {"qr"}}
				q.By = []clicks.Dimension{clicks.Country}
			},
			"a value that is not there": func(q *stats.Question) { q.Where = map[clicks.Dimension][]string{clicks.OS: {"Plan 9"}} },
			"crawlers": func(q *stats.Question) {
				q.Where = map[clicks.Dimension][]string{clicks.Bot: {"crawler"}}
				q.By = []clicks.Dimension{clicks.Bot}
			},
		} {
			q := all(scope)
			change(&q)
			t.Run(name, func(t *testing.T) { m.compare(t, another, q) })
		}
	}
}

// zones: days, weeks and months are those of the zone, and have 23 or 25 hours when its clocks
// change.
func (s suite) zones(t *testing.T) {
	store := s.open(t)
	var m model
	number := uint64(0)
	for _, around := range []time.Time{
		time.Date(2026, 3, 29, 0, 0, 0, 0, time.UTC),  // Berlin's clocks go forward
		time.Date(2026, 10, 25, 0, 0, 0, 0, time.UTC), // and back; it is a Sunday
		time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),  // New York's go back, and a month ends
	} {
		for hour := -36; hour < 60; hour++ {
			number++
			b := batch("p", number, count("a", around.Add(time.Duration(hour)*time.Hour), 1+int64(hour+36), clicks.Facts{}))
			m.add(b)
			apply(t, store, b)
		}
	}
	for _, name := range []string{"UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Kiritimati"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, unit := range []stats.Unit{stats.Whole, stats.Hour, stats.Day, stats.Week, stats.Month} {
			if unit == stats.Hour && name == "Asia/Kolkata" {
				continue // its hours begin at the half of those that are kept
			}
			q := all(stats.Scope{Code: "a"})
			q.Zone, q.Unit = zone, unit
			m.compare(t, store, q)
			q.From, q.To = time.Date(2026, 10, 25, 0, 0, 0, 0, zone), time.Date(2026, 10, 26, 0, 0, 0, 0, zone)
			if name != "Asia/Kolkata" {
				m.compare(t, store, q)
			}
		}
	}
}

func (s suite) nothing(t *testing.T) {
	store := s.open(t)
	check := func() {
		t.Helper()
		for _, scope := range []stats.Scope{{Code: "none"}, {Owner: "none"}, {Tag: "none"}, {Owner: "owner", Tag: "none"}} {
			for _, q := range []stats.Question{
				all(scope),
				{Scope: scope, From: monday, To: monday.AddDate(0, 0, 7), Unit: stats.Day},
				{Scope: scope, From: monday, To: monday.AddDate(0, 0, 7), By: []clicks.Dimension{clicks.Country}, Most: 3},
				{Scope: scope, From: monday, To: monday},
			} {
				if a := ask(t, store, q); a.Clicks != 0 || len(a.Rows) != 0 || a.Visitors > 0 {
					t.Errorf("%s = %+v", describe(q), a)
				}
			}
			if top, err := store.Top(t.Context(), scope, begin, end, stats.People, 10); len(top) != 0 || err != nil {
				t.Errorf("Top of %+v = %v, %v", scope, top, err)
			}
		}
		if misses, err := store.Misses(t.Context(), begin, end, 10); len(misses) != 0 || err != nil {
			t.Errorf("Misses = %v, %v", misses, err)
		}
		if totals, err := store.Totals(t.Context(), []string{"none", "neither"}); !slices.Equal(totals, []int64{0, 0}) || err != nil {
			t.Errorf("Totals = %v, %v", totals, err)
		}
		if totals, err := store.Totals(t.Context(), nil); len(totals) != 0 || err != nil {
			t.Errorf("Totals of nothing = %v, %v", totals, err)
		}
		if err := store.Forget(t.Context(), "none"); err != nil {
			t.Errorf("Forget = %v", err)
		}
	}
	check()
	if a := apply(t, store); len(a.New) != 0 || a.Repeated != 0 || a.Clicks != 0 {
		t.Errorf("Apply of nothing = %+v", a)
	}
	if a := apply(t, store, batch("p", 1)); a.Clicks != 0 {
		t.Errorf("Apply of a batch without counts = %+v", a)
	}
	s.wantTotal(t, store, stats.Scope{}, 0)
	apply(t, store, batch("p", 2, count("a", monday, 1, clicks.Facts{})))
	check()
}

// most: the rows beyond Most are one row more.
func (s suite) most(t *testing.T) {
	store := s.open(t)
	var counts []clicks.Count
	for i := range int64(20) {
		f := clicks.Facts{clicks.Country: fmt.Sprintf("A%c", 'A'+i), clicks.Browser: "b"}
		counts = append(counts, count("a", monday, 100+i, f), count("a", monday.AddDate(0, 0, 1), 200-i, f))
	}
	// What was Other before belongs to the rest.
	counts = append(counts, count("a", monday, 1000, clicks.Facts{clicks.Country: clicks.Other, clicks.Browser: clicks.Other}))
	apply(t, store, batch("p", 1, counts...))
	const most = 5
	for _, by := range [][]clicks.Dimension{{clicks.Country}, {clicks.Country, clicks.Browser}} {
		a := ask(t, store, stats.Question{
			Scope: stats.Scope{Code: "a"}, From: monday, To: monday.AddDate(0, 0, 2), Unit: stats.Day, By: by, Most: most,
		})
		rest := slices.Repeat([]string{clicks.Other}, len(by))
		for day, sum := range []int64{20*100 + 190 + 1000, 20*200 - 190} {
			start := monday.AddDate(0, 0, day)
			var top []stats.Row
			var others int
			for _, r := range a.Rows {
				if !r.Start.Equal(start) {
					continue
				}
				sum -= r.Clicks
				if slices.Equal(r.Values, rest) {
					others++
				} else {
					top = append(top, r)
				}
			}
			if sum != 0 || others != 1 || len(top) != most {
				t.Errorf("by %s on day %d: %d rows of values, %d of the rest, and %d clicks are missing: %v", by, day, len(top), others, sum, a.Rows)
				continue
			}
			for i, r := range top {
				want, value := 119-int64(i), fmt.Sprintf("A%c", 'A'+19-i)
				if day == 1 {
					want, value = 200-int64(i), fmt.Sprintf("A%c", 'A'+i)
				}
				if r.Clicks != want || r.Values[0] != value {
					t.Errorf("by %s on day %d: row %d is %v, want %s with %d", by, day, i, r, value, want)
				}
			}
		}
	}
}

// dropped: clicks whose facts were dropped are Other, and their bots are known.
func (s suite) dropped(t *testing.T) {
	store := s.open(t)
	c := count("a", monday, 3, clicks.Facts{clicks.Country: "DE"})
	c.Clicks, c.Bots = 10, 5
	c.Facts = append(c.Facts, clicks.FactCount{Facts: clicks.Facts{clicks.Country: "DE", clicks.Bot: "crawler"}, Clicks: 1})
	var m model
	b := batch("p", 1, c)
	m.add(b)
	apply(t, store, b)
	for _, scope := range []stats.Scope{{}, {Code: "a"}, {Owner: "owner"}} {
		for _, bots := range []stats.Bots{stats.People, stats.WithBots, stats.OnlyBots} {
			q := all(scope)
			q.Bots = bots
			m.compare(t, store, q)
			q.By = []clicks.Dimension{clicks.Country}
			m.compare(t, store, q)
			q.Where = map[clicks.Dimension][]string{clicks.Country: {"DE"}}
			m.compare(t, store, q)
		}
	}
}

func (s suite) top(t *testing.T) {
	store := s.open(t)
	var m model
	batches := picked()
	m.add(batches...)
	apply(t, store, batches...)
	for _, scope := range scopes {
		if scope.Code != "" {
			continue
		}
		for _, bots := range []stats.Bots{stats.People, stats.WithBots, stats.OnlyBots} {
			for _, days := range [][2]int{{0, 10}, {2, 3}, {20, 30}} {
				for _, n := range []int{3, 100} {
					from, to := monday.AddDate(0, 0, days[0]), monday.AddDate(0, 0, days[1])
					top, err := store.Top(t.Context(), scope, from, to, bots, n)
					if err != nil {
						t.Fatal(err)
					}
					checkTop(t, top, m.links(scope, from, to, bots), n)
				}
			}
		}
	}
}

// checkTop checks that top has the n keys with the largest sums, the largest one first.
func checkTop(t *testing.T, top []stats.LinkClicks, sums map[string]int64, n int) {
	t.Helper()
	sorted := slices.SortedFunc(maps.Values(sums), func(a, b int64) int { return cmp.Compare(b, a) })
	if want := min(n, len(sorted)); len(top) != want {
		t.Errorf("there are %d, want %d: %v", len(top), want, top)
		return
	}
	seen := map[string]bool{}
	for i, l := range top {
		if l.Clicks != sorted[i] || l.Clicks != sums[l.Code] || seen[l.Code] {
			t.Errorf("number %d is %v, which has %d; want one with %d", i, l, sums[l.Code], sorted[i])
		}
		seen[l.Code] = true
	}
}

func (s suite) totals(t *testing.T) {
	store := s.open(t)
	var m model
	batches := picked()
	m.add(batches...)
	apply(t, store, batches...)
	sums := m.links(stats.Scope{}, begin, end, stats.People)
	codes := append([]string{"none"}, slices.Sorted(maps.Keys(sums))...)
	codes = append(codes, codes[1])
	totals, err := store.Totals(t.Context(), codes)
	if err != nil || len(totals) != len(codes) {
		t.Fatalf("Totals = %v, %v", totals, err)
	}
	for i, code := range codes {
		if totals[i] != sums[code] {
			t.Errorf("%s has %d clicks, want %d", code, totals[i], sums[code])
		}
	}
}

func (s suite) misses(t *testing.T) {
	store := s.open(t)
	sums := map[string]int64{}
	for i := range 30 {
		b := clicks.Batch{Producer: "p", Number: uint64(i + 1)}
		for j := range 5 {
			miss := clicks.Miss{Hour: monday.Add(time.Duration(i) * time.Hour), Code: fmt.Sprint("miss", i%7), Clicks: int64(1 + i*5 + j)}
			b.Misses = append(b.Misses, miss)
			if i < 24 {
				sums[miss.Code] += miss.Clicks
			}
		}
		apply(t, store, b)
		if i%3 == 0 {
			apply(t, store, b) // counts once
		}
	}
	for _, n := range []int{1, 3, 100} {
		misses, err := store.Misses(t.Context(), monday, monday.AddDate(0, 0, 1), n)
		if err != nil {
			t.Fatal(err)
		}
		checkTop(t, misses, sums, n)
	}
	s.wantTotal(t, store, stats.Scope{}, 0)
}

// forget: a link that was forgotten has no clicks, until it is clicked again. Others keep theirs.
func (s suite) forget(t *testing.T) {
	store := s.open(t)
	var m model
	batches := picked()
	m.add(batches...)
	apply(t, store, batches...)
	before := ask(t, store, all(stats.Scope{}))
	if err := store.Forget(t.Context(), "code1"); err != nil {
		t.Fatal(err)
	}
	gone := func() {
		t.Helper()
		s.wantTotal(t, store, stats.Scope{Code: "code1"}, 0)
		a := ask(t, store, stats.Question{Scope: stats.Scope{Code: "code1"}, From: monday, To: monday.AddDate(0, 0, 10)})
		if a.Visitors != 0 {
			t.Errorf("a forgotten link has %d visitors", a.Visitors)
		}
		if totals, err := store.Totals(t.Context(), []string{"code1", "code2"}); err != nil || totals[0] != 0 || totals[1] == 0 {
			t.Errorf("Totals of a forgotten link and another = %v, %v", totals, err)
		}
	}
	gone()
	for _, scope := range scopes {
		if scope.Code != "code1" {
			m.compare(t, store, all(scope))
		}
	}
	if after := ask(t, store, all(stats.Scope{})); after.Clicks != before.Clicks {
		t.Errorf("everything had %d clicks and has %d", before.Clicks, after.Clicks)
	}
	// A batch that arrives again does not bring it back.
	apply(t, store, batches...)
	gone()
	if err := store.Forget(t.Context(), "code1"); err != nil {
		t.Errorf("Forget again = %v", err)
	}
	apply(t, store, batch("new", 1, count("code1", monday, 4, clicks.Facts{clicks.Country: "DE"})))
	s.wantTotal(t, store, stats.Scope{Code: "code1"}, 4)
	if totals, err := store.Totals(t.Context(), []string{"code1"}); err != nil || totals[0] != 4 {
		t.Errorf("Totals = %v, %v", totals, err)
	}
}

// once: a batch counts once, however often and in whatever order it arrives.
func (s suite) once(t *testing.T) {
	t.Run("repeated", func(t *testing.T) {
		store := s.open(t)
		var m model
		batches := picked()
		m.add(batches...)
		apply(t, store, batches[:15]...)
		if a := apply(t, s.another(t, store), batches[:15]...); len(a.New) != 0 || a.Repeated != 15 || a.Clicks != 0 {
			t.Errorf("Apply again = %+v", a)
		}
		if a := apply(t, store, batches[10:]...); len(a.New) != 5 || a.New[0].Number != batches[15].Number || a.Repeated != 5 {
			t.Errorf("Apply of five old and five new ones = %+v", a)
		}
		if a := apply(t, s.another(t, store), slices.Concat(batches, batches)...); len(a.New) != 0 || a.Clicks != 0 {
			t.Errorf("Apply of each twice = %+v", a)
		}
		s.compareAll(t, store, &m)
	})
	t.Run("twice at once", func(t *testing.T) {
		store := s.open(t)
		b := batch("p", 1, count("a", monday, 1, clicks.Facts{}))
		apply(t, store, b, b)
		s.wantTotal(t, store, stats.Scope{Code: "a"}, 1)
		s.wantTotal(t, store, stats.Scope{}, 1)
	})
	t.Run("from producers with the same numbers", func(t *testing.T) {
		store := s.open(t)
		for i := range 20 {
			apply(t, store, batch(fmt.Sprint("p", i), 1, count("a", monday, 1, clicks.Facts{})))
		}
		s.wantTotal(t, store, stats.Scope{Code: "a"}, 20)
	})
	t.Run("reordered", func(t *testing.T) {
		store := s.open(t)
		const n = 400
		r := rand.New(rand.NewPCG(3, 4))
		numbers := r.Perm(n)
		// A number arrives after no more than ReorderMost larger ones.
		slices.SortStableFunc(numbers, func(a, b int) int {
			return cmp.Compare(a/(clicks.ReorderMost/2), b/(clicks.ReorderMost/2))
		})
		var m model
		for i, number := range numbers {
			b := batch("p", uint64(number+1), pick(r, monday.AddDate(0, 0, number*10/n), number))
			b.Counts = append(b.Counts, count("hot", monday, 1, clicks.Facts{}))
			m.add(b)
			apply(t, store, b)
			if i%3 == 0 {
				apply(t, store, b)
			}
		}
		s.compareAll(t, store, &m)
		s.wantTotal(t, store, stats.Scope{Code: "hot"}, n)
		if totals, err := store.Totals(t.Context(), []string{"hot"}); err != nil || totals[0] != n {
			t.Errorf("Totals = %v, %v", totals, err)
		}
	})
	t.Run("by several at once", func(t *testing.T) {
		store := s.open(t)
		var m model
		batches := picked()
		m.add(batches...)
		var wg sync.WaitGroup
		for range 4 {
			store := s.another(t, store)
			wg.Go(func() {
				for some := range slices.Chunk(batches, 3) {
					if _, err := store.Apply(t.Context(), some); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		s.compareAll(t, store, &m)
	})
}

// compareAll compares sums, facts, tops, totals and visitors.
func (s suite) compareAll(t *testing.T, store stats.Store, m *model) {
	t.Helper()
	for _, scope := range scopes {
		q := all(scope)
		m.compare(t, store, q)
		q.Unit, q.By = stats.Hour, []clicks.Dimension{clicks.Country, clicks.Bot}
		m.compare(t, store, q)
		if scope.Code == "" {
			top, err := store.Top(t.Context(), scope, monday, monday.AddDate(0, 0, 10), stats.WithBots, 100)
			if err != nil {
				t.Fatal(err)
			}
			checkTop(t, top, m.links(scope, monday, monday.AddDate(0, 0, 10), stats.WithBots), 100)
		}
		s.compareVisitors(t, store, m, stats.Question{Scope: scope, From: monday, To: monday.AddDate(0, 0, 10), Unit: stats.Day})
	}
	sums := m.links(stats.Scope{}, begin, end, stats.People)
	codes := slices.Sorted(maps.Keys(sums))
	totals, err := store.Totals(t.Context(), codes)
	if err != nil {
		t.Fatal(err)
	}
	for i, code := range codes {
		if totals[i] != sums[code] {
			t.Errorf("the total of %s is %d, want %d", code, totals[i], sums[code])
		}
	}
}

// ordered: of a queue that numbers its counts, what was applied is told by the last number.
func (s suite) ordered(t *testing.T) {
	store := s.open(t)
	r := rand.New(rand.NewPCG(5, 6))
	var counts []clicks.Count
	var misses []clicks.Miss // each between two counts
	sums := map[string]int64{}
	for offset := range uint64(300) {
		c := pick(r, monday.AddDate(0, 0, int(offset)*10/300), int(offset))
		c.Number = 1 + offset*7 // others have numbers of the queue, too
		counts = append(counts, c)
		miss := clicks.Miss{Number: c.Number + 2, Hour: c.Hour, Code: fmt.Sprint("miss", offset%9), Clicks: int64(offset + 1)}
		misses, sums[miss.Code] = append(misses, miss), sums[miss.Code]+miss.Clicks
	}
	var m model
	m.add(clicks.Batch{Counts: counts})
	ordered := func(partition string, from, to int) clicks.Batch {
		return clicks.Batch{Producer: "kafka:t/" + partition, Ordered: true, Counts: counts[from:to], Misses: misses[from:to]}
	}
	// Who takes over begins where the last one said that it was, and with other batches.
	apply(t, store, ordered("0", 0, 100))
	if a := apply(t, store, ordered("0", 0, 100)); len(a.New) != 0 || a.Repeated != 1 || a.Clicks != 0 {
		t.Errorf("Apply again = %+v", a)
	}
	apply(t, s.another(t, store), ordered("0", 90, 95), ordered("0", 95, 150))
	if a := apply(t, store, ordered("0", 60, 200)); len(a.New) != 1 || len(a.New[0].Counts) != 50 || len(a.New[0].Misses) != 50 || a.New[0].Counts[0].Number != counts[150].Number {
		t.Errorf("Apply of 90 old and 50 new counts = %+v", a)
	}
	apply(t, store, ordered("0", 200, 201), ordered("0", 201, 250))
	var wg sync.WaitGroup
	for range 3 {
		store := s.another(t, store)
		wg.Go(func() {
			if _, err := store.Apply(t.Context(), []clicks.Batch{ordered("0", 180, 270), ordered("0", 270, 300)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	apply(t, store, ordered("0", 0, 300))
	s.compareAll(t, store, &m)
	missed, err := store.Misses(t.Context(), monday, monday.AddDate(0, 0, 10), 100)
	if err != nil {
		t.Fatal(err)
	}
	checkTop(t, missed, sums, 100)

	m.add(clicks.Batch{Counts: counts})
	apply(t, store, ordered("1", 0, 300)) // another partition has numbers of its own
	s.compareAll(t, store, &m)
}

// half: an Apply that failed half-way is repeated.
func (s suite) half(t *testing.T) {
	store := s.open(t)
	var m model
	batches := picked()
	m.add(batches...)
	failed := 0
	for some := range slices.Chunk(batches, 4) {
		for within := 50 * time.Microsecond; ; within += within / 2 {
			ctx, cancel := context.WithTimeout(t.Context(), within)
			_, err := store.Apply(ctx, some)
			cancel()
			if err == nil {
				break
			}
			failed++
			if within > time.Minute {
				t.Fatal(err)
			}
		}
	}
	if failed == 0 {
		t.Error("no Apply failed")
	}
	s.compareAll(t, store, &m)
}

func (s suite) compareVisitors(t *testing.T, store stats.Store, m *model, q stats.Question) {
	t.Helper()
	a := ask(t, store, q)
	by, total := m.visitors(q)
	if !close3(a.Visitors, total) {
		t.Errorf("%s: %d visitors, want %d", describe(q), a.Visitors, total)
	}
	for _, r := range a.Rows {
		if want := by[r.Start.Unix()]; !close3(r.Visitors, want) {
			t.Errorf("%s: %d visitors from %s on, want %d", describe(q), r.Visitors, r.Start, want)
		}
	}
}

// close3 reports whether got is within 3 % of want, or, of a few, within one.
func close3(got, want int64) bool {
	return got >= 0 && max(got-want, want-got) <= max(want*3/100, min(want/20, 1))
}

func (s suite) visitors(t *testing.T) {
	store := s.open(t)
	var m model
	number := uint64(0)
	add := func(c clicks.Count) {
		number++
		b := batch("p", number, c)
		m.add(b)
		apply(t, store, b)
	}
	click := func(code string, hour time.Time, people ...int) {
		c := count(code, hour, int64(len(people)), clicks.Facts{})
		c.Tags = []string{"tag"}
		for _, p := range people {
			c.Visitors = append(c.Visitors, visitor(code, hour, p))
		}
		add(c)
	}
	for hour := range 5 { // one comes five times a day on two days, another twice on one
		click("a", monday.Add(time.Duration(hour)*time.Hour), 1)
		click("a", monday.AddDate(0, 0, 1).Add(time.Duration(hour)*time.Hour), 1)
	}
	click("a", monday, 2)
	click("a", monday.Add(23*time.Hour), 2)
	click("b", monday, 1) // another link counts apart
	bots := count("a", monday, 0, clicks.Facts{clicks.Bot: "crawler"})
	bots.Bots, bots.Facts[0].Clicks = 7, 7
	add(bots)
	for some := range 20 {
		people := make([]int, 2000)
		for i := range people {
			people[i] = some*1000 + i // each comes in two of them
		}
		click("c", monday.AddDate(0, 0, 2).Add(time.Duration(some)*time.Hour), people...)
	}
	for _, scope := range []stats.Scope{{}, {Code: "a"}, {Code: "b"}, {Code: "c"}, {Owner: "owner"}, {Tag: "tag"}, {Owner: "owner", Tag: "tag"}} {
		for _, unit := range []stats.Unit{stats.Whole, stats.Day, stats.Week, stats.Month} {
			q := stats.Question{Scope: scope, From: monday, To: monday.AddDate(0, 0, 7), Unit: unit}
			s.compareVisitors(t, store, &m, q)
			q.To = monday.AddDate(0, 0, 1)
			s.compareVisitors(t, store, &m, q)
		}
	}
	for name, q := range map[string]stats.Question{
		"by":                {From: monday, To: monday.AddDate(0, 0, 7), By: []clicks.Dimension{clicks.Country}},
		"where":             {From: monday, To: monday.AddDate(0, 0, 7), Where: map[clicks.Dimension][]string{clicks.Country: {""}}},
		"in a day":          {From: monday, To: monday.Add(5 * time.Hour)},
		"from within a day": {From: monday.Add(5 * time.Hour), To: monday.AddDate(0, 0, 7)},
	} {
		if a := ask(t, store, q); a.Visitors != -1 {
			t.Errorf("%s: %d visitors, want -1 for unknown", name, a.Visitors)
		}
	}
}

// hostile: values are what visitors send, and names what owners chose. They stay apart, whatever
// separators they have.
func (s suite) hostile(t *testing.T) {
	store := s.open(t)
	values := []string{
		"", " ", "a", "A", "a,b", "a:b", "a|b", "a/b", "a\tb", "a b", "\x1f", "\x1e", "'; drop table clicks; --", `"`, `\`, `\\`,
		"{a}", "}{", "*", "?", "[a]", "%00", "%s", "é", "e\u0301", "日本", "\U0001F600", clicks.Other, "(other", "NULL", "null", "\\N", "0", "-1", "1e9",
		strings.Repeat("x", clicks.MaxValue), strings.Repeat("é", clicks.MaxValue/2), "\u202e", "\ufffd", "$1", "~",
	}
	var m model
	number := uint64(0)
	for i, v := range values {
		number++
		var f clicks.Facts
		for d := range f {
			f[d] = v
		}
		f[clicks.Bot] = ""
		f[clicks.Browser] = values[(i+1)%len(values)]
		c := count("x", monday, 1+int64(i), f)
		if v != "" {
			c.Tags = []string{v}
			c.Owner = "o" + v
		}
		b := batch("p"+v, 1, c)
		m.add(b)
		apply(t, store, b)
		// An owner and a tag are not another owner and tag that read alike side by side.
		for _, pair := range [][2]string{{"a" + v, "b"}, {"a", v + "b"}} {
			number++
			c := count("y", monday, int64(number), clicks.Facts{})
			c.Owner, c.Tags = pair[0], []string{pair[1]}
			b := batch("pairs", number, c)
			m.add(b)
			apply(t, store, b)
		}
	}
	for _, v := range values {
		if v == "" {
			continue
		}
		for _, scope := range []stats.Scope{{Tag: v}, {Owner: "o" + v}, {Owner: "o" + v, Tag: v}, {Owner: "a" + v, Tag: "b"}, {Owner: "a", Tag: v + "b"}, {Owner: "a" + v}} {
			m.compare(t, store, all(scope))
		}
		q := all(stats.Scope{Code: "x"})
		q.Where = map[clicks.Dimension][]string{clicks.Referrer: {v}}
		m.compare(t, store, q)
		q.Where = map[clicks.Dimension][]string{clicks.Source: {v, ""}, clicks.Referrer: {v, ""}}
		m.compare(t, store, q)
	}
	for _, by := range [][]clicks.Dimension{{clicks.Referrer}, {clicks.Campaign, clicks.Browser}} {
		q := all(stats.Scope{Code: "x"})
		q.By = by
		m.compare(t, store, q)
	}
}

// tooMany: a link whose clicks are all different does not take memory without end. Its clicks are
// exact, those of its bots, too, and the values of each dimension sum up to them.
func (s suite) tooMany(t *testing.T) {
	store := s.open(t)
	const batches, each = 20, 500
	for b := range batches {
		c := clicks.Count{Code: "a", Owner: "owner", Tags: []string{"tag"}, Hour: monday.Add(time.Duration(b%2) * time.Hour)}
		for i := range each {
			n := b*each + i
			f := clicks.Facts{
				clicks.Country: []string{"DE", "FR", "US"}[n%3], clicks.Referrer: fmt.Sprintf("host%d.example", n),
				clicks.Source: fmt.Sprint("source", n), clicks.Campaign: fmt.Sprint("campaign", n), clicks.Via: "qr",
			}
			if n%10 == 0 {
				f[clicks.Bot] = "crawler"
				c.Bots++
			} else {
				c.Clicks++
			}
			c.Facts = append(c.Facts, clicks.FactCount{Facts: f, Clicks: 1})
		}
		frequent := clicks.Facts{clicks.Country: "DE", clicks.Referrer: "frequent.example", clicks.Source: "s"}
		c.Facts = append(c.Facts, clicks.FactCount{Facts: frequent, Clicks: 1000})
		c.Clicks += 1000
		apply(t, store, batch("p", uint64(b+1), c))
	}
	const bots, people = batches * each / 10, batches*each*9/10 + batches*1000
	for _, scope := range []stats.Scope{{}, {Code: "a"}, {Owner: "owner"}, {Tag: "tag"}, {Owner: "owner", Tag: "tag"}} {
		for which, want := range map[stats.Bots]int64{stats.People: people, stats.OnlyBots: bots, stats.WithBots: people + bots} {
			q := all(scope)
			q.Bots = which
			if a := ask(t, store, q); a.Clicks != want {
				t.Errorf("%s: %d clicks, want %d", describe(q), a.Clicks, want)
			}
			for _, by := range [][]clicks.Dimension{{clicks.Country}, {clicks.Referrer}, {clicks.Source}, {clicks.Via}, {clicks.Bot}, {clicks.Referrer, clicks.Campaign}} {
				q.By = by
				a := ask(t, store, q)
				if a.Clicks != want {
					t.Errorf("%s: %d clicks, want %d", describe(q), a.Clicks, want)
				}
				if len(a.Rows) > batches*each/4 {
					t.Errorf("%s: %d rows of %d different values: they are not bounded", describe(q), len(a.Rows), batches*each)
				}
				if len(by) == 1 && by[0] == clicks.Country && which == stats.WithBots { // the few values of a dimension are exact
					for _, r := range a.Rows {
						want := map[string]int64{"DE": 3334 + batches*1000, "FR": 3333, "US": 3333}[r.Values[0]]
						if r.Clicks != want {
							t.Errorf("%s: %d clicks of %q, want %d", describe(q), r.Clicks, r.Values[0], want)
						}
					}
				}
				if by[0] == clicks.Referrer && len(by) == 1 && which != stats.OnlyBots {
					// A frequent value is not lost among the many.
					if !slices.ContainsFunc(a.Rows, func(r stats.Row) bool { return r.Values[0] == "frequent.example" && r.Clicks >= batches*1000*9/10 }) {
						t.Errorf("%s: the frequent value is not among %d rows", describe(q), len(a.Rows))
					}
				}
			}
			q.By, q.Where = nil, map[clicks.Dimension][]string{clicks.Bot: {"crawler"}}
			if a := ask(t, store, q); which != stats.People && a.Clicks != bots {
				t.Errorf("%s: %d clicks, want %d", describe(q), a.Clicks, bots)
			}
		}
	}
}
