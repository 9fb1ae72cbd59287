package redisstats

import (
	"cmp"
	"context"
	"encoding/binary"
	"math"
	"slices"
	"time"

	"snowlink/internal/clicks"
	"snowlink/internal/stats"
)

// askTrip is how many pages a question reads in one round trip.
const askTrip = 64

// eachDay reads the scope's page of each day from the day of from to that before to, and calls f with
// those that have the scope. Its sums are tidy. They have the lists that are wanted.
func (s *Store) eachDay(ctx context.Context, scope string, want byte, from, to time.Time, f func(day int, p *page, sums *sums)) error {
	now := time.Now()
	first, last := max(dayOf(from), s.firstKept(now)), min(dayOf(to.Add(-1)), dayOf(now)+1)
	var ids []pageID
	for day := first; day <= last; day++ {
		ids = append(ids, dayPage(day, scope))
	}
	for some := range slices.Chunk(ids, askTrip) {
		texts, err := s.read(ctx, some)
		if err != nil {
			return err
		}
		for i, text := range texts {
			p, err := readPage(text, scope, want)
			if err != nil {
				return err
			}
			if sums := p.scopes[scope]; sums != nil {
				sums.tidy(p.facts.list)
				f(some[i].day, p, sums)
			}
		}
	}
	return nil
}

// Ask reads the page of each day.
func (s *Store) Ask(ctx context.Context, q stats.Question) (stats.Answer, error) {
	ctx, cancel := s.conn.Limit(ctx)
	defer cancel()
	a := newAnswering(q)
	err := s.eachDay(ctx, scopeName(q.Scope), a.want(), q.From, q.To, a.add)
	if err != nil {
		return stats.Answer{}, s.ops.ask.Unavailable(s.conn.Reads, err)
	}
	s.conn.Reads.Ended()
	return a.answer(), nil
}

// answering adds up the answer to a question.
type answering struct {
	stats.Question
	zone       *time.Location
	dimensions map[clicks.Dimension]bool // that matter
	visitors   bool                      // whether they are known
	people     int64

	parts  []part // in order
	values map[string]int32
	texts  [][]string // by what values has
	groups stats.Groups
}

// part is a part of the time.
type part struct {
	start, end time.Time // in the zone
	people     int64
	sums       []stats.GroupSum // by index into texts
}

func newAnswering(q stats.Question) *answering {
	a := &answering{
		Question: q, zone: cmp.Or(q.Zone, time.UTC), dimensions: make(map[clicks.Dimension]bool),
		values: make(map[string]int32),
	}
	for _, d := range q.By {
		a.dimensions[d] = true
	}
	for d := range q.Where {
		a.dimensions[d] = true
	}
	whole := func(t time.Time) bool { return t.Equal(t.Truncate(24 * time.Hour)) }
	a.visitors = len(a.dimensions) == 0 && whole(q.From) && whole(q.To) && q.Bots != stats.OnlyBots
	return a
}

// want returns which lists of sums the question is about.
func (a *answering) want() byte {
	switch {
	case a.visitors:
		return hasHours | hasVisitors | hasSketch | hasCounted
	case len(a.dimensions) == 0:
		return hasHours
	case len(a.dimensions) == 1:
		return hasHours | hasCombined | hasSingle
	default:
		return hasHours | hasCombined
	}
}

// partOf returns the index of the part of the time that t is in. Times come in order.
func (a *answering) partOf(t time.Time) int32 {
	if n := len(a.parts); n == 0 || !t.Before(a.parts[n-1].end) {
		start, end := a.Part(t)
		a.parts = append(a.parts, part{start: start, end: end})
	}
	return int32(len(a.parts) - 1)
}

// valuesOf returns the index of the values that a row has by the facts.
func (a *answering) valuesOf(f *clicks.Facts) int32 {
	var key []byte
	for _, d := range a.By {
		key = append(binary.AppendUvarint(key, uint64(len(f[d]))), f[d]...)
	}
	n, ok := a.values[string(key)]
	if !ok {
		n = int32(len(a.texts))
		texts := make([]string, len(a.By))
		for i, d := range a.By {
			texts[i] = f[d]
		}
		a.values[string(key)], a.texts = n, append(a.texts, texts)
	}
	return n
}

// where reports whether the filters take the facts.
func (a *answering) where(f *clicks.Facts) bool {
	for d, values := range a.Where {
		if !slices.Contains(values, f[d]) {
			return false
		}
	}
	return true
}

// add adds a day.
func (a *answering) add(day int, p *page, s *sums) {
	var parts [24]int32 // by hour, -1 for those that the question is not about
	for hour := range parts {
		parts[hour] = -1
		at := timeOf(day).Add(time.Duration(hour) * time.Hour)
		if has := slices.ContainsFunc(s.hours, func(h hourSum) bool { return int(h.hour) == hour }); has && !at.Before(a.From) && at.Before(a.To) {
			parts[hour] = a.partOf(at)
		}
	}
	partAt := func(hour uint8) int32 {
		if int(hour) < len(parts) {
			return parts[hour]
		}
		return -1
	}
	if a.visitors && len(s.hours) > 0 {
		people := s.people()
		a.people += people
		for _, i := range parts {
			if i >= 0 {
				a.parts[i].people += people // a day is in one part, or the parts have no visitors
				break
			}
		}
	}
	count := func(hour uint8, values int32, n int64) {
		if part := partAt(hour); part >= 0 && n > 0 {
			a.parts[part].sums = a.groups.Add(a.parts[part].sums, uint32(values), n)
		}
	}
	if len(a.dimensions) == 0 {
		none := a.valuesOf(nil)
		for _, h := range s.hours {
			count(h.hour, none, h.of(a.Bots))
		}
		return
	}

	var rest [24]tally // clicks whose facts are not known, or not in combination
	for _, h := range s.hours {
		if partAt(h.hour) >= 0 {
			rest[h.hour].add(h.tally)
		}
	}
	// Which values the facts have is found out once for each of them.
	const unknown, unwanted = -1, -2
	values := slices.Repeat([]int32{unknown}, len(p.facts.list))
	for _, c := range s.combined {
		f := &p.facts.list[c.facts]
		bots := f[clicks.Bot] != ""
		if partAt(c.hour) < 0 {
			continue
		}
		if bots {
			rest[c.hour].bots -= c.clicks
		} else {
			rest[c.hour].people -= c.clicks
		}
		if values[c.facts] == unknown {
			if values[c.facts] = unwanted; a.Bots.Count(bots) && a.where(f) {
				values[c.facts] = a.valuesOf(f)
			}
		}
		if v := values[c.facts]; v >= 0 {
			count(c.hour, v, c.clicks)
		}
	}
	if len(a.dimensions) == 1 {
		for _, v := range s.single {
			if !a.dimensions[clicks.Dimension(v.dimension)] {
				continue
			}
			var f clicks.Facts
			f[v.dimension] = v.value
			wanted, number := a.where(&f), a.valuesOf(&f)
			for _, h := range v.hours {
				if partAt(h.hour) < 0 {
					continue
				}
				rest[h.hour].people -= h.people
				rest[h.hour].bots -= h.bots
				if wanted {
					count(h.hour, number, h.of(a.Bots))
				}
			}
		}
	}
	for _, bots := range []bool{false, true} {
		if !a.Bots.Count(bots) {
			continue
		}
		var f clicks.Facts
		for d := range f {
			f[d] = clicks.Other
		}
		if !bots {
			f[clicks.Bot] = ""
		}
		if !a.where(&f) {
			continue
		}
		v := a.valuesOf(&f)
		for hour, t := range rest {
			if n := t.people; !bots {
				count(uint8(hour), v, n)
			} else {
				count(uint8(hour), v, t.bots)
			}
		}
	}
}

// answer puts the rows in order.
func (a *answering) answer() stats.Answer {
	answer := stats.Answer{Visitors: -1}
	if a.visitors {
		answer.Visitors = a.people
	}
	partVisitors := a.visitors && a.zone.String() == "UTC" && a.Unit != stats.Hour
	var others clicks.Facts
	for d := range others {
		others[d] = clicks.Other
	}
	most, rest := math.MaxInt, uint32(a.valuesOf(&others))
	if a.Most > 0 && len(a.By) > 0 {
		most = a.Most
	}
	for _, p := range a.parts {
		row := stats.Row{Start: p.start, Visitors: -1}
		if partVisitors {
			row.Visitors = p.people
		}
		for _, s := range stats.Most(a.groups.Once(p.sums), most, rest, func(group uint32) []string { return a.texts[group] }) {
			row.Values, row.Clicks = a.texts[s.Group], s.Clicks
			answer.Rows = append(answer.Rows, row)
			answer.Clicks += s.Clicks
		}
	}
	return answer
}

// Top adds up the links of each day. A list of a day has the linksMost most frequent ones: the
// clicks of those are exact on days when no more links of the scope were clicked.
func (s *Store) Top(ctx context.Context, scope stats.Scope, from, to time.Time, bots stats.Bots, n int) ([]stats.LinkClicks, error) {
	if scope.Code != "" {
		a, err := s.Ask(ctx, stats.Question{Scope: scope, From: from, To: to, Bots: bots})
		if err != nil || a.Clicks == 0 || n < 1 {
			return nil, err
		}
		return []stats.LinkClicks{{Code: scope.Code, Clicks: a.Clicks}}, nil
	}
	return s.topOf(ctx, scopeName(scope), from, to, bots, n)
}

// Misses is Top of the codes that were not found. It takes whole days.
func (s *Store) Misses(ctx context.Context, from, to time.Time, n int) ([]stats.LinkClicks, error) {
	return s.topOf(ctx, missed, from, to, stats.People, n)
}

func (s *Store) topOf(ctx context.Context, scope string, from, to time.Time, bots stats.Bots, n int) ([]stats.LinkClicks, error) {
	ctx, cancel := s.conn.Limit(ctx)
	defer cancel()
	clicked := make(map[string]int64)
	err := s.eachDay(ctx, scope, hasLinks, from, to, func(_ int, _ *page, day *sums) {
		for _, l := range day.links {
			if n := l.of(bots); n > 0 {
				clicked[l.code] += n
			}
		}
	})
	if err != nil {
		return nil, s.ops.ask.Unavailable(s.conn.Reads, err)
	}
	s.conn.Reads.Ended()
	var top []stats.LinkClicks
	for code, n := range clicked {
		top = append(top, stats.LinkClicks{Code: code, Clicks: n})
	}
	slices.SortFunc(top, func(a, b stats.LinkClicks) int {
		return cmp.Or(cmp.Compare(b.Clicks, a.Clicks), cmp.Compare(a.Code, b.Code))
	})
	return top[:min(max(n, 0), len(top))], nil
}

// Totals reads the pages of totals. They have every click since a link was first clicked, if it never
// went without one for as long as clicks are kept, and if there is room: see cutTotals.
func (s *Store) Totals(ctx context.Context, codes []string) ([]int64, error) {
	ctx, cancel := s.conn.Limit(ctx)
	defer cancel()
	clicked := make([]int64, len(codes))
	byPage := make(map[pageID][]int)
	for i, code := range codes {
		byPage[totalsPage(code)] = append(byPage[totalsPage(code)], i)
	}
	ids := make([]pageID, 0, len(byPage))
	for id := range byPage {
		ids = append(ids, id)
	}
	for some := range slices.Chunk(ids, askTrip) {
		texts, err := s.read(ctx, some)
		if err != nil {
			return nil, s.ops.ask.Unavailable(s.conn.Reads, err)
		}
		for i, text := range texts {
			for _, at := range byPage[some[i]] {
				p, err := readPage(text, codes[at], everyList)
				if err != nil {
					return nil, s.ops.ask.Unavailable(s.conn.Reads, err)
				}
				if sums := p.scopes[codes[at]]; sums != nil {
					for _, h := range sums.hours {
						clicked[at] += h.people
					}
				}
			}
		}
	}
	s.conn.Reads.Ended()
	return clicked, nil
}

// Forget rewrites every page of the link without it.
func (s *Store) Forget(ctx context.Context, code string) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, applyTime)
		defer cancel()
	}
	ids := []pageID{totalsPage(code)}
	now := time.Now()
	for day := s.firstKept(now) - 2; day <= dayOf(now)+1; day++ {
		ids = append(ids, dayPage(day, linkName(code)))
	}
	cost := make(map[int]int64)
	err := s.rewrite(ctx, ids, rewriting{forget: code}, cost)
	if err == nil {
		err = s.account(ctx, cost)
	}
	if err != nil {
		return s.ops.forget.Unavailable(s.conn.Writes, err)
	}
	s.conn.Writes.Ended()
	return nil
}
