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
	plain     []string // those that links in the order of a list meet mostly
	found     []string // of words and tags
	args      []any
	plainArgs int  // how many of them, from the first, are those of plain
	parts     bool // all words that are looked for may be parts of others
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
	c.plainArgs = len(c.args)
	if q.Words != "" {
		c.wordConditions(q)
	}
	if q.Tag != "" {
		c.add(&c.found, "tags @> ?::text[]", []string{text(q.Tag)})
	}
	return c
}

// list returns the first q.N rows after a point, nil being the start.
//
// Words and tags are looked for in one of two ways. Frequent ones fill the page from the links where
// it begins. Otherwise the index of words gives all links that have them, which are then put in
// order. PostgreSQL cannot choose, since it takes no account of what it costs to find the words of a
// link: that is 20 us, and a link from the index costs a third of it (TestArchiveOf, PostgreSQL 15,
// two busy cores, 2026-11-25). And it takes links that have a word for evenly spread: if only old ones
// have it, the page is not filled, and the index gives it after all.
//
// Parts of words are found in a link in 2 us. How frequent they are, PostgreSQL concludes from a hundred
// links, so that twice as many are looked at.
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
		all, err := db.estimate(ctx, and(c.plain...), c.args[:c.plainArgs])
		if err != nil {
			return err
		}
		where := and(append(c.plain, c.found...)...)
		found, err := db.estimate(ctx, where, c.args)
		if err != nil {
			return err
		}
		near, costs := 3*int64(q.N)*all/(2*max(found, 1)), int64(3) // with half as many to spare
		if c.parts {
			near, costs = 2*near, 1
		}
		if costs*near < found {
			rows, err = db.planned(ctx, "SELECT "+columns+" FROM (SELECT * FROM links WHERE "+and(c.plain...)+end+
				strconv.FormatInt(near, 10)+") AS near WHERE "+and(c.found...)+end+strconv.Itoa(q.N), c.args)
			if err != nil || len(rows) == q.N {
				return err
			}
		}
		// To add nothing to the time keeps the index of the order out of this.
		rows, err = db.planned(ctx, "SELECT "+columns+" FROM links WHERE "+where+
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

// estimate is how many rows PostgreSQL expects to meet the condition.
func (db *DB) estimate(ctx context.Context, where string, args []any) (int64, error) {
	var plan []byte
	err := db.pool.QueryRow(ctx, "EXPLAIN (FORMAT JSON) SELECT FROM links WHERE "+where, append([]any{pgx.QueryExecModeExec}, args...)...).Scan(&plan)
	if err != nil {
		return 0, err
	}
	var plans []struct {
		Plan struct {
			Rows int64 `json:"Plan Rows"`
		}
	}
	if err := json.Unmarshal(plan, &plans); err != nil {
		return 0, err
	}
	return plans[0].Plan.Rows, nil
}

// countedUpTo is how many links total counts, which takes milliseconds. It estimates what is more.
const countedUpTo = 10_000

// total says how many rows the query has in all, whatever its page, and whether that is exact. The
// estimate comes first, since to count takes long where a word is in many links.
func (db *DB) total(ctx context.Context, q link.Query) (n int64, exact bool, err error) {
	c := conditionsOf(q, nil)
	where := and(append(c.plain, c.found...)...)
	err = db.do(ctx, "total", readTime, func(ctx context.Context) error {
		estimate, err := db.estimate(ctx, where, c.args)
		if err != nil {
			return err
		}
		if estimate > 10*countedUpTo || q.Words != "" && estimate > countedUpTo {
			n = estimate
			return nil
		}
		sql := fmt.Sprintf("SELECT count(*) FROM (SELECT FROM links WHERE %s LIMIT %d) AS first", where, countedUpTo+1)
		if err := db.pool.QueryRow(ctx, sql, append([]any{pgx.QueryExecModeExec}, c.args...)...).Scan(&n); err != nil {
			return err
		}
		if exact = n <= countedUpTo; !exact {
			n = max(n, estimate)
		}
		return nil
	})
	return n, exact, err
}
