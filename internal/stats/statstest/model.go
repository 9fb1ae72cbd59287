package statstest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"snowlink/internal/clicks"
	"snowlink/internal/stats"
)

// model keeps every count that was applied, each once, and answers questions by going through them.
type model struct{ counts []clicks.Count }

func (m *model) add(batches ...clicks.Batch) {
	for _, b := range batches {
		m.counts = append(m.counts, b.Counts...)
	}
}

func within(s stats.Scope, c clicks.Count) bool {
	return (s.Code == "" || s.Code == c.Code) && (s.Owner == "" || s.Owner == c.Owner) &&
		(s.Tag == "" || slices.Contains(c.Tags, s.Tag))
}

// counted reports whether the clicks of bots, or those of people, count.
func counted(bots stats.Bots, isBot bool) bool {
	return bots == stats.WithBots || (bots == stats.OnlyBots) == isBot
}

// begins returns when the part of the time that t is in begins.
func begins(q stats.Question, t time.Time) time.Time {
	zone := cmp.Or(q.Zone, time.UTC)
	t = t.In(zone)
	year, month, day := t.Date()
	switch q.Unit {
	case stats.Hour:
		return t
	case stats.Day:
		return time.Date(year, month, day, 0, 0, 0, 0, zone)
	case stats.Week:
		return time.Date(year, month, day-(int(t.Weekday())+6)%7, 0, 0, 0, 0, zone)
	case stats.Month:
		return time.Date(year, month, 1, 0, 0, 0, 0, zone)
	default:
		return q.From
	}
}

// rows are the clicks of an answer, by the second at which the part begins, and the values.
type rows map[string]int64

func rowKey(start time.Time, values []string) string {
	return fmt.Sprintf("%d %q", start.Unix(), values)
}

// rows returns the rows that the answer to a question has. It takes clicks whose facts were dropped
// for ones with Other in every dimension but whether they were bots.
func (m *model) rows(q stats.Question) (all rows, total int64) {
	all = rows{}
	add := func(c clicks.Count, f clicks.Facts, n int64) {
		if n <= 0 || !counted(q.Bots, f[clicks.Bot] != "") {
			return
		}
		for d, values := range q.Where {
			if !slices.Contains(values, f[d]) {
				return
			}
		}
		var values []string
		for _, d := range q.By {
			values = append(values, f[d])
		}
		all[rowKey(begins(q, c.Hour), values)] += n
		total += n
	}
	for _, c := range m.counts {
		if !within(q.Scope, c) || c.Hour.Before(q.From) || !c.Hour.Before(q.To) {
			continue
		}
		people, bots := c.Clicks, c.Bots
		for _, f := range c.Facts {
			add(c, f.Facts, f.Clicks)
			if f.Facts[clicks.Bot] == "" {
				people -= f.Clicks
			} else {
				bots -= f.Clicks
			}
		}
		var dropped clicks.Facts
		for d := range dropped {
			dropped[d] = clicks.Other
		}
		add(c, dropped, bots)
		dropped[clicks.Bot] = ""
		add(c, dropped, people)
	}
	return all, total
}

// visitors returns how many people clicked, by the second at which the part begins, and in all.
func (m *model) visitors(q stats.Question) (by map[int64]int64, total int64) {
	type once struct {
		day     time.Time
		visitor uint64
	}
	seen := map[once]bool{}
	by = map[int64]int64{}
	for _, c := range m.counts {
		if !within(q.Scope, c) || c.Hour.Before(q.From) || !c.Hour.Before(q.To) {
			continue
		}
		for _, v := range c.Visitors {
			o := once{c.Hour.Truncate(24 * time.Hour), v}
			if !seen[o] {
				seen[o] = true
				by[begins(q, c.Hour).Unix()]++
				total++
			}
		}
	}
	return by, total
}

// links returns the clicks of each link.
func (m *model) links(s stats.Scope, from, to time.Time, bots stats.Bots) map[string]int64 {
	sums := map[string]int64{}
	for _, c := range m.counts {
		if !within(s, c) || c.Hour.Before(from) || !c.Hour.Before(to) {
			continue
		}
		if counted(bots, false) && c.Clicks > 0 {
			sums[c.Code] += c.Clicks
		}
		if counted(bots, true) && c.Bots > 0 {
			sums[c.Code] += c.Bots
		}
	}
	return sums
}

// compare asks the store and fails the test where its answer is not the model's.
func (m *model) compare(t *testing.T, store stats.Store, q stats.Question) {
	t.Helper()
	want, total := m.rows(q)
	a := ask(t, store, q)
	if a.Clicks != total {
		t.Errorf("%s: %d clicks, want %d", describe(q), a.Clicks, total)
	}
	got := rows{}
	for i, r := range a.Rows {
		if len(r.Values) != len(q.By) {
			t.Errorf("%s: a row has the values %q", describe(q), r.Values)
		}
		if i > 0 {
			before := a.Rows[i-1]
			if r.Start.Before(before.Start) || r.Start.Equal(before.Start) && r.Clicks > before.Clicks {
				t.Errorf("%s: row %d is not in order", describe(q), i)
			}
		}
		if zone := cmp.Or(q.Zone, time.UTC); r.Start.Location().String() != zone.String() && q.Unit != stats.Whole {
			t.Errorf("%s: a row begins in the zone %s, want %s", describe(q), r.Start.Location(), zone)
		}
		key := rowKey(r.Start, r.Values)
		if _, twice := got[key]; twice {
			t.Errorf("%s: there are two rows %s", describe(q), key)
		}
		got[key] = r.Clicks
	}
	differences := 0
	for _, key := range slices.Sorted(keys(got, want)) {
		if got[key] != want[key] {
			if differences++; differences <= 5 {
				t.Errorf("%s: row %s has %d clicks, want %d", describe(q), key, got[key], want[key])
			}
		}
	}
	if differences > 5 {
		t.Errorf("%s: %d rows differ", describe(q), differences)
	}
}

// keys yields the keys of both, those in common once.
func keys(a, b rows) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range a {
			if !yield(k) {
				return
			}
		}
		for k := range b {
			if _, common := a[k]; !common && !yield(k) {
				return
			}
		}
	}
}

func describe(q stats.Question) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%+v unit %d from %s to %s", q.Scope, q.Unit, q.From.Format(time.RFC3339), q.To.Format(time.RFC3339))
	if q.Zone != nil {
		fmt.Fprintf(&s, " in %s", q.Zone)
	}
	if len(q.By) > 0 {
		fmt.Fprintf(&s, " by %s", q.By)
	}
	for d, values := range q.Where {
		fmt.Fprintf(&s, " where %s is of %q", d, values)
	}
	fmt.Fprintf(&s, " bots %d", q.Bots)
	return s.String()
}

func ask(t *testing.T, store stats.Store, q stats.Question) stats.Answer {
	t.Helper()
	a, err := store.Ask(t.Context(), q)
	if err != nil {
		t.Fatalf("%s: %v", describe(q), err)
	}
	var sum int64
	for _, r := range a.Rows {
		if sum += r.Clicks; r.Clicks <= 0 {
			t.Errorf("%s: a row has %d clicks", describe(q), r.Clicks)
		}
	}
	if sum != a.Clicks {
		t.Errorf("%s: the rows have %d clicks, and the answer %d", describe(q), sum, a.Clicks)
	}
	return a
}
