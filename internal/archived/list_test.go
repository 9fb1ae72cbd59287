package archived_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/postgres"
	"snowlink/internal/postgres/postgrestest"
	"snowlink/snowflake"
)

// onEach runs a test with one database and with three.
func onEach(t *testing.T, test func(t *testing.T, s *system)) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			test(t, start(t, postgrestest.Databases(t, n)))
		})
	}
}

// onEachSearch does so, too, and with three databases of which some or all find parts of words. parts says
// whether lists are to find them.
func onEachSearch(t *testing.T, test func(t *testing.T, s *system, parts bool)) {
	onEach(t, func(t *testing.T, s *system) { test(t, s, false) })
	for name, with := range map[string]int{"pg_trgm in 2 of 3": 2, "pg_trgm in 3 of 3": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			urls := postgrestest.Databases(t, 3)
			for _, url := range urls[:with] {
				conn, err := pgx.Connect(t.Context(), url)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := conn.Exec(t.Context(), "CREATE EXTENSION pg_trgm"); err != nil {
					t.Fatal(err)
				}
				if err := conn.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			s := start(t, urls)
			for _, db := range s.shards.DBs() {
				if _, err := db.IndexParts(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			test(t, s, with == 3)
		})
	}
}

// pages turns all pages of a list, and calls between before each next one.
func (s *system) pages(t testing.TB, q link.Query, between func()) (codes []string, first link.Page) {
	t.Helper()
	for i := 0; ; i++ {
		page, err := s.List(t.Context(), q)
		if err != nil || len(page.Links) > q.N || page.Newest != nil || i > 0 && page.Total != nil {
			t.Fatalf("List(%+v) = %d links, %+v, %v", q, len(page.Links), page, err)
		}
		if i == 0 {
			first = page
		}
		for _, l := range page.Links {
			codes = append(codes, l.Code)
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return codes, first
		}
		if between != nil {
			between()
		}
	}
}

// Whatever is archived of links and their changes, and whatever Redis has forgotten, lists have all
// that their queries ask for, in order, as it is now. Searches find parts of words if all databases do.
func TestListsAreTheSameWhateverIsArchived(t *testing.T) {
	t.Parallel()
	onEachSearch(t, func(t *testing.T, s *system, parts bool) {
		random := rand.New(rand.NewPCG(11, 25))
		start := time.UnixMilli(time.Now().Add(-time.Hour).UnixMilli()).UTC()
		owners, words := []string{"shop", "blog", link.DefaultOwner}, []string{"Spring", "größe", "news", "a1"}
		searches := append([]string{"PRING", "röß", "ew", "ews", "made", "1", "pri ings", "%", "%ews", "s_ring", `news\`, "xamp"}, words...)
		links := make(map[string]link.Link)
		some := func(from []string) string { return from[random.IntN(len(from))] }
		make := func(n int) {
			for range n {
				code := fmt.Sprint("made-", len(links))
				o := link.Options{Created: start.Add(time.Duration(random.IntN(20)) * time.Second), Nonce: uint32(len(links) + 1)}
				if random.IntN(2) == 0 {
					o.Title, o.Tags = some(words)+" "+some(words), []string{some(words)}
				}
				switch random.IntN(8) {
				case 0:
					o.Disabled = true
				case 1:
					o.Expires = start.Add(-time.Hour)
				case 2:
					o.Expires = start.Add(100 * time.Hour)
				}
				l, owner := link.Link{Target: "https://example.com/" + some(words), Options: &o}, some(owners)
				if err := s.Create(t.Context(), owner, code, l); err != nil {
					t.Fatal(err)
				}
				links[code] = l.OwnedBy(owner)
			}
		}
		change := func(n int) {
			for _, code := range slices.Sorted(maps.Keys(links))[:n] {
				l := links[code]
				o := *l.Options
				switch random.IntN(4) {
				case 0:
					l = link.Link{Owner: l.Owner}
					o = link.Options{Deleted: true, Created: o.Created, Nonce: o.Nonce}
				case 1:
					o.Disabled = !o.Disabled
				case 2:
					o.Expires = time.Time{}
				default:
					o.Tags, l.Target = []string{some(words)}, "https://example.org/"+some(words)
				}
				l.Options = &o
				if state, err := s.Read(t.Context(), code); err != nil {
					t.Fatal(err)
				} else if state.Deleted {
					continue
				}
				s.change(t, code, l)
				links[code] = l
			}
		}
		check := func(phase string) {
			t.Helper()
			for i := range 60 {
				q := link.Query{N: 1 + random.IntN(60), Oldest: i%2 == 0, States: link.States(random.IntN(4))}
				if random.IntN(4) > 0 {
					q.Owner = some(append(owners, "nobody"))
				}
				switch random.IntN(4) {
				case 0:
					q.Words = some(searches)
				case 1:
					q.Words = some(searches) + " example " + some(searches)
				}
				if random.IntN(4) == 0 {
					q.Tag = some(words)
				}
				if random.IntN(3) == 0 {
					q.From, q.To = start.Add(5*time.Second), start.Add(time.Duration(5+random.IntN(10))*time.Second)
				}
				asked := q
				asked.Parts = parts
				var all []link.Position
				for code, l := range links {
					if (q.Owner == "" || q.Owner == l.OwnerName()) && asked.Takes(link.Coded{Code: code, Link: l}, l.Created, time.Now()) {
						all = append(all, link.Position{Created: l.Created, Code: code})
					}
				}
				slices.SortFunc(all, link.Position.Compare)
				if !q.Oldest {
					slices.Reverse(all)
				}
				var want []string
				for _, p := range all {
					want = append(want, p.Code)
				}
				got, first := s.pages(t, q, nil)
				if !slices.Equal(got, want) {
					t.Errorf("%s: %+v: listed %q, want %q", phase, q, got, want)
				}
				if first.Total == nil || first.Incomplete || !first.Total.Estimate && first.Total.Links != int64(len(want)) {
					t.Errorf("%s: %+v: the first page is %+v of %+v, want %d", phase, q, first, first.Total, len(want))
				}
				if len(want) <= q.N && first.Total.Estimate {
					t.Errorf("%s: %+v: the total of the only page is an estimate", phase, q)
				}
				for _, l := range first.Links {
					if !l.Link.Equal(links[l.Code]) {
						t.Errorf("%s: %s is listed as %+v, want %+v", phase, l.Code, l.Link, links[l.Code])
					}
				}
			}
		}
		archive := func() {
			stop := s.archiving(t)
			s.drained(t)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
		}
		make(60)
		check("nothing is archived")
		archive()
		check("everything is archived")
		make(60)
		change(90)
		check("half is archived, and changes are not")
		archive()
		if first, err := s.List(t.Context(), link.Query{N: 1}); err != nil || first.Total.Estimate {
			t.Errorf("the total of what is archived is %+v, %v", first.Total, err)
		}
		for code := range links {
			s.evict(t, code)
		}
		check("Redis has nothing")
	})
}

// While links are made, changed and archived, a list misses none and repeats none that was there when
// it began. The newest is in it at once.
func TestPagesStayWhileLinksAreMadeAndArchived(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, s *system) {
		s.archiving(t)
		mint := minter(t)
		var made sync.Map // by code
		create := func() string {
			code := mint()
			if err := s.Create(t.Context(), "shop", code, one); err != nil {
				t.Error(err)
			}
			made.Store(code, true)
			return code
		}
		for range 200 {
			create()
		}
		// Creates run while pages are read, some for each page, or lists would only grow.
		wanted := make(chan bool, 4)
		var all sync.WaitGroup
		defer all.Wait()
		defer close(wanted)
		for range 4 {
			all.Go(func() {
				for range wanted {
					create()
				}
			})
		}
		for round := range 30 {
			newest := create()
			there := make(map[string]bool)
			made.Range(func(code, _ any) bool { there[code.(string)] = true; return true })
			q := link.Query{Owner: "shop", N: 37 + round}
			if round%3 == 2 {
				q.Oldest = true
				q.To = time.Now().Add(-time.Millisecond) // or the list would run after the creates
				delete(there, newest)
				for code := range there {
					if id, err := snowflake.Decode(code); err != nil || !id.Time().Before(q.To) {
						delete(there, code)
					}
				}
			}
			turned := 0
			got, first := s.pages(t, q, func() {
				for range 4 {
					wanted <- true
				}
				if turned++; turned%5 == 0 { // a change moves nothing
					for code := range there {
						s.change(t, code, link.Link{Target: fmt.Sprintf("%s?%d", two.Target, turned), Owner: "shop"})
						break
					}
				}
			})
			if !q.Oldest && !slices.ContainsFunc(first.Links, func(l link.Coded) bool { return l.Code == newest }) {
				t.Errorf("%s was just made, and is not on the first page", newest)
			}
			var last string
			for _, code := range got {
				if last != "" && (code > last) != q.Oldest { // codes are as long as each other
					t.Errorf("%s comes after %s", code, last)
				}
				last = code
				delete(there, code)
			}
			if len(there) > 0 {
				t.Fatalf("%d of %d links are missing", len(there), len(there)+len(got))
			}
		}
	})
}

// When there are more links to archive than a page looks at, the list says so. The newest are there.
func TestListsSayThatTheArchiveIsBehind(t *testing.T) {
	t.Parallel()
	s := start(t, postgrestest.Databases(t, 1))
	mint := minter(t)
	links := make([]link.Coded, 2500)
	for i := range links {
		links[i] = link.Coded{Code: mint(), Link: one}
	}
	if err := errors.Join(s.CreateAll(t.Context(), "shop", links)...); err != nil {
		t.Fatal(err)
	}
	newest := mint()
	s.create(t, newest, one)
	page, err := s.List(t.Context(), link.Query{N: 1000})
	if err != nil || !page.Incomplete || page.Links[0].Code != newest || page.Total != nil && !page.Total.Estimate {
		t.Errorf("List = %+v, %+v, %v", page, page.Total, err)
	}
	s.archiving(t)
	s.drained(t)
	page, err = s.List(t.Context(), link.Query{N: 1000})
	if err != nil || page.Incomplete || page.Links[0].Code != newest || *page.Total != (link.Total{Links: 2501}) {
		t.Errorf("List = %+v, %+v, %v", page, page.Total, err)
	}
}

// A store that is away is no reason for a shorter list.
func TestListsWhileAStoreIsAway(t *testing.T) {
	t.Parallel()
	own := postgrestest.Own(t)
	s := start(t, append(postgrestest.Databases(t, 2), own.Database(t)))
	s.archiving(t)
	s.create(t, "a-link", one)
	s.drained(t)
	within := func(what string, want error) {
		t.Helper()
		began := time.Now()
		if page, err := s.List(t.Context(), link.Query{N: 10}); !errors.Is(err, link.ErrUnavailable) || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: List = %+v, %v", what, page, err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: it took %s", what, took)
		}
	}
	whole := func() {
		t.Helper()
		fleettest.Eventually(t, 20*time.Second, "the list is whole", func() bool {
			page, err := s.List(t.Context(), link.Query{N: 10})
			return err == nil && len(page.Links) == 1 && !page.Incomplete
		})
	}
	whole()
	if err := own.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	within("a database hangs", link.ErrArchive)
	if err := own.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	whole()
	s.redis.Pause()
	within("Redis hangs", nil)
	s.redis.Resume()
	whole()
}

// BenchmarkList measures a first page of a hundred links, among others with links that are not archived.
func BenchmarkList(b *testing.B) {
	for _, fresh := range []int{0, 100, 2000} {
		b.Run(fmt.Sprint(fresh, "_not_archived"), func(b *testing.B) {
			s := start(b, postgrestest.Databases(b, 1))
			rows := make([]postgres.Row, 10_000)
			began := time.Now().Add(-time.Hour)
			for i := range rows {
				rows[i] = postgres.Row{Code: fmt.Sprint("old-", i), Record: one.Target, Created: began.Add(time.Duration(i) * time.Millisecond)}
			}
			if err := errors.Join(s.shards.Upsert(b.Context(), rows)...); err != nil {
				b.Fatal(err)
			}
			mint := minter(b)
			for range fresh {
				s.create(b, mint(), one)
			}
			for b.Loop() {
				if page, err := s.List(b.Context(), link.Query{Owner: link.DefaultOwner, N: 100}); err != nil || len(page.Links) != 100 {
					b.Fatal(page, err)
				}
			}
		})
	}
}

// TestListsOf measures pages and searches of one owner who has as many links as ARCHIVE_LINKS says,
// spread over three databases of one server. A hundred links are not archived.
func TestListsOf(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("ARCHIVE_LINKS"))
	if n == 0 {
		t.Skip("measures with ARCHIVE_LINKS=1000000")
	}
	ctx := t.Context()
	urls := postgrestest.Databases(t, 3)
	s := start(t, urls)
	for i, url := range urls {
		db, err := pgx.Connect(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		for _, sql := range []string{fmt.Sprintf(`
INSERT INTO links (number, created, disabled, code, owner, record)
SELECT 0, now() - interval '1 second' * i, false, 'c-' || i, '',
	'https://shop' || i %% 50 || '.example.com/' || md5(i::text) || '?utm_source=mail' || CASE WHEN i = %d / 2 THEN '&needle' ELSE '' END
FROM generate_series(%d, %[1]d, 3) AS i`, n, i), "VACUUM ANALYZE links"} {
			if _, err := db.Exec(ctx, sql); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	mint := minter(t)
	for range 100 {
		s.create(t, mint(), one)
	}
	middle := link.Position{Created: time.Now().Add(-time.Duration(n) / 2 * time.Second), Code: "c"}.Cursor()
	for _, m := range []struct {
		name string
		q    link.Query
	}{
		{"first page", link.Query{Owner: link.DefaultOwner, N: 100}},
		{"first page of everyone's", link.Query{N: 100}},
		{"1000 from the middle", link.Query{Owner: link.DefaultOwner, N: 1000, Cursor: middle}},
		{"the oldest 1000", link.Query{Owner: link.DefaultOwner, N: 1000, Oldest: true}},
		{"disabled", link.Query{Owner: link.DefaultOwner, N: 100, States: link.Disabled}},
		{"word of one", link.Query{Owner: link.DefaultOwner, N: 100, Words: "needle"}},
		{"word of none", link.Query{Owner: link.DefaultOwner, N: 100, Words: "nothing"}},
		{"word of 1/50", link.Query{Owner: link.DefaultOwner, N: 100, Words: "shop7"}},
		{"word of all", link.Query{Owner: link.DefaultOwner, N: 100, Words: "mail"}},
	} {
		var took []time.Duration
		var page link.Page
		for range 7 {
			began := time.Now()
			var err error
			if page, err = s.List(ctx, m.q); err != nil {
				t.Fatal(m.name, err)
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		total := link.Total{Links: -1}
		if page.Total != nil {
			total = *page.Total
		}
		t.Logf("%-26s %5d links, total %+v: median %s, most %s", m.name, len(page.Links), total, took[3], took[6])
	}
}
