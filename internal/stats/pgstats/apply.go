package pgstats

import (
	"context"
	"maps"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"snowlink/internal/clicks"
	"snowlink/internal/postgres"
	"snowlink/internal/stats"
)

// How long queries may take if their contexts have no deadline: those that somebody waits for, and
// those of workers.
const (
	readTime  = 1200 * time.Millisecond
	writeTime = 10 * time.Second
)

// ref is a count of a batch, or a miss.
type ref struct {
	batch, index int32
}

// share is what batches have for a scope.
type share struct {
	key  string
	refs []ref // to counts, or to misses in the scope of misses
}

// Apply appends a row for each scope and day of the batches. Each database has its share in one
// transaction, with the numbers of the batches: it leaves out what it has. Those who apply batches of
// the same producer wait for each other, in the order of producers; nothing else is locked.
//
// Batches that were applied, and are repeated after databases were added, count twice in those scopes
// whose home is another now.
func (s *Store) Apply(ctx context.Context, batches []clicks.Batch) (stats.Applied, error) {
	type result struct {
		fresh  []bool   // the batches of which something was added
		from   []uint64 // of ordered ones, what has these numbers and higher ones
		clicks int64
		err    error
	}
	shares := s.plan(batches)
	results := make(map[*postgres.DB]*result, len(shares))
	for db := range shares {
		results[db] = &result{}
	}
	err := postgres.Each(slices.Collect(maps.Keys(shares)), func(db *postgres.DB) error {
		r := results[db]
		r.fresh, r.from, r.clicks, r.err = s.applyTo(ctx, db, batches, shares[db])
		return r.err
	})
	var a stats.Applied
	for _, r := range results {
		a.Clicks += r.clicks
	}
	for i, b := range batches {
		added, from := len(b.Counts)+len(b.Misses) == 0, uint64(math.MaxUint64)
		for _, r := range results {
			if r.err == nil && r.fresh[i] {
				added, from = true, min(from, r.from[i])
			}
		}
		if added {
			if b.Ordered {
				b.Counts = b.Counts[sort.Search(len(b.Counts), func(i int) bool { return b.Counts[i].Number >= from }):]
				b.Misses = b.Misses[sort.Search(len(b.Misses), func(i int) bool { return b.Misses[i].Number >= from }):]
			}
			a.New = append(a.New, b)
		} else {
			a.Repeated++
		}
	}
	return a, err
}

// plan tells which counts each database has in which scopes.
func (s *Store) plan(batches []clicks.Batch) map[*postgres.DB][]*share {
	all := make(map[string]*share)
	shares := make(map[*postgres.DB][]*share)
	to := func(key string, r ref) {
		sh := all[key]
		if sh == nil {
			sh = &share{key: key}
			all[key] = sh
			home := s.shards.Homes(key)[0]
			shares[home] = append(shares[home], sh)
		}
		sh.refs = append(sh.refs, r)
	}
	for i := range batches {
		b := &batches[i]
		for j := range b.Counts {
			c, r := &b.Counts[j], ref{int32(i), int32(j)}
			to(linkKey(c.Code), r)
			for scope := range stats.Shared(c) {
				to(keyOf(scope), r)
			}
		}
		for j := range b.Misses {
			to(ofMisses, ref{int32(i), int32(j)})
		}
	}
	return shares
}

// applyTo adds to a database what it has not had of its share. It returns of which batches that was
// something, of ordered ones from which number on, and the clicks of links.
func (s *Store) applyTo(ctx context.Context, db *postgres.DB, batches []clicks.Batch, shares []*share) (fresh []bool, from []uint64, clicked int64, err error) {
	var rows [][]any
	var keys []string
	err = db.Do(ctx, "clicks_apply", writeTime, func(ctx context.Context, pool *pgxpool.Pool) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			producers, err := lockProducers(ctx, tx, s.now(), batches)
			if err != nil {
				return err
			}
			from = make([]uint64, len(batches)) // numbers below were applied
			fresh = make([]bool, len(batches))
			for i := range batches {
				from[i], fresh[i] = producers[batches[i].Producer].take(&batches[i])
			}
			if !slices.Contains(fresh, true) {
				return nil
			}
			rows, keys, clicked = rowsOf(batches, shares, from, fresh)
			_, err = tx.CopyFrom(ctx, pgx.Identifier{"clicks_new"}, columns, pgx.CopyFromRows(rows))
			if err != nil {
				return err
			}
			return saveProducers(ctx, tx, producers)
		})
	})
	if err != nil {
		return nil, nil, 0, err
	}
	s.heap(db, keys, rows)
	return fresh, from, clicked, nil
}

// producer is what was applied of one.
type producer struct {
	last uint64
	mask uint64 // bit i is set if last-1-i was applied
}

// take reports whether something of a batch was not applied before, and takes note of it. Of an ordered
// one, that is what has the number from, or a higher one. The last number of these is one more than the
// last one that was applied, since there may be a number 0.
func (p *producer) take(b *clicks.Batch) (from uint64, fresh bool) {
	if b.Ordered {
		from = p.last
		for i := range b.Counts {
			p.last = max(p.last, b.Counts[i].Number+1)
		}
		for i := range b.Misses {
			p.last = max(p.last, b.Misses[i].Number+1)
		}
		return from, p.last > from
	}
	n := b.Number
	switch {
	case n > p.last:
		p.mask = p.mask<<(n-p.last) | 1<<(n-p.last-1) // what is shifted too far is 0
		p.last = n
		return 0, true
	case n == p.last || p.last-n > 64 || p.mask&(1<<(p.last-n-1)) != 0:
		return 0, false
	}
	p.mask |= 1 << (p.last - n - 1)
	return 0, true
}

// lockProducers returns what was applied of the producers. They are locked in order.
func lockProducers(ctx context.Context, tx pgx.Tx, now time.Time, batches []clicks.Batch) (map[string]*producer, error) {
	ordered := make(map[string]bool)
	for _, b := range batches {
		ordered[b.Producer] = b.Ordered
	}
	names, keys, kinds := slices.Sorted(maps.Keys(ordered)), [][]byte{}, []bool{}
	byKey := make(map[string]*producer, len(names))
	producers := make(map[string]*producer, len(names))
	for _, name := range names {
		key := bounded(name)
		if byKey[key] == nil {
			byKey[key] = &producer{}
			keys, kinds = append(keys, []byte(key)), append(kinds, ordered[name])
		}
		producers[name] = byKey[key]
	}
	found, err := tx.Query(ctx, `
INSERT INTO clicks_producers (producer, ordered, last, mask, seen)
SELECT producer, ordered, 0, 0, $3 FROM unnest($1::bytea[], $2::boolean[]) AS batch (producer, ordered) ORDER BY producer
ON CONFLICT (producer) DO UPDATE SET seen = excluded.seen
RETURNING producer, last, mask`, keys, kinds, now)
	if err != nil {
		return nil, err
	}
	var key []byte
	var last, mask int64
	_, err = pgx.ForEachRow(found, []any{&key, &last, &mask}, func() error {
		*byKey[string(key)] = producer{uint64(last), uint64(mask)}
		return nil
	})
	return producers, err
}

func saveProducers(ctx context.Context, tx pgx.Tx, producers map[string]*producer) error {
	var keys [][]byte
	var lasts, masks []int64
	for name, p := range producers {
		keys = append(keys, []byte(bounded(name)))
		lasts, masks = append(lasts, int64(p.last)), append(masks, int64(p.mask))
	}
	_, err := tx.Exec(ctx, `
UPDATE clicks_producers SET last = batch.last, mask = batch.mask
FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS batch (producer, last, mask)
WHERE clicks_producers.producer = batch.producer`, keys, lasts, masks)
	return err
}

var columns = []string{"people", "bots", "day", "scope", "counts", "visitors", "links"}

// row is what is known of a scope on a day.
type row struct {
	both
	sums     *sums
	visitors visitors
	links    links
}

func newRow(w *words) *row { return &row{sums: newSums(w), links: links{}} }

func (r *row) reset() {
	r.both, r.visitors = both{}, visitors{}
	r.sums.reset()
	clear(r.links)
}

// values are those of columns.
func (r *row) values(e *encoder, key string, day int32, linksMost int) []any {
	r.sums.bound(jointMost, valuesMost)
	r.links.bound(linksMost)
	return []any{r.people, r.bots, day, []byte(key), e.encode(r.sums), r.visitors.encode(), r.links.encode(nil, 0)}
}

// hoursColumns are those of clicks_hours.
var hoursColumns = append(slices.Clone(columns), "visited", "hours", "singles", "whole")

// hoursValues are those of hoursColumns.
func (r *row) hoursValues(e *encoder, key string, day int32, linksMost int) []any {
	v := r.values(e, key, day, linksMost)
	const long = 1 << 10 // shorter ones are not worth it
	size := len(v[4].([]byte))
	short := func(of func() *sums) []byte {
		if size < long {
			return nil
		}
		if b := e.encode(of()); 2*len(b) < size {
			return b
		}
		return nil
	}
	return append(v, r.visitors.estimate(), short(r.sums.byHour), short(r.sums.singles), short(r.sums.undivided))
}

// factCount is clicks.FactCount by numbers of words.
type factCount struct {
	facts
	n int64
}

// factsOf returns all clicks of a count by facts. Clicks without facts are Other in each dimension, those
// of bots in Bot, too.
func factsOf(w *words, c *clicks.Count, to []factCount) []factCount {
	rest := both{c.Clicks, c.Bots}
	for i := range c.Facts {
		f := &c.Facts[i]
		if f.Clicks <= 0 {
			continue
		}
		to = append(to, factCount{w.facts(&f.Facts), f.Clicks})
		if f.Facts[clicks.Bot] == "" {
			rest.people -= f.Clicks
		} else {
			rest.bots -= f.Clicks
		}
	}
	var unknown facts
	for d := range unknown {
		unknown[d] = other
	}
	if rest.bots != 0 {
		to = append(to, factCount{unknown, rest.bots})
	}
	if rest.people != 0 {
		unknown[clicks.Bot] = none
		to = append(to, factCount{unknown, rest.people})
	}
	return to
}

// add adds a count, whose clicks are by those facts.
func (r *row) add(c *clicks.Count, facts []factCount, hour int, ofLinks bool) {
	s := r.sums.at(hour)
	for i := range facts {
		s.add(facts[i].facts, facts[i].n)
	}
	r.people += c.Clicks
	r.bots += c.Bots
	r.visitors.add(c.Visitors...)
	if ofLinks {
		r.links.add(c.Code, both{c.Clicks, c.Bots})
	}
}

// rowsOf makes the rows to be appended, of what is fresh.
func rowsOf(batches []clicks.Batch, shares []*share, from []uint64, fresh []bool) (rows [][]any, keys []string, clicked int64) {
	rows = make([][]any, 0, len(shares))
	w, e := newWords(), &encoder{}
	small, large := newRow(w), newRow(w)
	known := make([][][]factCount, len(batches)) // each count's facts are looked up once, not for each scope
	for i := range batches {
		known[i] = make([][]factCount, len(batches[i].Counts))
	}
	var room []factCount // for many of them
	var refs []ref
	for _, sh := range shares {
		r, misses, link := large, sh.key == ofMisses, sh.key[0] == ofLink
		if link {
			r = small
		}
		refs = refs[:0]
		for _, ref := range sh.refs {
			b := &batches[ref.batch]
			if !fresh[ref.batch] {
				continue
			}
			if number := uint64(0); b.Ordered {
				if misses {
					number = b.Misses[ref.index].Number
				} else {
					number = b.Counts[ref.index].Number
				}
				if number < from[ref.batch] {
					continue
				}
			}
			refs = append(refs, ref)
		}
		for len(refs) > 0 { // once for each day, which is mostly one
			r.reset()
			var day int32
			rest := refs[:0]
			for i, ref := range refs {
				b := &batches[ref.batch]
				if misses {
					m := &b.Misses[ref.index]
					d, _ := hourOf(m.Hour)
					if i == 0 {
						day = d
					}
					if d != day {
						rest = append(rest, ref)
						continue
					}
					r.people += m.Clicks
					r.links.add(m.Code, both{people: m.Clicks})
					continue
				}
				c := &b.Counts[ref.index]
				d, hour := hourOf(c.Hour)
				if i == 0 {
					day = d
				}
				if d != day {
					rest = append(rest, ref)
					continue
				}
				facts := known[ref.batch][ref.index]
				if facts == nil {
					before := len(room)
					room = factsOf(w, c, room)
					facts = room[before:len(room):len(room)]
					known[ref.batch][ref.index] = facts
				}
				r.add(c, facts, hour, !link)
			}
			if link {
				clicked += r.people + r.bots
			}
			keys = append(keys, sh.key)
			rows = append(rows, r.values(e, sh.key, day, linksToday))
			refs = rest
		}
	}
	return rows, keys, clicked
}

// A heap is the rows of a scope in clicks_new that this process appended since they were merged.
type heap struct {
	bytes int // about
	most  int // beyond, they are to be merged
}

type heapOf struct {
	db  *postgres.DB
	key string
}

const (
	// heapMost is how large a heap grows at least: a question reads all of it.
	heapMost = 64 << 10
	// heapsMost is how many scopes are watched. Beyond, those with little are forgotten: their rows
	// are merged when their day is over, as are those of other processes.
	heapsMost = 200_000
	// rowBytes is what a row takes beside its bytes.
	rowBytes = 100
)

// heap takes note of rows that were appended.
func (s *Store) heap(db *postgres.DB, keys []string, rows [][]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range rows {
		of := heapOf{db, keys[i]}
		h := s.heaps[of]
		if h == nil {
			if len(s.heaps) >= heapsMost {
				maps.DeleteFunc(s.heaps, func(_ heapOf, h *heap) bool { return h.bytes < heapMost/16 })
				if len(s.heaps) >= heapsMost/2 {
					clear(s.heaps)
				}
			}
			h = &heap{most: heapMost}
			s.heaps[of] = h
		}
		h.bytes += rowBytes + len(r[4].([]byte)) + len(r[5].([]byte)) + len(r[6].([]byte))
	}
}
