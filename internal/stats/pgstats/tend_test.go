package pgstats_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"snowlink/internal/clicks"
	"snowlink/internal/link"
	"snowlink/internal/postgres/postgrestest"
	"snowlink/internal/stats"
	"snowlink/internal/stats/pgstats"
)

// tending is a store that is tended after each Apply.
type tending struct {
	*pgstats.Store
	t *testing.T
}

func (s tending) Apply(ctx context.Context, batches []clicks.Batch) (stats.Applied, error) {
	a, err := s.Store.Apply(ctx, batches)
	if err == nil {
		if err := s.TendOnce(s.t.Context()); err != nil {
			s.t.Error(err)
		}
	}
	return a, err
}

var (
	monday = time.Date(2026, 10, 19, 0, 0, 0, 0, time.UTC)
	scopes = []stats.Scope{{}, {Code: "code1"}, {Code: "code7"}, {Owner: "owner1"}, {Tag: "tag1"}, {Owner: "owner1", Tag: "tag1"}}
)

// made makes n batches of as many producers, with clicks over ten days from monday on.
func made(seed uint64, n, producers int) (batches []clicks.Batch) {
	r := rand.New(rand.NewPCG(seed, 2))
	pool := facts(r)[:40]
	for i := range n {
		b := clicks.Batch{Producer: fmt.Sprint("producer", seed, "-", i%producers), Number: uint64(i/producers + 1)}
		for range 20 {
			code := r.IntN(12)
			c := clicks.Count{
				Code: fmt.Sprint("code", code), Owner: fmt.Sprint("owner", code%3), Tags: []string{fmt.Sprint("tag", code%2)},
				Hour: monday.Add(time.Duration(r.IntN(240)) * time.Hour), Clicks: 2, Bots: 1, Visitors: []uint64{r.Uint64()},
			}
			bot := pool[r.IntN(len(pool))]
			bot[clicks.Bot] = "crawler"
			c.Facts = []clicks.FactCount{{Facts: pool[r.IntN(len(pool))], Clicks: 2}, {Facts: bot, Clicks: 1}}
			b.Counts = append(b.Counts, c)
		}
		batches = append(batches, b)
	}
	return batches
}

func apply(t testing.TB, s stats.Store, batches ...clicks.Batch) stats.Applied {
	t.Helper()
	a, err := s.Apply(t.Context(), batches)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func ask(t testing.TB, s stats.Store, q stats.Question) stats.Answer {
	t.Helper()
	a, err := s.Ask(t.Context(), q)
	if err != nil {
		t.Fatalf("%+v: %v", q, err)
	}
	return a
}

// same checks that two answers to a question are the same, and not empty unless the link is forgotten.
func same(t testing.TB, q stats.Question, got, want stats.Answer) {
	t.Helper()
	if reflect.DeepEqual(got, want) && (want.Clicks > 0 || q.Code == "code1") {
		return
	}
	var first string
	for i, r := range got.Rows {
		if i >= len(want.Rows) || !reflect.DeepEqual(r, want.Rows[i]) {
			first = fmt.Sprintf("; row %d is %v", i, r)
			if i < len(want.Rows) {
				first += fmt.Sprint(", want ", want.Rows[i])
			}
			break
		}
	}
	t.Errorf("%+v: %d clicks, %d visitors, %d rows, want %d, %d, %d%s", q,
		got.Clicks, got.Visitors, len(got.Rows), want.Clicks, want.Visitors, len(want.Rows), first)
}

// coarse are questions that days and single dimensions are enough for, and fine ones that they are not.
func coarse(s stats.Scope) (all []stats.Question) {
	for _, q := range []stats.Question{
		{Unit: stats.Day}, {Unit: stats.Week, Bots: stats.OnlyBots}, {Unit: stats.Month, Bots: stats.WithBots}, {},
		{By: []clicks.Dimension{clicks.Country}}, {By: []clicks.Dimension{clicks.Referrer}, Unit: stats.Day, Bots: stats.WithBots},
		{By: []clicks.Dimension{clicks.Bot}, Bots: stats.WithBots},
		{Where: map[clicks.Dimension][]string{clicks.Browser: {"Browser1", "Browser2"}}, Unit: stats.Day},
		{Where: map[clicks.Dimension][]string{clicks.OS: {"System1"}}, By: []clicks.Dimension{clicks.OS}, Bots: stats.OnlyBots},
	} {
		q.Scope, q.From, q.To = s, monday, monday.AddDate(0, 0, 14)
		all = append(all, q)
	}
	return all
}

func fine(s stats.Scope) (all []stats.Question) {
	for _, q := range []stats.Question{
		{Unit: stats.Hour}, {By: []clicks.Dimension{clicks.Country, clicks.Browser}},
		{Where: map[clicks.Dimension][]string{clicks.Browser: {"Browser1"}}, By: []clicks.Dimension{clicks.OS}},
	} {
		q.Scope, q.From, q.To = s, monday, monday.AddDate(0, 0, 14)
		all = append(all, q)
	}
	return all
}

// TestMergesChangeNoAnswer compares answers before and after all is merged.
func TestMergesChangeNoAnswer(t *testing.T) {
	s := pgstats.New(connect(t, postgrestest.Databases(t, 3)), pgstats.Options{Keep: tenYears})
	apply(t, s, made(1, 60, 2)...)
	var before []stats.Answer
	var questions []stats.Question
	for _, scope := range scopes {
		for _, q := range append(coarse(scope), fine(scope)...) {
			questions, before = append(questions, q), append(before, ask(t, s, q))
		}
	}
	top, _ := s.Top(t.Context(), stats.Scope{}, monday, monday.AddDate(0, 0, 14), stats.People, 5)
	for range 2 { // nothing is left for the second time
		if err := s.TendOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i, q := range questions {
			same(t, q, ask(t, s, q), before[i])
		}
		if after, err := s.Top(t.Context(), stats.Scope{}, monday, monday.AddDate(0, 0, 14), stats.People, 5); err != nil || len(top) != 5 || !reflect.DeepEqual(top, after) {
			t.Errorf("top %v, then %v, %v", top, after, err)
		}
	}
}

// TestOldHoursBecomeDays: hours become days after CLICKS_KEEP, which answer as before what they can
// answer. What comes later is added to them.
func TestOldHoursBecomeDays(t *testing.T) {
	now := monday.AddDate(0, 0, 14)
	urls := postgrestest.Databases(t, 3)
	s := pgstats.New(connect(t, urls), pgstats.Options{}.At(func() time.Time { return now }))
	all := made(1, 60, 2)
	apply(t, s, all[:50]...)
	answers := func(scope stats.Scope) (list []stats.Answer) {
		for _, q := range coarse(scope) {
			list = append(list, ask(t, s, q))
		}
		return list
	}
	before := map[stats.Scope][]stats.Answer{}
	compare := func() {
		t.Helper()
		for scope, want := range before {
			for i, got := range answers(scope) {
				same(t, coarse(scope)[i], got, want[i])
			}
		}
	}
	tend := func() {
		t.Helper()
		if err := s.TendOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, scope := range scopes {
		before[scope] = answers(scope)
	}
	tops := func() string {
		top, err := s.Top(t.Context(), stats.Scope{Owner: "owner1"}, monday.AddDate(0, 0, 2), monday.AddDate(0, 0, 5), stats.WithBots, 3)
		totals, err2 := s.Totals(t.Context(), []string{"code1", "code2"})
		return fmt.Sprint(top, totals, errors.Join(err, err2))
	}
	topsBefore := tops()
	tend()
	now = now.AddDate(0, 0, 80) // five of the days are old
	tend()
	compareSome := coarse(stats.Scope{})[0]
	same(t, compareSome, ask(t, s, compareSome), before[stats.Scope{}][0])
	now = now.AddDate(0, 0, 20)
	compare() // old, and not rolled up yet
	tend()
	compare()
	if got := tops(); got != topsBefore {
		t.Errorf("top and totals were %s, and are %s", topsBefore, got)
	}
	if n := count(t, urls, "SELECT count(*) FROM clicks_hours") + count(t, urls, "SELECT count(*) FROM clicks_new"); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	hours, days := s.Since(now)
	if !hours.Equal(now.Add(-90*24*time.Hour).Truncate(24*time.Hour)) || !days.IsZero() {
		t.Errorf("Since = %s, %s", hours, days)
	}
	for _, scope := range scopes {
		for _, q := range fine(scope) {
			if _, err := s.Ask(t.Context(), q); !errors.Is(err, stats.ErrTooFine) {
				t.Errorf("%+v: %v, want ErrTooFine", q, err)
			}
			q.From, q.To = hours, hours.AddDate(0, 0, 7)
			ask(t, s, q)
		}
	}

	// What comes late counts as what came early.
	apply(t, s, all[50:]...)
	apply(t, s, all[50:]...)
	other := pgstats.New(connect(t, postgrestest.Databases(t, 1)), pgstats.Options{}.At(func() time.Time { return now }))
	apply(t, other, all...)
	for range 2 {
		for _, scope := range scopes {
			before[scope] = before[scope][:0]
			for _, q := range coarse(scope) {
				before[scope] = append(before[scope], ask(t, other, q))
			}
		}
		compare()
		tend()
	}
}

// count adds up what a query returns in each database.
func count(t testing.TB, urls []string, sql string) (sum int64) {
	t.Helper()
	for _, url := range urls {
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		var n int64
		err = conn.QueryRow(t.Context(), sql).Scan(&n)
		_ = conn.Close(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// TestConnectionsAreKilled: several apply the same batches and tend, while their connections are
// killed in the middle of what they do. Each batch counts once.
func TestConnectionsAreKilled(t *testing.T) {
	urls := postgrestest.Databases(t, 3)
	batches := made(3, 120, 6)
	connect(t, urls)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var background, appliers sync.WaitGroup
	failed := make(chan int, 4)
	for i := range 4 {
		s := pgstats.New(connect(t, urls), pgstats.Options{Keep: tenYears})
		appliers.Go(func() {
			n := 0
			for some := range slices.Chunk(batches, 5+i) {
				for {
					_, err := s.Apply(ctx, some)
					if err == nil {
						break
					}
					if !errors.Is(err, link.ErrUnavailable) || ctx.Err() != nil {
						t.Error(err)
						break
					}
					n++
				}
			}
			failed <- n
		})
		if i < 2 {
			background.Go(func() {
				for ctx.Err() == nil {
					_ = s.TendOnce(ctx) // it fails when it is killed
				}
			})
		}
	}
	killed := make(chan int, 1)
	background.Go(func() {
		conn, err := pgx.Connect(t.Context(), urls[0])
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(t.Context())
		n := 0
		for ctx.Err() == nil {
			var some int
			err := conn.QueryRow(t.Context(), `
SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity
WHERE application_name = 'snowlink' AND state <> 'idle' ORDER BY random() LIMIT 1) AS one`).Scan(&some)
			if err != nil {
				t.Error(err)
				return
			}
			n += some
		}
		killed <- n
	})
	appliers.Wait()
	stop()
	background.Wait()
	if n := <-killed; n < 10 {
		t.Errorf("only %d connections were killed", n)
	}
	want := pgstats.New(connect(t, postgrestest.Databases(t, 1)), pgstats.Options{Keep: tenYears})
	apply(t, want, batches...)
	got := pgstats.New(connect(t, urls), pgstats.Options{Keep: tenYears})
	for range 2 {
		for _, scope := range scopes {
			for _, q := range append(coarse(scope), fine(scope)...) {
				same(t, q, ask(t, got, q), ask(t, want, q))
			}
		}
		if err := got.TendOnce(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestADatabaseIsFrozen: an Apply that only some databases took part in is repeated.
func TestADatabaseIsFrozen(t *testing.T) {
	own := postgrestest.Own(t)
	urls := append(postgrestest.Databases(t, 2), own.Database(t))
	s := pgstats.New(connect(t, urls), pgstats.Options{Keep: tenYears})
	batches := made(4, 6, 2)
	apply(t, s, batches[:2]...)
	if err := own.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	_, err := s.Apply(ctx, batches)
	cancel()
	if !errors.Is(err, link.ErrUnavailable) {
		t.Errorf("Apply = %v while a database does not answer", err)
	}
	if err := own.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	apply(t, s, batches...)
	want := int64(len(batches) * 20 * 3)
	q := stats.Question{From: monday, To: monday.AddDate(0, 0, 14), Bots: stats.WithBots}
	if a := ask(t, s, q); a.Clicks != want {
		t.Errorf("everything has %d clicks, want %d", a.Clicks, want)
	}
	var sum int64
	for i := range 12 {
		q.Scope = stats.Scope{Code: fmt.Sprint("code", i)}
		sum += ask(t, s, q).Clicks
	}
	if sum != want {
		t.Errorf("the links have %d clicks, want %d", sum, want)
	}
}

// TestDatabasesAreAdded: rows stay where they are, and are found there.
func TestDatabasesAreAdded(t *testing.T) {
	urls := postgrestest.Databases(t, 4)
	want := pgstats.New(connect(t, postgrestest.Databases(t, 1)), pgstats.Options{Keep: tenYears})
	var s *pgstats.Store
	for i, batches := range [][]clicks.Batch{made(5, 20, 2), made(6, 20, 2), made(7, 20, 2)} {
		s = pgstats.New(connect(t, urls[:[]int{1, 3, 4}[i]]), pgstats.Options{Keep: tenYears})
		apply(t, s, batches...)
		apply(t, want, batches...)
		if i == 1 {
			if err := s.TendOnce(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	compare := func() {
		t.Helper()
		for _, scope := range scopes {
			for _, q := range append(coarse(scope), fine(scope)...) {
				same(t, q, ask(t, s, q), ask(t, want, q))
			}
			top := func(s *pgstats.Store) string {
				list, err := s.Top(t.Context(), scope, monday, monday.AddDate(0, 0, 9), stats.People, 5)
				return fmt.Sprint(list, err)
			}
			if g, w := top(s), top(want); scope.Code == "" && g != w {
				t.Errorf("top of %+v: %s, want %s", scope, g, w)
			}
		}
	}
	compare()
	for _, s := range []*pgstats.Store{s, want} {
		if err := s.Forget(t.Context(), "code1"); err != nil {
			t.Fatal(err)
		}
	}
	if a := ask(t, s, stats.Question{Scope: stats.Scope{Code: "code1"}, From: monday, To: monday.AddDate(0, 0, 14)}); a.Clicks != 0 {
		t.Errorf("%d clicks were not forgotten", a.Clicks)
	}
	compare()
}

// TestAMillionFactsAreBounded: a link at full speed, whose clicks are all different, takes no more room
// than any other, and its sums stay exact.
func TestAMillionFactsAreBounded(t *testing.T) {
	now := monday.Add(time.Hour)
	urls := postgrestest.Databases(t, 1)
	s := pgstats.New(connect(t, urls), pgstats.Options{}.At(func() time.Time { return now }))
	const batches, each = 20, 50_000
	n := 0
	for number := range uint64(batches) {
		c := clicks.Count{Code: "a", Owner: "owner", Hour: monday, Clicks: each * 9 / 10, Bots: each / 10}
		for range each {
			n++
			f := clicks.Facts{clicks.Country: []string{"DE", "FR"}[n%2], clicks.Referrer: fmt.Sprintf("%s%d.example", strings.Repeat("x", 80), n), clicks.Campaign: fmt.Sprint(n)}
			if n%10 == 0 {
				f[clicks.Bot] = "crawler"
			}
			c.Facts = append(c.Facts, clicks.FactCount{Facts: f, Clicks: 1})
		}
		apply(t, s, clicks.Batch{Producer: "p", Number: number + 1, Counts: []clicks.Count{c}})
		if err := s.TendOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	const most = 300_000 // of a link, its owner and everything
	if bytes := count(t, urls, "SELECT coalesce(sum(length(counts)), 0)::bigint FROM (SELECT counts FROM clicks_new UNION ALL SELECT counts FROM clicks_hours) AS all_rows"); bytes > most {
		t.Errorf("%d bytes of counts, want at most %d", bytes, most)
	}
	for bots, want := range map[stats.Bots]int64{stats.People: batches * each * 9 / 10, stats.OnlyBots: batches * each / 10} {
		q := stats.Question{Scope: stats.Scope{Code: "a"}, From: monday, To: now, Bots: bots, By: []clicks.Dimension{clicks.Country}}
		var de int64
		a := ask(t, s, q)
		for _, r := range a.Rows {
			if r.Values[0] == "DE" {
				de = r.Clicks
			}
		}
		wantDE := want // all bots are from there, and so fewer of the people
		if bots == stats.People {
			wantDE = batches*each/2 - batches*each/10
		}
		if a.Clicks != want || de != wantDE {
			t.Errorf("bots %d: %d clicks, %d of them from DE, want %d and %d", bots, a.Clicks, de, want, wantDE)
		}
		q.By = []clicks.Dimension{clicks.Referrer, clicks.Campaign}
		if a := ask(t, s, q); a.Clicks != want {
			t.Errorf("bots %d by two: %d clicks, want %d", bots, a.Clicks, want)
		}
	}
}

// TestSilentProducersAreForgotten: after a week, but for those that number what they carry.
func TestSilentProducersAreForgotten(t *testing.T) {
	now := time.Now()
	urls := postgrestest.Databases(t, 1)
	s := pgstats.New(connect(t, urls), pgstats.Options{Keep: tenYears}.At(func() time.Time { return now }))
	ordered := made(8, 1, 1)[0]
	ordered.Producer, ordered.Ordered = "kafka:t/0", true
	apply(t, s, append(made(7, 4, 2), ordered)...)
	now = now.AddDate(0, 0, 3)
	if err := s.TendOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := count(t, urls, "SELECT count(*) FROM clicks_producers"); n != 3 {
		t.Errorf("%d producers after three days, want 3", n)
	}
	now = now.AddDate(0, 0, 5)
	if err := s.TendOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := count(t, urls, "SELECT count(*) FROM clicks_producers"); n != 1 {
		t.Errorf("%d producers after eight days, want 1", n)
	}
}

// TestFactsArriveApart: a queue may carry a count in parts, of which only the first has the clicks. Once
// all have arrived, none of them is without facts.
func TestFactsArriveApart(t *testing.T) {
	s := pgstats.New(connect(t, postgrestest.Databases(t, 1)), pgstats.Options{Keep: tenYears})
	part := func(number uint64, clicked int64, country string, n int64) clicks.Batch {
		return clicks.Batch{Producer: "kafka:t/0", Ordered: true, Counts: []clicks.Count{{
			Number: number, Code: "a", Hour: monday, Clicks: clicked,
			Facts: []clicks.FactCount{{Facts: clicks.Facts{clicks.Country: country}, Clicks: n}},
		}}}
	}
	q := stats.Question{Scope: stats.Scope{Code: "a"}, From: monday, To: monday.Add(time.Hour), By: []clicks.Dimension{clicks.Country}}
	parts := []clicks.Batch{part(1, 10, "DE", 4), part(2, 0, "FR", 6)}
	for i, want := range []string{"(other) 6, DE 4", "FR 6, DE 4"} {
		apply(t, s, parts[:i+1]...)
		if err := s.TendOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		var rows []string
		for _, r := range ask(t, s, q).Rows {
			rows = append(rows, fmt.Sprint(r.Values[0], " ", r.Clicks))
		}
		if got := strings.Join(rows, ", "); got != want {
			t.Errorf("after part %d: %s, want %s", i+1, got, want)
		}
	}
}

// TestTend: two tend the same databases, which are away for a while, and merge what has gathered.
func TestTend(t *testing.T) {
	own := postgrestest.Own(t)
	urls := []string{own.Database(t), own.Database(t)}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var tenders sync.WaitGroup
	var s *pgstats.Store
	for range 2 {
		s = pgstats.New(connect(t, urls), pgstats.Options{Keep: tenYears})
		tenders.Go(func() {
			if err := s.Tend(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	if err := own.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	away, end := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	<-away.Done()
	end()
	if err := own.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	const batches, each = 30, 400
	for number := range uint64(batches) { // enough to be merged at once
		c := clicks.Count{Code: "a", Hour: time.Now().Truncate(time.Hour)}
		for i, f := range facts(r)[:each] {
			f[clicks.Campaign] = fmt.Sprint("a campaign with a long name ", i)
			c.Facts = append(c.Facts, clicks.FactCount{Facts: f, Clicks: 1})
			c.Clicks++
		}
		apply(t, s, clicks.Batch{Producer: "p", Number: number + 1, Counts: []clicks.Count{c}})
	}
	for deadline := time.Now().Add(time.Minute); count(t, urls, "SELECT count(*) FROM clicks_new") >= batches; {
		if time.Now().After(deadline) {
			t.Fatal("nothing is merged")
		}
	}
	stop()
	tenders.Wait()
	now := time.Now()
	if a := ask(t, s, stats.Question{From: now.Add(-24 * time.Hour).Truncate(time.Hour), To: now.Add(time.Hour)}); a.Clicks != batches*each {
		t.Errorf("%d clicks, want %d", a.Clicks, batches*each)
	}
}
