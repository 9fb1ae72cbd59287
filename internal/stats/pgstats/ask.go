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
// while rows are merged. Of a day it reads no more than a question of $6 dimensions needs, and all of the
// days $7. Who clicked it reads only if $8, and where their number is not known.
const askFor = `
SELECT 0, day, counts, NULL::integer, CASE WHEN $8 THEN visitors END
	FROM clicks_new WHERE scope = $1 AND day BETWEEN $2 AND $3
UNION ALL SELECT 1, day, CASE WHEN $6 = 0 THEN coalesce(hours, counts) WHEN day = ANY($7::integer[]) THEN counts
		WHEN $6 = 1 THEN coalesce(singles, whole, counts) ELSE coalesce(whole, counts) END,
	visited, CASE WHEN $8 AND visited IS NULL THEN visitors END
	FROM clicks_hours WHERE scope = $1 AND day BETWEEN $2 AND $3
UNION ALL SELECT 2, month, counts, NULL, CASE WHEN $8 THEN visitors END
	FROM clicks_days WHERE scope = $1 AND month BETWEEN $4 AND $5`

// askForVisitors reads who clicked on some days.
const askForVisitors = `SELECT day, visitors FROM clicks_hours WHERE scope = $1 AND day = ANY($2) AND visitors IS NOT NULL`

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
	firstMonth, _ := monthOf(first)
	lastMonth, _ := monthOf(last)
	key := keyOf(q.Scope)
	err := s.eachRow(ctx, key, askFor, []any{first, last, firstMonth, lastMonth, a.dimensions, a.divided(first, last), a.people}, func(rows pgx.Rows) error {
		var r askedRow
		_, err := pgx.ForEachRow(rows, []any{&r.table, &r.at, &r.counts, &r.visited, &r.who}, func() error {
			return a.row(&r)
		})
		return err
	})
	if err != nil {
		return stats.Answer{}, err
	}
	if days := a.uncounted(); len(days) > 0 {
		// They may have been merged with others meanwhile, who then count once all the same.
		err := s.eachRow(ctx, key, askForVisitors, []any{days}, func(rows pgx.Rows) error {
			var day int32
			var who pgtype.DriverBytes
			_, err := pgx.ForEachRow(rows, []any{&day, &who}, func() error { return a.days[day].read(who) })
			return err
		})
		if err != nil {
			return stats.Answer{}, err
		}
	}
	return a.answer(), nil
}

// eachRow queries each database that may have something of a scope, which is the first argument. Only one
// at a time is in read.
func (s *Store) eachRow(ctx context.Context, key, sql string, args []any, read func(pgx.Rows) error) error {
	args = append([]any{[]byte(key)}, args...)
	var mu sync.Mutex
	return postgres.Each(s.shards.Homes(key), func(db *postgres.DB) error {
		return db.Do(ctx, "clicks_ask", readTime, func(ctx context.Context, pool *pgxpool.Pool) error {
			rows, err := pool.Query(ctx, sql, args...)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			return read(rows)
		})
	})
}

// askedRow is what askFor reads.
type askedRow struct {
	table, at   int32
	counts, who pgtype.DriverBytes // valid until the next row
	visited     *int32             // nil if not known
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
	stats.Groups
	sums    [][]stats.GroupSum // of each part
	first   []uint32           // the numbers of groups of one value, by the value, or 0
	groups  map[group]uint32
	numbers []group // by number

	dimensions int       // how many matter, beside Bot
	now        *askedRow // that is being read
	slotPart   int32     // the part of the time that the present slot is in
	days       map[int32]*dayVisitors
	old        map[int32]uint64
}

// dayVisitors are who clicked on a day.
type dayVisitors struct {
	visitors
	rows    int   // how many rows the day has
	counted int64 // how many there are, if one of the rows says no more than that
}

// filter is what Where takes of a dimension.
type filter struct {
	dimension int
	taken     map[uint32]bool
}

// group is a combination of values of By: one value more than another group, by that one's number. Number 0
// is that of no values.
type group struct{ before, value uint32 }

func newAsking(q stats.Question, cutoff int32) *asking {
	a := &asking{
		q: q, zone: cmp.Or(q.Zone, time.UTC), cutoff: cutoff, decoder: decoder{words: newWords()}, from: q.From.Unix(), to: q.To.Unix(),
		parts: make(map[int64]int32), byStart: make(map[int64]int32), groups: make(map[group]uint32), numbers: make([]group, 1),
		days: make(map[int32]*dayVisitors), old: make(map[int32]uint64),
	}
	for d, values := range q.Where {
		f := filter{int(d), make(map[uint32]bool)}
		for _, v := range values {
			f.taken[a.id(v)] = true
		}
		a.filters = append(a.filters, f)
	}
	a.known, a.takeAll = known(q)
	for d := range clicks.Dimension(clicks.Dimensions) {
		if _, filtered := q.Where[d]; d != clicks.Bot && (filtered || slices.Contains(q.By, d)) {
			a.dimensions++
		}
	}
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

// divided returns the days whose hours are in several parts of the time, or not all in it.
func (a *asking) divided(first, last int32) []int32 {
	days := []int32{}
	for day := max(first, a.cutoff); day <= last; day++ {
		t := timeOf(day, 0)
		tomorrow := t.AddDate(0, 0, 1)
		if _, end := a.q.Part(t); t.Before(a.q.From) || tomorrow.After(a.q.To) || tomorrow.After(end) {
			days = append(days, day)
		}
	}
	return days
}

// row adds a row.
func (a *asking) row(r *askedRow) error {
	a.now = r
	if err := a.read(r.counts, a); err != nil || !a.people {
		return err
	}
	if r.table == inDays {
		var n numbers
		if err := n.read(r.who); err != nil {
			return err
		}
		for slot, number := range n {
			if day := dayIn(r.at, slot); number > 0 && a.within(day) {
				a.old[day] += number
			}
		}
		return nil
	}
	if !a.within(r.at) {
		return nil
	}
	day := a.days[r.at]
	if day == nil {
		day = &dayVisitors{}
		a.days[r.at] = day
	}
	day.rows++
	if r.visited != nil {
		day.counted = max(day.counted, int64(*r.visited))
	}
	return day.read(r.who)
}

// uncounted returns the days of which it is to be read who clicked: in several rows the same people may
// have.
func (a *asking) uncounted() (days []int32) {
	for day, v := range a.days {
		if v.rows > 1 && v.counted > 0 {
			days = append(days, day)
		}
	}
	return days
}

// within reports whether a day is in a time of whole days.
func (a *asking) within(day int32) bool {
	t := int64(day) * secondsPerDay
	return a.from <= t && t < a.to
}

// slot is that of a reader.
func (a *asking) slot(i int) bool {
	day, hour := a.now.at, i
	switch {
	case a.now.table == inDays:
		day, hour = dayIn(a.now.at, i), 0
	case i == wholeDay:
		hour = 0
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
		a.starts, a.sums = append(a.starts, start), append(a.sums, nil)
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
	number := uint32(0)
	for _, d := range a.q.By {
		number = a.number(group{number, f[d]})
	}
	a.sums[a.slotPart] = a.Add(a.sums[a.slotPart], number, n)
}

func (a *asking) number(g group) uint32 {
	if g.before == 0 { // a list is five times as fast as a map
		if int(g.value) >= len(a.first) {
			a.first = append(a.first, make([]uint32, len(a.words.list)-len(a.first))...)
		}
		if a.first[g.value] == 0 {
			a.first[g.value] = a.newNumber(g)
		}
		return a.first[g.value]
	}
	number, ok := a.groups[g]
	if !ok {
		number = a.newNumber(g)
		a.groups[g] = number
	}
	return number
}

func (a *asking) newNumber(g group) uint32 {
	a.numbers = append(a.numbers, g)
	return uint32(len(a.numbers) - 1)
}

// values returns the values of a group.
func (a *asking) values(number uint32) []string {
	values := make([]string, len(a.q.By))
	for i := len(values) - 1; i >= 0; i-- {
		g := a.numbers[number]
		values[i], number = a.list[g.value], g.before
	}
	return values
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
	most, rest := answerMost, uint32(0)
	if a.q.Most > 0 {
		most = min(most, a.q.Most)
	}
	for range a.q.By {
		rest = a.number(group{rest, other})
	}
	parts := make([]int, len(a.starts))
	for i := range parts {
		parts[i] = i
	}
	slices.SortFunc(parts, func(i, j int) int { return a.starts[i].Compare(a.starts[j]) })
	for _, part := range parts {
		for _, s := range stats.Most(a.Once(a.sums[part]), most, rest, a.values) {
			answer.Clicks += s.Clicks
			answer.Rows = append(answer.Rows, stats.Row{Start: a.starts[part], Values: a.values(s.Group), Clicks: s.Clicks, Visitors: -1})
		}
	}
	a.count(&answer)
	return answer
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
		add(day, max(v.estimate(), v.counted))
	}
	for day, n := range a.old {
		add(day, int64(n))
	}
}
