package pgstats

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"snowlink/internal/clicks"
	"snowlink/internal/postgres"
	"snowlink/internal/stats"
)

// Tables, as queries tell them apart.
const (
	inNew = iota
	inHours
	inDays
)

// askFor reads all that is kept of a scope, in one statement, so that nothing is missing or comes twice
// while rows are merged.
const askFor = `
SELECT 0, day, counts, NULL::bytea FROM clicks_new WHERE scope = $1 AND day BETWEEN $2 AND $3
UNION ALL SELECT 1, day, counts, NULL::bytea FROM clicks_hours WHERE scope = $1 AND day BETWEEN $2 AND $3
UNION ALL SELECT 2, month, counts, NULL::bytea FROM clicks_days WHERE scope = $1 AND month BETWEEN $4 AND $5`

const askForVisitors = `
SELECT 0, day, counts, visitors FROM clicks_new WHERE scope = $1 AND day BETWEEN $2 AND $3
UNION ALL SELECT 1, day, counts, visitors FROM clicks_hours WHERE scope = $1 AND day BETWEEN $2 AND $3
UNION ALL SELECT 2, month, counts, visitors FROM clicks_days WHERE scope = $1 AND month BETWEEN $4 AND $5`

// answerMost is how many rows of an answer each part of the time has at most. More values than in any
// hour may come from several hours, and from rows that are not merged yet.
const answerMost = 1000

// Ask reads the rows of the scope and goes through them. Of the time before [Store.Since], of which
// days are kept, a day (UTC) is that of the same date in the question's zone, and is taken if it
// begins within the time.
//
// With filters in several dimensions, or one and By of another, it cannot say of clicks beyond the most
// frequent combinations of an hour whether they are among those asked for. Those that may be are rows
// of Other, if there is one filter, and left out if there are more.
func (s *Store) Ask(ctx context.Context, q stats.Question) (stats.Answer, error) {
	a := newAsking(q, s.cutoff())
	if !q.From.Before(q.To) {
		return a.answer(), nil
	}
	first, last := dayOf(q.From), dayOf(q.To.Add(-time.Nanosecond))
	if first < a.cutoff && a.fine() {
		return stats.Answer{}, stats.ErrTooFine
	}
	if first <= a.cutoff { // the date of a zone may be another
		first--
		last++
	}
	sql := askFor
	if a.people {
		sql = askForVisitors
	}
	firstMonth, _ := monthOf(first)
	lastMonth, _ := monthOf(last)
	key := keyOf(q.Scope)
	var mu sync.Mutex
	err := postgres.Each(s.shards.Homes(key), func(db *postgres.DB) error {
		return db.Do(ctx, "clicks_ask", readTime, func(ctx context.Context, pool *pgxpool.Pool) error {
			rows, err := pool.Query(ctx, sql, []byte(key), first, last, firstMonth, lastMonth)
			if err != nil {
				return err
			}
			var table, at int32
			var counts, who pgtype.DriverBytes // valid until the next row
			_, err = pgx.ForEachRow(rows, []any{&table, &at, &counts, &who}, func() error {
				mu.Lock()
				defer mu.Unlock()
				return a.row(int(table), at, counts, who)
			})
			return err
		})
	})
	if err != nil {
		return stats.Answer{}, err
	}
	return a.answer(), nil
}

// asking adds up rows to an answer.
type asking struct {
	q      stats.Question
	zone   *time.Location
	cutoff int32
	decoder
	from, to int64 // Unix seconds

	filters []filter
	// folded clicks are known by one dimension: that of known, if it is not negative. Otherwise they
	// are taken as they are, or left out.
	known   int
	takeAll bool
	people  bool // how many there were is to be told

	parts   map[int64]int32 // of the time, by the Unix seconds of hours
	byStart map[int64]int32 // and by those at which they begin
	starts  []time.Time
	groups  map[group]int64
	combos  map[facts]uint32 // combinations of more values than a group has, by number
	combo   []facts

	table, at int32
	slotPart  int32 // the part of the time that the present slot is in
	days      map[int32]*visitors
	old       map[int32]uint64
}

// filter is what Where takes of a dimension.
type filter struct {
	dimension int
	taken     map[uint32]bool
}

// group is a row of the answer: the part of the time and the first values, or a number of combos.
type group struct {
	part   int32
	values [2]uint32
}

func newAsking(q stats.Question, cutoff int32) *asking {
	a := &asking{
		q: q, zone: cmp.Or(q.Zone, time.UTC), cutoff: cutoff, decoder: decoder{words: newWords()}, from: q.From.Unix(), to: q.To.Unix(),
		parts: make(map[int64]int32), byStart: make(map[int64]int32), groups: make(map[group]int64), combos: make(map[facts]uint32),
		days: make(map[int32]*visitors), old: make(map[int32]uint64),
	}
	for d, values := range q.Where {
		f := filter{int(d), make(map[uint32]bool)}
		for _, v := range values {
			f.taken[a.id(v)] = true
		}
		a.filters = append(a.filters, f)
	}
	a.known, a.takeAll = known(q)
	a.people = len(q.By) == 0 && len(q.Where) == 0 && q.From.Before(q.To) &&
		a.from%secondsPerDay == 0 && a.to%secondsPerDay == 0
	return a
}

// fine reports whether days and single dimensions are not enough for the answer.
func (a *asking) fine() bool {
	several := len(a.q.By) + len(a.q.Where)
	for _, d := range a.q.By {
		if _, both := a.q.Where[d]; both {
			several--
		}
	}
	return a.q.Unit == stats.Hour || several > 1
}

// row adds a row of a table.
func (a *asking) row(table int, at int32, counts, who []byte) error {
	a.table, a.at = int32(table), at
	if err := a.read(counts, a); err != nil {
		return err
	}
	if !a.people || len(who) == 0 {
		return nil
	}
	if table == inDays {
		var n numbers
		if err := n.read(who); err != nil {
			return err
		}
		for slot, number := range n {
			if day := dayIn(at, slot); number > 0 && a.within(day) {
				a.old[day] += number
			}
		}
		return nil
	}
	if !a.within(at) {
		return nil
	}
	if a.days[at] == nil {
		a.days[at] = &visitors{}
	}
	return a.days[at].read(who)
}

// within reports whether a day is in a time of whole days.
func (a *asking) within(day int32) bool {
	t := int64(day) * secondsPerDay
	return a.from <= t && t < a.to
}

// slot is that of a reader.
func (a *asking) slot(i int) bool {
	day, hour := a.at, i
	if a.table == inDays {
		day, hour = dayIn(a.at, i), 0
	}
	t := timeOf(day, hour)
	if day < a.cutoff {
		year, month, date := t.Date()
		t = time.Date(year, month, date, 0, 0, 0, 0, a.zone)
	}
	seconds := t.Unix()
	if seconds < a.from || seconds >= a.to {
		return false
	}
	part, ok := a.parts[seconds]
	if !ok {
		start, _ := a.q.Part(t)
		part = a.partAt(start)
		a.parts[seconds] = part
	}
	a.slotPart = part
	return true
}

// partAt returns the number of the part of the time that begins then.
func (a *asking) partAt(start time.Time) int32 {
	part, ok := a.byStart[start.Unix()]
	if !ok {
		part = int32(len(a.starts))
		a.byStart[start.Unix()] = part
		a.starts = append(a.starts, start)
	}
	return part
}

func (a *asking) takes(f *facts) bool {
	if !a.q.Bots.Count(f[clicks.Bot] != none) {
		return false
	}
	for i := range a.filters {
		if filter := &a.filters[i]; !filter.taken[f[filter.dimension]] {
			return false
		}
	}
	return true
}

// joint is that of a reader.
func (a *asking) joint(f *facts, n int64) {
	if a.takes(f) {
		a.add(f, n)
	}
}

func (a *asking) add(f *facts, n int64) {
	g := group{part: a.slotPart}
	if by := a.q.By; len(by) <= len(g.values) {
		for i, d := range by {
			g.values[i] = f[d]
		}
	} else {
		var combo facts
		for i, d := range by {
			combo[i] = f[d]
		}
		number, ok := a.combos[combo]
		if !ok {
			number = uint32(len(a.combo))
			a.combos[combo] = number
			a.combo = append(a.combo, combo)
		}
		g.values[0] = number
	}
	a.groups[g] += n
}

// folded is that of a reader. With one dimension the parts tell more, see wants.
func (a *asking) folded(bot uint32, n int64) {
	if a.takeAll {
		f := a.unknown(bot)
		if a.takesBot(&f) {
			a.add(&f, n)
		}
	}
}

// unknown are the facts of folded clicks.
func (a *asking) unknown(bot uint32) (f facts) {
	for d := range f {
		f[d] = other
	}
	f[clicks.Bot] = bot
	return f
}

// takesBot is takes with regard to nothing but Bot.
func (a *asking) takesBot(f *facts) bool {
	if !a.q.Bots.Count(f[clicks.Bot] != none) {
		return false
	}
	for i := range a.filters {
		if filter := &a.filters[i]; filter.dimension == int(clicks.Bot) && !filter.taken[f[clicks.Bot]] {
			return false
		}
	}
	return true
}

// known returns the one dimension by which folded clicks are told apart: that of the only filter, or
// the only one of By. It is negative if there is none, or several. Whether they are bots is known too.
func known(q stats.Question) (dimension int, takeAll bool) {
	some := func(of func(func(clicks.Dimension))) (dimension, n int) {
		of(func(d clicks.Dimension) {
			if d != clicks.Bot && (n == 0 || dimension != int(d)) {
				dimension = int(d)
				n++
			}
		})
		return dimension, n
	}
	filter, filters := some(func(is func(clicks.Dimension)) {
		for d := range q.Where {
			is(d)
		}
	})
	by, bys := some(func(is func(clicks.Dimension)) {
		for _, d := range q.By {
			is(d)
		}
	})
	switch {
	case filters == 1:
		return filter, false
	case filters == 0 && bys == 1:
		return by, false
	}
	return -1, filters == 0
}

// wants is that of a reader.
func (a *asking) wants(dimension int) bool { return dimension == a.known }

// part is that of a reader.
func (a *asking) part(p part, n int64) {
	f := a.unknown(p.bot)
	f[p.dimension] = p.value
	if !a.takesBot(&f) {
		return
	}
	for i := range a.filters {
		if filter := &a.filters[i]; filter.dimension == int(p.dimension) && !filter.taken[p.value] {
			return
		}
	}
	a.add(&f, n)
}

// answer makes the answer of what was added up.
func (a *asking) answer() stats.Answer {
	answer := stats.Answer{Visitors: -1}
	byPart := make([][]stats.Row, len(a.starts))
	for g, n := range a.groups {
		if n == 0 {
			continue
		}
		row := stats.Row{Start: a.starts[g.part], Values: make([]string, len(a.q.By)), Clicks: n, Visitors: -1}
		for i := range row.Values {
			if len(row.Values) <= len(g.values) {
				row.Values[i] = a.list[g.values[i]]
			} else {
				row.Values[i] = a.list[a.combo[g.values[0]][i]]
			}
		}
		answer.Clicks += n
		byPart[g.part] = append(byPart[g.part], row)
	}
	for _, rows := range byPart {
		n := answerMost
		if a.q.Most > 0 {
			n = min(n, a.q.Most)
		}
		answer.Rows = append(answer.Rows, most(rows, n)...)
	}
	slices.SortStableFunc(answer.Rows, func(x, y stats.Row) int { return x.Start.Compare(y.Start) })
	a.count(&answer)
	return answer
}

// most sorts rows, and makes those that are too many, and one of Other, one row of Other.
func most(rows []stats.Row, n int) []stats.Row {
	sort := func() {
		slices.SortFunc(rows, func(x, y stats.Row) int {
			return cmp.Or(cmp.Compare(y.Clicks, x.Clicks), slices.Compare(x.Values, y.Values))
		})
	}
	sort()
	if len(rows) <= n || len(rows[0].Values) == 0 {
		return rows
	}
	rest := stats.Row{Start: rows[0].Start, Values: slices.Repeat([]string{clicks.Other}, len(rows[0].Values)), Visitors: -1}
	kept := rows[:0]
	for _, r := range rows {
		if len(kept) == n || slices.Equal(r.Values, rest.Values) {
			rest.Clicks += r.Clicks
		} else {
			kept = append(kept, r)
		}
	}
	rows = append(kept, rest)
	sort()
	return rows
}

// count tells how many people there were.
func (a *asking) count(answer *stats.Answer) {
	if !a.people {
		return
	}
	_, from := a.q.From.In(a.zone).Zone()
	_, to := a.q.To.In(a.zone).Zone()
	byRow := a.q.Unit != stats.Hour && (a.q.Unit == stats.Whole || from == 0 && to == 0)
	if byRow {
		for i := range answer.Rows {
			answer.Rows[i].Visitors = 0
		}
	}
	answer.Visitors = 0
	if a.q.Bots == stats.OnlyBots {
		return
	}
	add := func(day int32, n int64) {
		answer.Visitors += n
		start, _ := a.q.Part(timeOf(day, 0))
		if i := slices.IndexFunc(answer.Rows, func(r stats.Row) bool { return r.Start.Equal(start) }); byRow && i >= 0 {
			answer.Rows[i].Visitors += n
		}
	}
	for day, v := range a.days {
		add(day, v.estimate())
	}
	for day, n := range a.old {
		add(day, int64(n))
	}
}
