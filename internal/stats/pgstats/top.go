package pgstats

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"snowlink/internal/clicks"
	"snowlink/internal/postgres"
	"snowlink/internal/stats"
)

// Top finds the links in the lists of the scope, which have the most clicked ones of each day, and
// counts their clicks of those days by their own rows. So a link that was forgotten is in no top list.
// It has all clicks of a link, also those from before its owner or tags changed. Times are of whole
// days.
func (s *Store) Top(ctx context.Context, scope stats.Scope, from, to time.Time, bots stats.Bots, n int) ([]stats.LinkClicks, error) {
	if n <= 0 || !from.Before(to) {
		return nil, nil
	}
	listed, err := s.listed(ctx, keyOf(scope), from, to)
	if err != nil {
		return nil, err
	}
	codes := listed.most(bots)
	codes = codes[:min(len(codes), 2*n+16)] // some more: in lists of different days others are missing
	sums, err := s.sumsOf(ctx, codes, dayOf(from), dayOf(to.Add(-time.Nanosecond)))
	if err != nil {
		return nil, err
	}
	return first(sums, bots, n), nil
}

// Misses reads the lists of codes without a link. Times are of whole days.
func (s *Store) Misses(ctx context.Context, from, to time.Time, n int) ([]stats.LinkClicks, error) {
	if n <= 0 || !from.Before(to) {
		return nil, nil
	}
	listed, err := s.listed(ctx, ofMisses, from, to)
	if err != nil {
		return nil, err
	}
	return first(listed, stats.People, n), nil
}

// first returns the n codes with the most clicks.
func first(l links, bots stats.Bots, n int) (list []stats.LinkClicks) {
	for _, code := range l.most(bots) {
		clicks := l[code].of(bots)
		if len(list) == n || clicks <= 0 {
			break
		}
		list = append(list, stats.LinkClicks{Code: code, Clicks: clicks})
	}
	return list
}

const listsOf = `
SELECT 0, day, links FROM clicks_new WHERE scope = $1 AND day BETWEEN $2 AND $3 AND links IS NOT NULL
UNION ALL SELECT 1, day, links FROM clicks_hours WHERE scope = $1 AND day BETWEEN $2 AND $3 AND links IS NOT NULL
UNION ALL SELECT 2, month, links FROM clicks_days WHERE scope = $1 AND month BETWEEN $4 AND $5 AND links IS NOT NULL`

// listed adds up the lists of a scope over some days.
func (s *Store) listed(ctx context.Context, key string, from, to time.Time) (links, error) {
	first, last := dayOf(from), dayOf(to.Add(-time.Nanosecond))
	firstMonth, _ := monthOf(first)
	lastMonth, _ := monthOf(last)
	sum := links{}
	var mu sync.Mutex
	err := postgres.Each(s.shards.Homes(key), func(db *postgres.DB) error {
		return db.Do(ctx, "clicks_top", readTime, func(ctx context.Context, pool *pgxpool.Pool) error {
			rows, err := pool.Query(ctx, listsOf, []byte(key), first, last, firstMonth, lastMonth)
			if err != nil {
				return err
			}
			var table, at int32
			var list pgtype.DriverBytes
			_, err = pgx.ForEachRow(rows, []any{&table, &at, &list}, func() error {
				mu.Lock()
				defer mu.Unlock()
				return readLinks(list, func(slot int) links {
					if day := dayIn(at, slot); table == inDays && (day < first || day > last) {
						return nil
					}
					return sum
				})
			})
			return err
		})
	})
	return sum, err
}

// totalsOf reads nothing but the keys of clicks_hours and, but for months of which not all days are
// asked for, of clicks_days.
const totalsOf = `
SELECT 0, scope, sum(people)::bigint, sum(bots)::bigint, NULL::integer, NULL::bytea
	FROM clicks_new WHERE scope = ANY($1) AND day BETWEEN $2 AND $3 GROUP BY scope
UNION ALL SELECT 1, scope, sum(people)::bigint, sum(bots)::bigint, NULL, NULL
	FROM clicks_hours WHERE scope = ANY($1) AND day BETWEEN $2 AND $3 GROUP BY scope
UNION ALL SELECT 1, scope, sum(people)::bigint, sum(bots)::bigint, NULL, NULL
	FROM clicks_days WHERE scope = ANY($1) AND month > $4 AND month < $5 GROUP BY scope
UNION ALL SELECT 2, scope, 0, 0, month, counts
	FROM clicks_days WHERE scope = ANY($1) AND month IN ($4, $5)`

// sumsOf returns the clicks of links on some days, the last one with them.
func (s *Store) sumsOf(ctx context.Context, codes []string, first, last int32) (links, error) {
	firstMonth, _ := monthOf(first)
	lastMonth, _ := monthOf(last)
	sums := make(links, len(codes))
	byKey := make(map[string]string, len(codes))
	keys := make(map[*postgres.DB][][]byte)
	for _, code := range codes {
		key := linkKey(code)
		if _, twice := byKey[key]; twice {
			continue
		}
		byKey[key] = code
		for _, db := range s.shards.Homes(key) {
			keys[db] = append(keys[db], []byte(key))
		}
	}
	var dbs []*postgres.DB
	for db := range keys {
		dbs = append(dbs, db)
	}
	var mu sync.Mutex
	err := postgres.Each(dbs, func(db *postgres.DB) error {
		return db.Do(ctx, "clicks_totals", readTime, func(ctx context.Context, pool *pgxpool.Pool) error {
			rows, err := pool.Query(ctx, totalsOf, keys[db], first, last, firstMonth, lastMonth)
			if err != nil {
				return err
			}
			var table int32
			var key, counts pgtype.DriverBytes
			var b both
			var month *int32
			_, err = pgx.ForEachRow(rows, []any{&table, &key, &b.people, &b.bots, &month, &counts}, func() error {
				mu.Lock()
				defer mu.Unlock()
				code := byKey[string(key)]
				if table != inDays {
					sums.add(code, b)
					return nil
				}
				t := totaller{month: *month, first: first, last: last}
				d := decoder{words: newWords()}
				err := d.read(counts, &t)
				sums.add(code, t.both)
				return err
			})
			return err
		})
	})
	return sums, err
}

// Totals adds up what is kept of each link.
func (s *Store) Totals(ctx context.Context, codes []string) ([]int64, error) {
	if len(codes) == 0 {
		return nil, nil
	}
	const always = 1_000_000 // days
	sums, err := s.sumsOf(ctx, codes, -always, always)
	if err != nil {
		return nil, err
	}
	totals := make([]int64, len(codes))
	for i, code := range codes {
		totals[i] = sums[code].people
	}
	return totals, nil
}

// totaller adds up the days of a month that are asked for.
type totaller struct {
	passer
	both
	month       int32
	first, last int32
}

func (t *totaller) slot(i int) bool {
	day := dayIn(t.month, i)
	return t.first <= day && day <= t.last
}

func (t *totaller) joint(f *facts, n int64) { t.folded(f[clicks.Bot], n) }

func (t *totaller) folded(bot uint32, n int64) {
	if bot == none {
		t.people += n
	} else {
		t.bots += n
	}
}
