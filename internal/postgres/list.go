package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"snowlink/internal/link"
)

// A list asks in SQL what [link.Query.Takes] asks of a link.

// conditions are those of a query as SQL, and the values in them. Only what is asked for stands
// there, in the words of the indexes' own conditions.
type conditions struct {
	plain []string // those that links in the order of a list meet mostly
	found []string // of words and tags
	args  []any
}

func (c *conditions) add(to *[]string, condition string, values ...any) {
	for _, v := range values {
		c.args = append(c.args, v)
		condition = strings.Replace(condition, "?", "$"+strconv.Itoa(len(c.args)), 1)
	}
	*to = append(*to, condition)
}

func and(conditions ...string) string {
	return strings.Join(append([]string{"true"}, conditions...), " AND ")
}

func conditionsOf(q link.Query, after *link.Position) *conditions {
	c := &conditions{}
	add := func(condition string, values ...any) { c.add(&c.plain, condition, values...) }
	if q.Owner != "" {
		add("owner = ?", link.Link{}.OwnedBy(q.Owner).Owner)
	}
	now := time.Now()
	switch q.States {
	case link.Kept:
		add("deleted IS NULL AND (expires IS NULL OR expires > ?)", now)
	case link.Active:
		add("deleted IS NULL AND NOT disabled AND (expires IS NULL OR expires > ?)", now)
	case link.Disabled:
		add("disabled AND deleted IS NULL AND (expires IS NULL OR expires > ?)", now)
	case link.Gone:
		forgotten := now.Add(-link.Grace)
		add("(deleted > ? OR deleted IS NULL AND expires <= ? AND expires > ?)", forgotten, now, forgotten)
	}
	if q.Words != "" {
		c.add(&c.found, "links_words(code, record, title, tags) @@ plainto_tsquery('simple'::regconfig, ?)", strings.Join(link.Words(q.Words), " "))
	}
	if q.Tag != "" {
		c.add(&c.found, "tags @> ?::text[]", []string{text(q.Tag)})
	}
	if !q.From.IsZero() {
		add("created >= ?", q.From)
	}
	if !q.To.IsZero() {
		add("created < ?", q.To)
	}
	switch {
	case after != nil && q.Oldest:
		add("(created, code) > (?, ?)", after.Created, after.Code)
	case after != nil:
		add("(created, code) < (?, ?)", after.Created, after.Code)
	}
	return c
}

// lookedThrough is how many links, from where a page begins, list looks through for words and tags
// before it asks their index: 40 ms. So a word of one link in 20 or more fills a page of 100 in a
// few. The others took 42 ms to 193 ms in a database of a million links, the latter a word of one
// link in 50 (TestArchiveOf, PostgreSQL 15 as it comes, two busy cores, 2026-11-25).
const lookedThrough = 2000

// list returns the first q.N rows after a point, nil being the start.
//
// Words and tags are looked for in two ways, since PostgreSQL cannot know which links have them: it
// takes them for evenly spread, and would go through a million links for a word that only old ones
// have. First come the links where the page begins: a frequent word fills it there. Otherwise the
// index of words gives all links that have it, which are then put in order.
func (db *DB) list(ctx context.Context, q link.Query, after *link.Position) (rows []Row, err error) {
	c := conditionsOf(q, after)
	direction := "DESC"
	if q.Oldest {
		direction = "ASC"
	}
	end := fmt.Sprintf(" ORDER BY created %[1]s, code %[1]s LIMIT ", direction)
	err = db.do(ctx, "list", readTime, func(ctx context.Context) error {
		if len(c.found) == 0 {
			rows, err = db.planned(ctx, "SELECT "+columns+" FROM links WHERE "+and(c.plain...)+end+strconv.Itoa(q.N), c.args)
			return err
		}
		rows, err = db.planned(ctx, "SELECT "+columns+" FROM (SELECT * FROM links WHERE "+and(c.plain...)+end+
			strconv.Itoa(lookedThrough)+") AS near WHERE "+and(c.found...)+end+strconv.Itoa(q.N), c.args)
		if err != nil || len(rows) == q.N {
			return err
		}
		// To add nothing to the time keeps the index of the order out of this.
		rows, err = db.planned(ctx, "SELECT "+columns+" FROM links WHERE "+and(append(c.plain, c.found...)...)+
			strings.Replace(end, "created", "created + interval '0'", 1)+strconv.Itoa(q.N), c.args)
		return err
	})
	return rows, err
}

// planned is rows for a query that is planned anew each time, with the values at hand: the way to the
// links depends on them.
func (db *DB) planned(ctx context.Context, sql string, args []any) ([]Row, error) {
	return db.rows(ctx, sql, append([]any{pgx.QueryExecModeExec}, args...))
}

// countedUpTo is how many links total counts, which takes milliseconds. It estimates what is more.
const countedUpTo = 10_000

// total says how many rows the query has in all, whatever its page, and whether that is exact. The
// estimate comes first, since to count takes long where a word is in most links.
func (db *DB) total(ctx context.Context, q link.Query) (n int64, exact bool, err error) {
	c := conditionsOf(q, nil)
	where, args := and(append(c.plain, c.found...)...), append([]any{pgx.QueryExecModeExec}, c.args...)
	err = db.do(ctx, "total", readTime, func(ctx context.Context) error {
		var plan []byte
		if err := db.pool.QueryRow(ctx, "EXPLAIN (FORMAT JSON) SELECT FROM links WHERE "+where, args...).Scan(&plan); err != nil {
			return err
		}
		var plans []struct {
			Plan struct {
				Rows int64 `json:"Plan Rows"`
			}
		}
		if err := json.Unmarshal(plan, &plans); err != nil {
			return err
		}
		estimate := plans[0].Plan.Rows
		if estimate > 10*countedUpTo {
			n = estimate
			return nil
		}
		sql := fmt.Sprintf("SELECT count(*) FROM (SELECT FROM links WHERE %s LIMIT %d) AS first", where, countedUpTo+1)
		if err := db.pool.QueryRow(ctx, sql, args...).Scan(&n); err != nil {
			return err
		}
		if exact = n <= countedUpTo; !exact {
			n = max(n, estimate)
		}
		return nil
	})
	return n, exact, err
}
