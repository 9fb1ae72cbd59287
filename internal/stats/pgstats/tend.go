package pgstats

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"snowlink/internal/deadline"
	"snowlink/internal/postgres"
)

const (
	// tendEvery is how often it is looked whether something is to be merged, and lookEvery whether a
	// day is over or old.
	tendEvery = time.Second
	lookEvery = time.Minute
	// stepMost bounds the rows of a step, and bytesMost their bytes: a step is a transaction of some
	// 50 ms.
	stepMost  = 500
	bytesMost = 8 << 20
	// forgetProducers is after how long of silence it is forgotten what was applied of a producer. No
	// queue repeats what is older than two days.
	forgetProducers = 7 * 24 * time.Hour
)

// Tend merges rows of the same scope and day: where many have gathered at once, and all of a day once
// it is over. It rolls up days that are older than hours are kept, and forgets producers.
//
// In each database one who tends works at a time, in small transactions, and rests after each as long
// as it took: what is interrupted was not begun. Others pass.
func (s *Store) Tend(ctx context.Context) error {
	return postgres.Each(s.shards.DBs(), func(db *postgres.DB) error {
		var looked time.Time
		for {
			s.mergeHeaps(ctx, db)
			if time.Since(looked) > lookEvery {
				s.look(ctx, db)
				looked = time.Now()
			}
			if !deadline.Sleep(ctx, tendEvery) {
				return nil
			}
		}
	})
}

// mergeHeaps merges the rows of those scopes of which this process has appended many. What fails is
// tried again.
func (s *Store) mergeHeaps(ctx context.Context, db *postgres.DB) {
	for _, key := range s.large(db) {
		size, done, err := s.merge(ctx, db, []string{key})
		if err != nil || !done {
			return
		}
		s.mu.Lock()
		if h := s.heaps[heapOf{db, key}]; h != nil {
			h.bytes, h.most = 0, max(heapMost, size) // or a large row would be written anew for a few
		}
		s.mu.Unlock()
	}
}

// large returns the scopes of the heaps that are to be merged.
func (s *Store) large(db *postgres.DB) (keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for of, h := range s.heaps {
		if of.db == db && h.bytes > h.most {
			keys = append(keys, of.key)
		}
	}
	return keys
}

// look does all that is to be done to a database, unless somebody else does.
func (s *Store) look(ctx context.Context, db *postgres.DB) {
	for _, step := range []func(context.Context, *postgres.DB) (more bool, err error){s.mergeOver, s.rollUp, s.forgetProducers} {
		for {
			began := time.Now()
			more, err := step(ctx, db)
			if !deadline.Sleep(ctx, time.Since(began)) || err != nil { // which the archive's log has
				return
			}
			if !more {
				break
			}
		}
	}
}

// errBusy reports that somebody else tends the database.
var errBusy = errors.New("another process tends the database")

// tending runs a step in a transaction, unless somebody else tends the database: busy then.
func tending(ctx context.Context, db *postgres.DB, name string, step func(context.Context, pgx.Tx) error) (busy bool, err error) {
	err = db.Do(ctx, name, writeTime, func(ctx context.Context, pool *pgxpool.Pool) error {
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			var one bool
			err := tx.QueryRow(ctx, "SELECT one FROM clicks_tending FOR UPDATE SKIP LOCKED").Scan(&one)
			if errors.Is(err, pgx.ErrNoRows) {
				return errBusy
			}
			if err != nil {
				return err
			}
			return step(ctx, tx)
		})
		if busy = errors.Is(err, errBusy); busy {
			return nil
		}
		return err
	})
	return busy, err
}

// mergeOver merges the rows of some scopes whose day is over. Those of the oldest days come first.
func (s *Store) mergeOver(ctx context.Context, db *postgres.DB) (more bool, err error) {
	var keys []string
	err = db.Do(ctx, "clicks_look", writeTime, func(ctx context.Context, pool *pgxpool.Pool) error {
		rows, err := pool.Query(ctx, `
SELECT DISTINCT scope FROM (SELECT scope FROM clicks_new WHERE day < $1 ORDER BY day, id LIMIT $2) AS oldest`,
			dayOf(s.now()), stepMost)
		if err != nil {
			return err
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
		for _, key := range found {
			keys = append(keys, string(key))
		}
		return err
	})
	if err != nil || len(keys) == 0 {
		return false, err
	}
	_, done, err := s.merge(ctx, db, keys)
	return done, err
}

// rowKey is where a row of clicks_hours, or of clicks_days, belongs.
type rowKey struct {
	scope string
	at    int32
}

func (k rowKey) compare(other rowKey) int {
	return cmp.Or(cmp.Compare(k.scope, other.scope), cmp.Compare(k.at, other.at))
}

// merge merges all new rows of some scopes into those of their days, in as many steps as that takes. Rows
// that come meanwhile are left: of a busy scope there would always be one more. It returns the bytes of the
// rows that were written last, and false if somebody else tends the database.
func (s *Store) merge(ctx context.Context, db *postgres.DB, keys []string) (size int, done bool, err error) {
	var newest int64
	err = db.Do(ctx, "clicks_look", writeTime, func(ctx context.Context, pool *pgxpool.Pool) error {
		return pool.QueryRow(ctx, "SELECT coalesce(max(id), 0) FROM clicks_new").Scan(&newest)
	})
	if err != nil {
		return 0, false, err
	}
	for {
		began := time.Now()
		var written, taken int
		busy, err := tending(ctx, db, "clicks_merge", func(ctx context.Context, tx pgx.Tx) (err error) {
			written, taken, err = s.mergeSome(ctx, tx, keys, newest)
			return err
		})
		if busy || err != nil {
			return 0, false, err
		}
		if taken == 0 {
			return size, true, nil
		}
		size = written
		if !deadline.Sleep(ctx, time.Since(began)) {
			return 0, false, ctx.Err()
		}
	}
}

// mergeSome is a step of a merge. It returns how many rows it took, and 0 at the end.
func (s *Store) mergeSome(ctx context.Context, tx pgx.Tx, keys []string, newest int64) (size, taken int, err error) {
	m := newMerging(s.now())
	const of = "scope, day, people, bots, counts, visitors, links"
	// The bytes of all rows up to each tell where a step ends.
	rows, err := tx.Query(ctx, `
WITH summed AS (
	SELECT id, sum(length(counts) + coalesce(length(visitors), 0) + coalesce(length(links), 0)) OVER (ORDER BY scope, day, id) AS bytes
	FROM (SELECT * FROM clicks_new WHERE scope = ANY($1) AND id <= $4 ORDER BY scope, day, id LIMIT $2) AS first
), taken AS (
	SELECT id FROM summed WHERE bytes <= $3 UNION (SELECT id FROM summed ORDER BY bytes LIMIT 1)
)
DELETE FROM clicks_new WHERE id IN (SELECT id FROM taken) RETURNING `+of, bytesOf(keys), 4*stepMost, bytesMost, newest)
	if err != nil {
		return 0, 0, err
	}
	taken, err = m.addAll(rows)
	if err != nil || taken == 0 {
		return 0, 0, err
	}
	scopes, days := m.columns()
	rows, err = tx.Query(ctx, `
SELECT `+of+` FROM clicks_hours JOIN unnest($1::bytea[], $2::integer[]) AS merged (scope, day) USING (scope, day)`, scopes, days)
	if err != nil {
		return 0, 0, err
	}
	if _, err := m.addAll(rows); err != nil {
		return 0, 0, err
	}
	var e encoder
	var u upserting
	for _, key := range m.sorted() {
		most := linksToday
		if key.at < m.today {
			most = linksPast
		}
		v := m.rows[key].hoursValues(&e, "", key.at, most)
		u.add(key, v[0].(int64), v[1].(int64), v[4].([]byte), v[5].([]byte), v[6].([]byte))
		u.visited, u.hours = append(u.visited, v[7].(int64)), append(u.hours, v[8].([]byte))
		u.singles, u.wholes = append(u.singles, v[9].([]byte)), append(u.wholes, v[10].([]byte))
	}
	return u.size, taken, u.exec(ctx, tx, "clicks_hours", "day")
}

func bytesOf(keys []string) [][]byte {
	list := make([][]byte, len(keys))
	for i, key := range keys {
		list[i] = []byte(key)
	}
	return list
}

// merging adds up rows by scope and day.
type merging struct {
	rows  map[rowKey]*row
	today int32
}

func newMerging(now time.Time) *merging {
	return &merging{rows: make(map[rowKey]*row), today: dayOf(now)}
}

func (m *merging) addAll(rows pgx.Rows) (n int, err error) {
	var scope, counts, who, list pgtype.DriverBytes
	var day int32
	var b both
	_, err = pgx.ForEachRow(rows, []any{&scope, &day, &b.people, &b.bots, &counts, &who, &list}, func() error {
		n++
		key := rowKey{string(scope), day}
		r := m.rows[key]
		if r == nil {
			r = newRow(newWords())
			m.rows[key] = r
		}
		r.people += b.people
		r.bots += b.bots
		d := decoder{words: r.sums.words}
		return errors.Join(
			d.read(counts, &adder{to: r.sums}),
			r.visitors.read(who),
			readLinks(list, func(int) links { return r.links }),
		)
	})
	return n, err
}

// columns are the scopes and days.
func (m *merging) columns() (scopes [][]byte, days []int32) {
	for _, key := range m.sorted() {
		scopes, days = append(scopes, []byte(key.scope)), append(days, key.at)
	}
	return scopes, days
}

func (m *merging) sorted() []rowKey { return sortedKeys(m.rows) }

func sortedKeys[V any](m map[rowKey]V) []rowKey {
	keys := make([]rowKey, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, rowKey.compare)
	return keys
}

// upserting is rows to be written, column by column.
type upserting struct {
	people, bots                []int64
	at                          []int32
	scopes, counts, whos, lists [][]byte
	size                        int

	visited                []int64 // these are of clicks_hours alone
	hours, singles, wholes [][]byte
}

func (u *upserting) add(key rowKey, people, bots int64, counts, who, list []byte) {
	u.people, u.bots, u.at = append(u.people, people), append(u.bots, bots), append(u.at, key.at)
	u.scopes, u.counts = append(u.scopes, []byte(key.scope)), append(u.counts, counts)
	u.whos, u.lists = append(u.whos, who), append(u.lists, list)
	u.size += len(counts) + len(who) + len(list)
}

func (u *upserting) exec(ctx context.Context, tx pgx.Tx, table, at string) error {
	if len(u.at) == 0 {
		return nil
	}
	into, from, set := "", "", ""
	args := []any{u.people, u.bots, u.at, u.scopes, u.counts, u.whos, u.lists}
	if u.visited != nil {
		into, from = ", visited, hours, singles, whole", ", $8::integer[], $9::bytea[], $10::bytea[], $11::bytea[]"
		set = ", visited = excluded.visited, hours = excluded.hours, singles = excluded.singles, whole = excluded.whole"
		args = append(args, u.visited, u.hours, u.singles, u.wholes)
	}
	_, err := tx.Exec(ctx, `
INSERT INTO `+table+` (people, bots, `+at+`, scope, counts, visitors, links`+into+`)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::integer[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bytea[]`+from+`)
ON CONFLICT (scope, `+at+`) DO UPDATE SET people = excluded.people, bots = excluded.bots, counts = excluded.counts,
	visitors = excluded.visitors, links = excluded.links`+set, args...)
	return err
}

// month is a row of clicks_days.
type month struct {
	both
	sums    *sums
	numbers numbers
	links   [slotsMost]links
}

// rollUp moves some days that are older than hours are kept to daily totals by single dimensions.
func (s *Store) rollUp(ctx context.Context, db *postgres.DB) (more bool, err error) {
	busy, err := tending(ctx, db, "clicks_roll_up", func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
DELETE FROM clicks_hours WHERE (scope, day) IN (SELECT scope, day FROM clicks_hours WHERE day < $1 ORDER BY day LIMIT $2)
RETURNING scope, day, people, bots, counts, visitors, links`, s.cutoff(), stepMost/2)
		if err != nil {
			return err
		}
		more, err = rollUp(ctx, tx, rows)
		return err
	})
	return more && !busy, err
}

func rollUp(ctx context.Context, tx pgx.Tx, rows pgx.Rows) (more bool, err error) {
	months := make(map[rowKey]*month)
	at := func(scope string, number int32) *month {
		key := rowKey{scope, number}
		m := months[key]
		if m == nil {
			m = &month{sums: newSums(newWords())}
			months[key] = m
		}
		return m
	}
	var scope, counts, who, list pgtype.DriverBytes
	var day int32
	var b both
	into := []any{&scope, &day, &b.people, &b.bots, &counts, &who, &list}
	_, err = pgx.ForEachRow(rows, into, func() error {
		number, slot := monthOf(day)
		m := at(string(scope), number)
		m.people += b.people
		m.bots += b.bots
		d := decoder{words: m.sums.words}
		var v visitors
		err := errors.Join(d.read(counts, folder{m.sums.at(slot)}), v.read(who), readLinks(list, m.of(slot)))
		m.numbers[slot] += uint64(v.estimate())
		return err
	})
	if err != nil || len(months) == 0 {
		return false, err
	}
	keys := sortedKeys(months)
	var scopes [][]byte
	var numbers []int32
	for _, key := range keys {
		scopes, numbers = append(scopes, []byte(key.scope)), append(numbers, key.at)
	}
	rows, err = tx.Query(ctx, `
SELECT scope, month, people, bots, counts, visitors, links
FROM clicks_days JOIN unnest($1::bytea[], $2::integer[]) AS merged (scope, month) USING (scope, month)`, scopes, numbers)
	if err != nil {
		return false, err
	}
	_, err = pgx.ForEachRow(rows, into, func() error {
		m := at(string(scope), day)
		m.people += b.people
		m.bots += b.bots
		d := decoder{words: m.sums.words}
		return errors.Join(d.read(counts, &adder{to: m.sums}), m.numbers.read(who), readLinks(list, func(slot int) links { return m.of(slot)(0) }))
	})
	if err != nil {
		return false, err
	}
	var u upserting
	var e encoder
	for _, key := range keys {
		m := months[key]
		m.sums.bound(0, valuesMost)
		var list []byte
		for slot, l := range m.links {
			l.bound(linksOld)
			list = l.encode(list, slot)
		}
		u.add(key, m.people, m.bots, e.encode(m.sums), m.numbers.encode(), list)
	}
	return true, u.exec(ctx, tx, "clicks_days", "month")
}

// of returns the links of a day of the month, whatever day the row of a day has them under.
func (m *month) of(slot int) func(int) links {
	return func(int) links {
		if m.links[slot] == nil {
			m.links[slot] = links{}
		}
		return m.links[slot]
	}
}

// forgetProducers forgets what was applied of those that have long been silent. Those that number what
// they carry come back.
func (s *Store) forgetProducers(ctx context.Context, db *postgres.DB) (more bool, err error) {
	err = db.Do(ctx, "clicks_producers", writeTime, func(ctx context.Context, pool *pgxpool.Pool) error {
		tag, err := pool.Exec(ctx, `
DELETE FROM clicks_producers WHERE producer IN (
	SELECT producer FROM clicks_producers WHERE NOT ordered AND seen < $1 LIMIT `+strconv.Itoa(stepMost)+` FOR UPDATE SKIP LOCKED)`,
			s.now().Add(-forgetProducers))
		more = err == nil && tag.RowsAffected() == stepMost
		return err
	})
	return more, err
}

// Forget deletes the rows of the link. It waits for who tends the database, or what is being merged
// would come back.
func (s *Store) Forget(ctx context.Context, code string) error {
	key := linkKey(code)
	return postgres.Each(s.shards.Homes(key), func(db *postgres.DB) error {
		return db.Do(ctx, "clicks_forget", writeTime, func(ctx context.Context, pool *pgxpool.Pool) error {
			return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, "SELECT one FROM clicks_tending FOR UPDATE"); err != nil {
					return err
				}
				for _, table := range []string{"clicks_new", "clicks_hours", "clicks_days"} {
					if _, err := tx.Exec(ctx, "DELETE FROM "+table+" WHERE scope = $1", []byte(key)); err != nil {
						return err
					}
				}
				return nil
			})
		})
	})
}
