package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/postgres"
	"snowlink/internal/postgres/postgrestest"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

var created = time.Date(2026, 11, 25, 11, 0, 0, 0, time.UTC)

// open opens an archive, which is closed when the test ends.
func open(t testing.TB, before int, log io.Writer, urls ...string) *postgres.Shards {
	t.Helper()
	s, err := postgres.Open(strings.Join(urls, ","), before, slog.New(slog.NewTextHandler(log, nil)), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// archive makes an archive of n new databases.
func archive(t testing.TB, n int) *postgres.Shards {
	t.Helper()
	s := open(t, 0, io.Discard, postgrestest.Databases(t, n)...)
	ready(t, s)
	return s
}

func ready(t testing.TB, s *postgres.Shards) {
	t.Helper()
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func row(code string, number int64) postgres.Row {
	return postgres.Row{Code: code, Number: number, Record: fmt.Sprintf("https://example.com/%s?n=%d", code, number), Created: created}
}

func put(t testing.TB, s *postgres.Shards, rows ...postgres.Row) {
	t.Helper()
	if err := errors.Join(s.Upsert(t.Context(), rows)...); err != nil {
		t.Fatal(err)
	}
}

func codes(rows []postgres.Row) string {
	var list []string
	for _, r := range rows {
		list = append(list, r.Code)
	}
	return strings.Join(list, " ")
}

func TestRowsComeBackAsTheyWere(t *testing.T) {
	s := archive(t, 3)
	rows := []postgres.Row{
		row("plain", 0),
		{
			Code: "full", Number: 7, Record: "https://example.com/ü\n{\"t\":\"a \\u0000 \\\"b\\\"\"}\nlater \t\\ line", Owner: "döner",
			Created: created.Add(123456 * time.Microsecond), Expires: created.Add(time.Hour), Disabled: true,
			Deleted: created.Add(time.Minute), Title: `{"a, b"}`, Tags: []string{"two words", `"quoted"`, "{}", "NULL"},
		},
	}
	put(t, s, rows...)
	got, errs := s.Get(t.Context(), []string{"full", "none", "plain"})
	if errs[0] != nil || errs[2] != nil || !errors.Is(errs[1], link.ErrNotFound) {
		t.Error(errs)
	}
	if !reflect.DeepEqual(got[0], rows[1]) || !reflect.DeepEqual(got[2], rows[0]) {
		t.Errorf("got %+v, want %+v", got, rows)
	}
}

func TestOnlyAHigherNumberReplacesARow(t *testing.T) {
	s := archive(t, 1)
	put(t, s, row("a", 3))
	nul := row("nul", 0)
	nul.Record += "\x00"
	errs := s.Upsert(t.Context(), []postgres.Row{row("a", 2), row("a", 3), row("b", 1), row("b", 2), row("b", 0), nul, {Code: "bad", Record: "\xff", Created: created}})
	for i, want := range []error{postgres.ErrRefused, postgres.ErrRefused, postgres.ErrRefused, nil, postgres.ErrRefused, postgres.ErrUnfit, postgres.ErrUnfit} {
		if !errors.Is(errs[i], want) {
			t.Errorf("row %d: %v, want %v", i, errs[i], want)
		}
	}
	put(t, s, row("a", 4))
	got, _ := s.Get(t.Context(), []string{"a", "b"})
	if got[0].Number != 4 || got[0].Record != row("a", 4).Record || got[1].Number != 2 {
		t.Errorf("got %+v", got)
	}
	if n, err := s.DBs()[0].Count(t.Context()); n != 2 || err != nil {
		t.Errorf("%d rows, %v", n, err)
	}
}

// Several archivers with the same codes in different orders neither wait for each other for ever nor
// leave anything but the highest number.
// A row that PostgreSQL cannot hold, of a record that somebody else wrote, keeps no other row from
// the archive.
func TestUnfitRowsHoldUpNoOthers(t *testing.T) {
	s := archive(t, 1)
	db := s.DBs()[0]
	rows := []postgres.Row{row("a", 0), row("b", 0), row("c", 0), row("d", 0), row("e\xff", 0), row("f", 0), row("g", 0)}
	rows[1].Owner = "\x00"
	rows[3].Expires = time.UnixMilli(-9_000_000_000_000_000)
	var text strings.Builder // which does not compress
	for range 1000 {
		fmt.Fprint(&text, rand.Uint64())
	}
	rows[5].Tags = []string{text.String()}
	for i, err := range db.Upsert(t.Context(), rows) {
		if bad := i%2 == 1 || i == 4; bad != errors.Is(err, postgres.ErrUnfit) || !bad && err != nil {
			t.Errorf("row %d: %v", i, err)
		}
	}
	found, err := db.Get(t.Context(), []string{"a", "b", "c", "d", "e\xff", "f", "g"})
	if err != nil || len(found) != 3 {
		t.Errorf("Get = %v, %v", found, err)
	}
}

func TestArchiversMayOverlap(t *testing.T) {
	s := archive(t, 1)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				var rows []postgres.Row
				for _, i := range rand.Perm(100) {
					rows = append(rows, row(fmt.Sprint("c", i), rand.Int64N(20)))
				}
				for _, err := range s.Upsert(context.Background(), append(rows, row("c1", 20))) {
					if err != nil && !errors.Is(err, postgres.ErrRefused) {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	rows, err := s.DBs()[0].Scan(t.Context(), "", 1000)
	if err != nil || len(rows) != 100 {
		t.Fatal(len(rows), err)
	}
	for _, r := range rows {
		if r.Record != row(r.Code, r.Number).Record || r.Code == "c1" && r.Number != 20 {
			t.Errorf("got %+v", r)
		}
	}
}

// Rows are counted in parts, since a query of all may take longer than a statement may.
func TestCount(t *testing.T) {
	s := archive(t, 1)
	db := s.DBs()[0]
	for n := range int64(8) {
		for _, most := range []int64{1, 2, 3, 7, 100} {
			if got, err := db.CountBy(t.Context(), most); got != n || err != nil {
				t.Errorf("Count of %d, %d at a time = %d, %v", n, most, got, err)
			}
		}
		put(t, s, row(fmt.Sprint("code", n), 0))
	}
}

func TestScanAndDrop(t *testing.T) {
	s := archive(t, 1)
	db := s.DBs()[0]
	put(t, s, row("B", 0), row("a", 0), row("_", 0), row("0", 1))
	var all []postgres.Row
	for after := ""; ; {
		page, err := db.Scan(t.Context(), after, 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		all, after = append(all, page...), page[len(page)-1].Code
	}
	if codes(all) != "0 B _ a" {
		t.Errorf("scanned %s", codes(all))
	}
	// "0" was changed since it was read.
	if n, err := db.Drop(t.Context(), []postgres.Row{row("0", 0), row("a", 0)}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if left, _ := db.Scan(t.Context(), "", 9); codes(left) != "0 B _" {
		t.Errorf("left %s", codes(left))
	}
	if stat, err := db.Stat(t.Context()); err != nil || stat.Rows != 3 || stat.Bytes == 0 { // before any ANALYZE
		t.Error(stat, err)
	}
	if err := db.Exec(t.Context(), "ANALYZE links"); err != nil {
		t.Fatal(err)
	}
	if stat, err := db.Stat(t.Context()); err != nil || stat.Rows != 3 || stat.Bytes == 0 {
		t.Error(stat, err)
	}
}

func TestLists(t *testing.T) {
	s := archive(t, 3)
	now := time.Now()
	at := func(minute int, r postgres.Row) postgres.Row {
		r.Created = created.Add(time.Duration(minute) * time.Minute)
		return r
	}
	rec := func(code, target, title string, tags ...string) postgres.Row {
		return postgres.Row{Code: code, Record: target + "\n{}", Title: title, Tags: tags, Owner: "me"}
	}
	gone, dead, off := rec("gone", "https://a.example/", ""), rec("dead", "https://a.example/", ""), rec("off", "https://a.example/", "")
	gone.Deleted, dead.Expires, off.Disabled = now, now.Add(-time.Minute), true
	longGone, longDead := rec("long-gone", "", ""), rec("long-dead", "https://a.example/", "")
	longGone.Deleted, longGone.Expires, longDead.Expires = now.Add(-link.Grace), now.Add(-time.Minute), now.Add(-link.Grace)
	other := rec("other", "https://b.example/?u=https://deep.example/x", "")
	other.Owner = ""
	later := rec("later", "https://a.example/pricing-2026/EU_plan.html?utm=News%20letter", "Plans, for You: Größe", "summer sale", "news")
	later.Expires = now.Add(time.Hour)
	put(t, s, at(0, longGone), at(0, longDead), at(1, gone), at(2, dead), at(3, off), at(4, other), at(5, later), at(6, rec("A-code_7", "http://c.example", "", "news")), at(6, rec("zz", "http://c.example", "")))

	me, nobody, service := "me", "nobody", link.DefaultOwner
	for name, tt := range map[string]struct {
		q    link.Query
		want string
	}{
		"all":               {link.Query{}, "zz A-code_7 later other off"},
		"oldest first":      {link.Query{Oldest: true}, "off other later A-code_7 zz"},
		"of an owner":       {link.Query{Owner: me}, "zz A-code_7 later off"},
		"of the service":    {link.Query{Owner: service}, "other"},
		"of nobody":         {link.Query{Owner: nobody}, ""},
		"active":            {link.Query{States: link.Active}, "zz A-code_7 later other"},
		"gone":              {link.Query{States: link.Gone}, "dead gone"},
		"disabled":          {link.Query{States: link.Disabled}, "off"},
		"tag":               {link.Query{Tag: "news", Owner: me}, "A-code_7 later"},
		"part of a tag":     {link.Query{Tag: "summer"}, ""},
		"tag of no text":    {link.Query{Tag: "\x80\x00"}, ""},
		"first of times":    {link.Query{From: time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), To: created.Add(4 * time.Minute)}, "off"},
		"last of times":     {link.Query{To: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), From: created.Add(6 * time.Minute)}, "zz A-code_7"},
		"from":              {link.Query{From: created.Add(5 * time.Minute)}, "zz A-code_7 later"},
		"to":                {link.Query{To: created.Add(5 * time.Minute)}, "other off"},
		"word of the path":  {link.Query{Words: "PRICING"}, "later"},
		"number":            {link.Query{Words: "2026"}, "later"},
		"file":              {link.Query{Words: "plan.html"}, "later"},
		"parameter":         {link.Query{Words: "utm"}, "later"},
		"host":              {link.Query{Words: "c.example"}, "zz A-code_7"},
		"nested URL":        {link.Query{Words: "deep.example"}, "other"},
		"title":             {link.Query{Words: "grÖSSE"}, ""},
		"title in any case": {link.Query{Words: "GRÖßE you"}, "later"},
		"tags":              {link.Query{Words: "sale summer"}, "later"},
		"code":              {link.Query{Words: "a-code_7"}, "A-code_7"},
		"all words":         {link.Query{Words: "c.example news"}, "A-code_7"},
		"part of a word":    {link.Query{Words: "pric"}, ""},
		"scheme":            {link.Query{Words: "https"}, "other"},
		"no word":           {link.Query{Words: "!? \x00"}, ""},
		"operators":         {link.Query{Words: "pricing | & ! <-> :* 'eu"}, "later"},
		"everything at once": {link.Query{Words: "news", Tag: "news", Owner: me, States: link.Active,
			From: created, To: created.Add(time.Hour), Oldest: true}, "later A-code_7"},
	} {
		t.Run(name, func(t *testing.T) {
			want := strings.Fields(tt.want)
			for n := 1; n <= 4; n++ {
				tt.q.N, tt.q.Cursor = n, ""
				var got []string
				for {
					page, next, err := s.List(t.Context(), tt.q)
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, strings.Fields(codes(page))...)
					if tt.q.Cursor = next; next == "" {
						break
					}
					if len(page) != n {
						t.Fatalf("%d links on a page of %d", len(page), n)
					}
				}
				if !slices.Equal(got, want) {
					t.Fatalf("pages of %d: got %q, want %q", n, got, want)
				}
			}
			if total, exact, err := s.Total(t.Context(), tt.q); total != int64(len(want)) || !exact || err != nil {
				t.Errorf("total %d, %v, %v", total, exact, err)
			}
		})
	}
}

func TestPagesStayWhileLinksAreMade(t *testing.T) {
	s := archive(t, 3)
	for i := range 50 {
		r := row(fmt.Sprintf("old%02d", i), 0)
		r.Created = created.Add(time.Duration(i/5) * time.Second) // five of a moment
		put(t, s, r)
	}
	var got []postgres.Row
	q := link.Query{N: 7}
	for i := 0; ; i++ {
		page, next, err := s.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, page...)
		if q.Cursor = next; next == "" {
			break
		}
		r := row(fmt.Sprint("new", i), 0)
		r.Created = created.Add(time.Hour)
		put(t, s, r)
	}
	var want []string
	for i := range 50 {
		want = append(want, fmt.Sprintf("old%02d", 49-i))
	}
	if codes(got) != strings.Join(want, " ") {
		t.Errorf("got %s", codes(got))
	}
}

func TestCursorsOfOthersAreRefused(t *testing.T) {
	s := archive(t, 1)
	for _, cursor := range []string{"x", "!", "MTIzLg", "LTYyMTY3MjE5MjAwMDAwMDAxLmE", "OTk5OTk5OTk5OTk5OTk5OTk5LmE", "MS4nOyBEUk9Q"} {
		if _, _, err := s.List(t.Context(), link.Query{N: 1, Cursor: cursor}); !errors.Is(err, link.ErrCursor) {
			t.Errorf("%s: %v", cursor, err)
		}
	}
}

func TestShardsKnowThemselves(t *testing.T) {
	urls := postgrestest.Databases(t, 4)
	s := open(t, 0, io.Discard, urls[:3]...)
	ready(t, s)
	ready(t, s) // as every later start
	put(t, s, row("a", 0), row("b", 0), row("c", 0), row("d", 0), row("e", 0), row("f", 0))
	if err := open(t, 0, io.Discard, urls[3]).Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		before int
		urls   []string
		says   string
	}{
		"other order":      {0, []string{urls[1], urls[0], urls[2]}, "shard 2 of 3, and ARCHIVE_URL that it is shard 1 of 3"},
		"one twice":        {0, []string{urls[0], urls[1], urls[1]}, "shard 2 of 3, and ARCHIVE_URL that it is shard 3 of 3"},
		"one fewer":        {0, urls[:2], "shard 1 of 3, and ARCHIVE_URL that it is shard 1 of 2"},
		"one more":         {0, urls, "shard 1 of 3, and ARCHIVE_URL that it is shard 1 of 4"},
		"wrong before":     {2, urls, "shard 1 of 3, and ARCHIVE_URL that it is shard 1 of 4"},
		"an empty one":     {0, []string{urls[0], urls[3], urls[2]}, "shard 2 of 3, and that database is empty"},
		"empty and before": {3, []string{urls[0], urls[3], urls[2]}, "shard 2 of 3, and that database is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			err := open(t, tt.before, io.Discard, tt.urls...).Check(t.Context())
			if !errors.Is(err, postgres.ErrShard) || !strings.Contains(err.Error(), tt.says) {
				t.Error(err)
			}
		})
	}
	if err := s.Check(t.Context()); err != nil {
		t.Fatal("a refusal changed something:", err)
	}
	grown := open(t, 3, io.Discard, urls...)
	if err := errors.Join(grown.Check(t.Context()), grown.Check(t.Context())); err != nil {
		t.Error(err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error("the shorter list before a move begins:", err)
	}
	if err := grown.Grow(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context()); !errors.Is(err, postgres.ErrShard) {
		t.Error("the shorter list once it has begun:", err)
	}
	without := open(t, 0, io.Discard, urls...)
	more := open(t, 4, io.Discard, append(urls, postgrestest.Databases(t, 1)...)...)
	if err := more.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*postgres.Shards{"without the number of before": without, "more again": more} {
		if err := s.Check(t.Context()); !errors.Is(err, postgres.ErrShard) || !strings.Contains(err.Error(), "ARCHIVE_SHARDS_BEFORE=3") {
			t.Errorf("while links move, %s: %v", name, err)
		}
	}
	if _, err := grown.Move(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(grown.Check(t.Context()), without.Check(t.Context()), more.Check(t.Context())); err != nil {
		t.Error("once they are home:", err)
	}
}

func TestRowsAreFoundWhileTheyMove(t *testing.T) {
	urls := postgrestest.Databases(t, 3)
	old := open(t, 0, io.Discard, urls[:2]...)
	ready(t, old)
	var rows []postgres.Row
	var all []string
	for i := range 100 {
		rows = append(rows, row(fmt.Sprint("code", i), 0))
		all = append(all, rows[i].Code)
	}
	put(t, old, rows...)

	s := open(t, 2, io.Discard, urls...)
	ready(t, s)
	found := func() {
		t.Helper()
		got, errs := s.Get(t.Context(), append(all, "none"))
		for i := range all {
			if errs[i] != nil || !reflect.DeepEqual(got[i], rows[i]) {
				t.Fatalf("%s: %+v, %v", all[i], got[i], errs[i])
			}
		}
		if !errors.Is(errs[100], link.ErrNotFound) {
			t.Error(errs[100])
		}
		if page, _, err := s.List(t.Context(), link.Query{N: 1000}); len(page) != 100 || err != nil {
			t.Errorf("%d links listed, %v", len(page), err)
		}
	}
	found()
	if err := s.Grow(t.Context()); err != nil {
		t.Fatal(err)
	}
	moved := 0
	for _, db := range s.DBs() {
		there, err := db.Scan(t.Context(), "", 1000)
		if err != nil {
			t.Fatal(err)
		}
		there = slices.DeleteFunc(there, func(r postgres.Row) bool { return s.Home(r.Code) == db })
		put(t, s, there...)
		found() // each of them is in two databases
		if n, err := db.Drop(t.Context(), there); n != int64(len(there)) || err != nil {
			t.Fatal(n, err)
		}
		found()
		moved += len(there)
	}
	if moved < 20 || moved > 50 {
		t.Errorf("%d of 100 rows moved, want a third", moved)
	}
	s = open(t, 0, io.Discard, urls...)
	found()
}

// Rows move while archivers write to their new homes, and several move them at once. Every link is left once, at home, as it was written last.
func TestMove(t *testing.T) {
	urls := postgrestest.Databases(t, 4)
	old := open(t, 0, io.Discard, urls[:2]...)
	ready(t, old)
	const n = 5000
	var rows []postgres.Row
	for i := range n {
		rows = append(rows, row(fmt.Sprint("code", i), 1))
	}
	put(t, old, rows...)

	s := open(t, 2, io.Discard, urls...)
	ready(t, s)
	var late []postgres.Row
	for i := range rows {
		if i%10 == 0 {
			late = append(late, row(rows[i].Code, 2))
			rows[i] = late[len(late)-1]
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	if m, err := s.Move(ctx, func(m postgres.Moved) { stop() }); !errors.Is(err, context.Canceled) || m.Looked == 0 || m.Looked == n {
		t.Errorf("broken off, Move = %+v, %v", m, err)
	}
	if err := open(t, 0, io.Discard, urls...).Check(t.Context()); !errors.Is(err, postgres.ErrShard) {
		t.Error("it was broken off, and Check =", err)
	}
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			if m, err := s.Move(t.Context(), nil); err != nil || m.Stuck != 0 {
				t.Errorf("Move = %+v, %v", m, err)
			}
		})
	}
	all.Go(func() {
		writer := open(t, 2, io.Discard, urls...) // which learns of the move by a refusal
		for errors.Join(writer.Upsert(t.Context(), late)...) != nil && t.Context().Err() == nil {
		}
	})
	all.Wait()
	if m, err := s.Move(t.Context(), nil); err != nil || m.Moved != 0 {
		t.Errorf("with nothing left to move, Move = %+v, %v", m, err)
	}
	total := 0
	for _, db := range s.DBs() {
		here, err := db.Scan(t.Context(), "", n)
		if err != nil {
			t.Fatal(err)
		}
		total += len(here)
		for _, r := range here {
			if s.Home(r.Code) != db {
				t.Errorf("%s is not at home", r.Code)
			}
		}
	}
	found, errs := open(t, 0, io.Discard, urls...).Get(t.Context(), codesOf(rows))
	if err := errors.Join(errs...); err != nil || total != n || !reflect.DeepEqual(found, rows) {
		t.Errorf("there are %d rows of %d, or they are not as they were written last; %v", total, n, err)
	}
}

func codesOf(rows []postgres.Row) (codes []string) {
	for _, r := range rows {
		codes = append(codes, r.Code)
	}
	return codes
}

// Two links that were made under one code are not merged: that would lose one of them. Of two records
// with the same higher number, Redis lost the one at the old home.
func TestAMoveLosesNoLink(t *testing.T) {
	urls := postgrestest.Databases(t, 2)
	old := open(t, 0, io.Discard, urls[0])
	ready(t, old)
	s := open(t, 1, io.Discard, urls...)
	ready(t, s)
	var moving []string
	grown := open(t, 0, io.Discard, urls...)
	for i := 0; len(moving) < 2; i++ {
		if code := fmt.Sprint("code", i); grown.Home(code) == grown.DBs()[1] {
			moving = append(moving, code)
		}
	}
	put(t, old, row(moving[0], 0), row(moving[1], 7))
	if err := s.Grow(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := func(r postgres.Row) postgres.Row { r.Record += "&other"; return r }
	put(t, s, other(row(moving[0], 0)), other(row(moving[1], 7)))
	m, err := s.Move(t.Context(), nil)
	if err != nil || m.Stuck != 1 || !slices.Equal(m.Examples, moving[:1]) || m.Moved != 1 {
		t.Errorf("Move = %+v, %v", m, err)
	}
	if left, err := s.DBs()[0].Scan(t.Context(), "", 9); codes(left) != moving[0] || err != nil {
		t.Errorf("the old home has %s, %v", codes(left), err)
	}
	if err := open(t, 0, io.Discard, urls...).Check(t.Context()); !errors.Is(err, postgres.ErrShard) {
		t.Error("one is left, and Check =", err)
	}
}

// Backends get the longer list one after another, and then rows move. Whoever has the shorter list
// still finds every link until then, and afterwards nothing, which is not taken for no link. Nobody
// finds a row that is not the last.
func TestShardsAreAddedOneBackendAfterAnother(t *testing.T) {
	urls := postgrestest.Databases(t, 3)
	short := open(t, 0, io.Discard, urls[:2]...)
	ready(t, short)
	long, other := open(t, 2, io.Discard, urls...), open(t, 2, io.Discard, urls...)
	ready(t, long)
	var rows []postgres.Row
	for i := range 100 {
		rows = append(rows, row(fmt.Sprint("code", i), 0))
	}
	all := codesOf(rows)
	found := func(s *postgres.Shards) {
		t.Helper()
		if got, errs := s.Get(t.Context(), all); errors.Join(errs...) != nil || !reflect.DeepEqual(got, rows) {
			t.Fatalf("%+v, %v", got, errors.Join(errs...))
		}
	}
	change := func(s *postgres.Shards) []error {
		for i := range rows {
			rows[i] = row(all[i], rows[i].Number+1)
		}
		return s.Upsert(t.Context(), rows)
	}
	put(t, long, rows...)
	for _, s := range []*postgres.Shards{short, long} {
		found(s)
		if err := errors.Join(change(s)...); err != nil {
			t.Fatal(err)
		}
		found(short)
		found(long)
	}

	if err := long.Grow(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, err := range change(other) { // it does not know yet
		if err != nil && !errors.Is(err, link.ErrUnavailable) {
			t.Error(err)
		}
	}
	put(t, other, rows...)
	found(other)
	found(long)
	if _, err := long.Move(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	found(other)
	found(open(t, 0, io.Discard, urls...))
	_, errs := short.Get(t.Context(), all)
	for _, err := range append(errs, change(short)...) {
		if !errors.Is(err, link.ErrUnavailable) || !errors.Is(err, postgres.ErrShard) {
			t.Fatalf("with the shorter list: %v", err)
		}
	}
}

func TestMigrationsOfSeveralAtOnce(t *testing.T) {
	url := postgrestest.Databases(t, 1)[0]
	var wg sync.WaitGroup
	for range 4 {
		s := open(t, 0, io.Discard, url)
		wg.Go(func() {
			if err := errors.Join(s.Migrate(context.Background()), s.Check(context.Background())); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s := open(t, 0, io.Discard, url)
	if version, newest, err := s.DBs()[0].Version(t.Context()); version != newest || version == 0 || err != nil {
		t.Error(version, newest, err)
	}
}

func TestAFrozenShardStopsOnlyItsOwn(t *testing.T) {
	server := postgrestest.Own(t)
	var log fleettest.Output
	s := open(t, 0, &log, postgrestest.Databases(t, 1)[0], server.Database(t))
	ready(t, s)
	var rows []postgres.Row
	var all []string
	for i := range 20 {
		rows = append(rows, row(fmt.Sprint("c", i), 0))
		all = append(all, rows[i].Code)
	}
	put(t, s, rows...)

	healthy := s.DBs()[0]
	check := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, errs := s.Get(ctx, all)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %s", took)
		}
		for i, code := range all {
			if s.Home(code) == healthy && errs[i] != nil || s.Home(code) != healthy && !errors.Is(errs[i], link.ErrUnavailable) {
				t.Errorf("%s: %v", code, errs[i])
			}
		}
	}
	if err := server.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	check()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, _, err := s.List(ctx, link.Query{N: 10}); !errors.Is(err, link.ErrUnavailable) {
		t.Error("a list with gaps:", err)
	}
	if err := server.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	fleettest.Eventually(t, 10*time.Second, "the shard is back", func() bool { return s.Ping(t.Context()) == nil })
	if _, errs := s.Get(t.Context(), all); errors.Join(errs...) != nil {
		t.Error(errs)
	}
	server.Stop()
	check()
	fleettest.Eventually(t, 10*time.Second, "the log has the outage", func() bool {
		return strings.Contains(log.String(), "unavailable") && strings.Contains(log.String(), "archive shard 2 of 2")
	})
	if strings.Contains(log.String(), "shard 1") || strings.Count(log.String(), "msg=unavailable") > 1 {
		t.Error(log.String())
	}
}

// What a backend that died has begun ends by itself.
func TestStatementsEnd(t *testing.T) {
	url := postgrestest.Databases(t, 1)[0]
	var log fleettest.Output
	s := open(t, 0, &log, url+"&statement_timeout=200")
	ready(t, s) // migrations have no limit
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE links"); err != nil {
		t.Fatal(err)
	}
	if _, errs := s.Get(t.Context(), []string{"a"}); !errors.Is(errs[0], link.ErrUnavailable) || !strings.Contains(errs[0].Error(), "statement timeout") {
		t.Error(errs[0])
	}
}

func TestWhoGivesUpIsNoOutage(t *testing.T) {
	var log fleettest.Output
	s := open(t, 0, &log, postgrestest.Databases(t, 1)...)
	ready(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, errs := s.Get(ctx, []string{"a"}); !errors.Is(errs[0], link.ErrUnavailable) {
		t.Error(errs[0])
	}
	if log.String() != "" {
		t.Error(log.String())
	}
}

func TestAddresses(t *testing.T) {
	open := func(url string) (*postgres.Shards, error) {
		return postgres.Open(url, 0, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	}
	for name, tt := range map[string]struct {
		url  string
		want int
	}{
		"one":                    {"postgres://u:p@a/db", 1},
		"several":                {"postgres://u:p@a/db, postgresql://u:p@b:6432/db?sslmode=require,postgres://c", 3},
		"comma in the password":  {"postgres://u:se,cret@a/db,postgres://b", 2},
		"hosts of one database":  {"postgres://u:p@a,b:5433/db?target_session_attrs=read-write,postgres://c", 2},
		"limits of the operator": {"postgres://a?pool_max_conns=3&connect_timeout=2&statement_timeout=9", 1},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := open(tt.url)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if len(s.DBs()) != tt.want {
				t.Errorf("%d databases, want %d", len(s.DBs()), tt.want)
			}
		})
	}
	for _, url := range []string{
		"", "secret", "host=a password=secret", "mysql://u:secret@a", "postgres://u:sec ret@a", "postgres://u:secret%zz@a",
		"postgres://u:secret@a:port/db", "postgres://u:secret@a/db?sslmode=secret", "postgres://u:secret@a/db?pool_max_conns=secret",
		"postgres://a,postgres://u:secret/3@b", "postgres://a/db?password=secret%zz", "postgres://u:secret@[a/db",
	} {
		s, err := open(url)
		if err == nil {
			s.Close()
			t.Errorf("%s was taken", url)
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "sec ret") {
			t.Errorf("%s: the error has the password: %v", url, err)
		}
	}
}

func TestAddressesWithoutSecrets(t *testing.T) {
	for url, want := range map[string]string{
		"postgres://u:secret@a/db":                                "a:5432/db",
		"postgres://u:secret@a,b:5433/db?sslmode=prefer":          "a:5432,b:5433/db",
		"postgres:///db?host=/run/postgresql&password=secret":     "/run/postgresql:5432/db",
		"postgres://u:secret@[::1]:6432/db?application_name=them": "[::1]:6432/db",
	} {
		if got := open(t, 0, io.Discard, url).DBs()[0].Address(); got != want {
			t.Errorf("%s is at %s, want %s", url, got, want)
		}
	}
}

func TestErrorsHaveNoPassword(t *testing.T) {
	var log fleettest.Output
	server := postgrestest.Own(t)
	s := open(t, 0, &log, strings.Replace(server.Database(t), "postgres@", "postgres:secret@", 1))
	server.Stop()
	err := errors.Join(s.Ping(t.Context()), s.Migrate(t.Context()), s.Check(t.Context()))
	if !errors.Is(err, link.ErrUnavailable) || strings.Contains(err.Error()+log.String(), "secret") {
		t.Error(err, log.String())
	}
}

// PostgreSQL takes the links that have a word for evenly spread. Those of the oldest hundredth are found
// all the same. How long that takes is for TestArchiveOf.
func TestAWordOfOldLinksIsFound(t *testing.T) {
	s := archive(t, 1)
	db := s.DBs()[0]
	err := db.Exec(t.Context(), `
INSERT INTO links (number, created, disabled, code, owner, record, title)
SELECT 0, now() - interval '1 second' * i, false, 'c' || i, '', 'https://example.com/' || i, CASE WHEN i > 29700 THEN 'old' END
FROM generate_series(1, 30000) AS i`)
	if err == nil {
		err = db.Exec(t.Context(), "ANALYZE links")
	}
	if err != nil {
		t.Fatal(err)
	}
	page, next, err := s.List(t.Context(), link.Query{Words: "old", N: 100})
	if err != nil || len(page) != 100 || page[0].Code != "c29701" || next == "" {
		t.Errorf("%d links, next %q, %v", len(page), next, err)
	}
	if total, exact, err := s.Total(t.Context(), link.Query{}); exact || total < 29_000 || total > 31_000 || err != nil {
		t.Errorf("total %d, %v, %v", total, exact, err)
	}
}
