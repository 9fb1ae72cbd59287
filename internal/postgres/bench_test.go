package postgres_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"snowlink/internal/link"
	"snowlink/internal/postgres"
	"snowlink/internal/postgres/postgrestest"
	"snowlink/snowflake"
)

// made is a link as a business may have it: some words in its path, most without options.
func made(i int) postgres.Row {
	code := snowflake.Encode(snowflake.ID(115394839571988480 + int64(i)*4096*977))
	word := func(n int) string { return words[(i*2654435761>>n)&1023%len(words)] + strconv.Itoa((i*40503>>n)%97) }
	r := postgres.Row{
		Code: code, Owner: "owner" + strconv.Itoa(i%10), Created: created.Add(time.Duration(i) * time.Millisecond),
		Record: fmt.Sprintf("https://shop%d.example.com/%s/%s?id=%d&utm_source=mail", i%50, word(3), word(9), i),
	}
	if i%10 == 0 {
		r.Title, r.Tags = word(5)+" "+word(7), []string{word(4)}
		r.Record += "\n{}"
	}
	return r
}

var words = strings.Fields("summer winter sale news plans pricing offer blog shoes shirts books music travel hotel event ticket")

// BenchmarkUpsert measures how fast new links are archived, and the same by COPY into a temporary table.
func BenchmarkUpsert(b *testing.B) {
	for _, size := range []int{100, 1000, 5000} {
		for _, way := range []string{"unnest", "copy"} {
			b.Run(fmt.Sprintf("%s/%d", way, size), func(b *testing.B) {
				s := archive(b, 1)
				var pool *pgxpool.Pool
				if way == "copy" {
					pool = poolOf(b, s)
				}
				next := 0
				for b.Loop() {
					rows := make([]postgres.Row, size)
					for i := range rows {
						rows[i] = made(next)
						next++
					}
					if way == "copy" {
						if err := copied(b.Context(), pool, rows); err != nil {
							b.Fatal(err)
						}
						continue
					}
					put(b, s, rows...)
				}
				b.ReportMetric(float64(next)/b.Elapsed().Seconds(), "links/s")
			})
		}
	}
}

func poolOf(b *testing.B, s *postgres.Shards) *pgxpool.Pool {
	b.Helper()
	pool, err := pgxpool.New(b.Context(), s.DBs()[0].URL())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	return pool
}

func copied(ctx context.Context, pool *pgxpool.Pool, rows []postgres.Row) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if _, err := tx.Exec(ctx, "CREATE TEMP TABLE IF NOT EXISTS batch (LIKE links) ON COMMIT DELETE ROWS"); err != nil {
		return err
	}
	columns := []string{"code", "number", "record", "owner", "created", "disabled", "title", "tags"}
	_, err = tx.CopyFrom(ctx, pgx.Identifier{"batch"}, columns, pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) {
		r := rows[i]
		return []any{r.Code, r.Number, r.Record, r.Owner, r.Created, r.Disabled, r.Title, r.Tags}, nil
	}))
	if err != nil {
		return err
	}
	found, err := tx.Query(ctx, `INSERT INTO links SELECT * FROM batch ORDER BY code ON CONFLICT (code) DO UPDATE SET number = excluded.number,
record = excluded.record, expires = excluded.expires WHERE links.number < excluded.number RETURNING code`)
	if err != nil {
		return err
	}
	if _, err := pgx.CollectRows(found, pgx.RowTo[string]); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// TestArchiveOf measures lists and searches in an archive of as many links as ARCHIVE_LINKS says, and what
// the index for parts of words does to them, to its size and to the archiving of more links.
func TestArchiveOf(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("ARCHIVE_LINKS"))
	if n == 0 {
		t.Skip("measures with ARCHIVE_LINKS=1000000")
	}
	s := archive(t, 1)
	began := time.Now()
	for i := 0; i < n; i += 5000 {
		var rows []postgres.Row
		for j := i; j < i+5000; j++ {
			r := made(j)
			if j%1000 == 0 {
				r.Owner = "few"
			}
			switch {
			case j == n/2:
				r.Title = "needle"
			case j%1000 == 7 && j < n/2:
				r.Title = "thousandth"
			case j < n/100:
				r.Title, r.Tags = "oldest", []string{"oldest tag"}
			case j < n/10:
				r.Title = "older"
			}
			rows = append(rows, r)
		}
		put(t, s, rows...)
	}
	t.Logf("%d links archived by one: %.0f/s", n, float64(n)/time.Since(began).Seconds())
	if err := s.DBs()[0].Exec(t.Context(), "VACUUM ANALYZE links"); err != nil {
		t.Fatal(err)
	}
	stat, _ := s.DBs()[0].Stat(t.Context())
	t.Logf("%d rows, %d bytes each", stat.Rows, stat.Bytes/int64(n))
	next := n
	more := func() {
		t.Helper()
		var took []float64
		for range 20 {
			rows := make([]postgres.Row, 5000)
			for i := range rows {
				rows[i] = made(next)
				next++
			}
			began := time.Now()
			put(t, s, rows...)
			took = append(took, time.Since(began).Seconds())
		}
		sort.Float64s(took)
		t.Logf("100000 links more, by 5000: %.0f/s in the median, %.0f/s the slowest", 5000/took[10], 5000/took[19])
	}
	most, few, tag := "owner3", "few", made(10).Tags[0]
	_, middle, _ := s.List(t.Context(), link.Query{Owner: most, N: 1, To: created.Add(time.Duration(n/2) * time.Millisecond)})
	search := func(parts bool) {
		t.Helper()
		for _, m := range []struct {
			name string
			q    link.Query
		}{
			{"first page of an owner", link.Query{Owner: most, N: 100}},
			{"1000 of an owner from the middle", link.Query{Owner: most, N: 1000, Cursor: middle}},
			{"an owner of few", link.Query{Owner: few, N: 100}},
			{"gone", link.Query{Owner: most, States: link.Gone, N: 100}},
			{"tag", link.Query{Tag: tag, N: 100}},
			{"tag of the oldest hundredth, an owner's", link.Query{Owner: most, Tag: "oldest tag", N: 100}},
			{"no such tag", link.Query{Owner: most, Tag: "none", N: 100}},
			{"word of one", link.Query{Words: "needle", N: 100}},
			{"word of none", link.Query{Words: "nothing", N: 100}},
			{"word of a two thousandth", link.Query{Words: "thousandth", N: 100}},
			{"word of the oldest hundredth", link.Query{Words: "oldest", N: 100}},
			{"word of the oldest tenth", link.Query{Words: "older", N: 100}},
			{"word of 1/50", link.Query{Words: "shop7", N: 100}},
			{"word of 1/50, an owner's", link.Query{Words: "shop7", Owner: most, N: 100}},
			{"word of all", link.Query{Words: "mail", N: 100}},
			{"three words", link.Query{Words: "summer3 mail shop7", N: 100}},
			{"words or parts of 1/5", link.Query{Words: "hop1", N: 100}},
			{"words or parts, of trigrams of all", link.Query{Words: "example7", N: 100}},
			{"word of all, of an owner of few", link.Query{Words: "mail", Owner: few, N: 100}},
		} {
			m.q.Parts = parts
			var took, totals []float64
			var found int
			var total int64
			for range 5 {
				began := time.Now()
				page, _, err := s.List(t.Context(), m.q)
				if err != nil {
					t.Fatal(m.name, err)
				}
				took, found = append(took, time.Since(began).Seconds()*1000), len(page)
				began = time.Now()
				if total, _, err = s.Total(t.Context(), m.q); err != nil {
					t.Error(m.name, err)
				}
				totals = append(totals, time.Since(began).Seconds()*1000)
			}
			sort.Float64s(took)
			sort.Float64s(totals)
			t.Logf("%-40s %5d found, median %6.1f ms, most %6.1f ms; total %7d, %6.1f ms", m.name, found, took[2], took[4], total, totals[2])
		}
	}
	search(false)
	more()
	began = time.Now()
	execute(t, s.DBs()[0], "CREATE EXTENSION pg_trgm")
	index(t, s)
	var bytes int64
	if err := s.DBs()[0].QueryRow(t.Context(), &bytes, "SELECT pg_relation_size('links_by_part')"); err != nil {
		t.Fatal(err)
	}
	t.Logf("the index for parts of words was built in %s: %d bytes a link", time.Since(began), bytes/int64(next))
	search(true)
	more()
	search(true) // while links wait in the list of what the index has not taken in yet
}

// BenchmarkMove measures a move from three databases to four, and what it costs to look at
// everything again.
func BenchmarkMove(b *testing.B) {
	urls := postgrestest.Databases(b, 4)
	old := open(b, 0, io.Discard, urls[:3]...)
	ready(b, old)
	const links = 200_000
	for first := 0; first < links; first += 5000 {
		rows := make([]postgres.Row, 5000)
		for i := range rows {
			rows[i] = made(first + i)
		}
		put(b, old, rows...)
	}
	s := open(b, 3, io.Discard, urls...)
	ready(b, s)
	for b.Loop() { // the first moves everything
		m, err := s.Move(b.Context(), nil)
		if err != nil {
			b.Fatal(err)
		}
		perSecond := float64(m.Looked) / b.Elapsed().Seconds()
		b.Logf("%+v in %s, %.0f rows looked at a second", m, b.Elapsed(), perSecond)
		b.ResetTimer()
	}
}
