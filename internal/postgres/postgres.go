// Package postgres is the archive: every link, in one or several PostgreSQL databases.
//
// Its decisions. A row holds the record as Redis has it, so that to restore a link is to copy it, and
// beside the record only what lists and search look for. A row is replaced by a record with a higher
// number, never by another: so marks may be archived in any order, twice, and by several at once. A
// code's database follows from the code and the number of databases alone: nothing is asked to find
// it. It is plain SQL, for PostgreSQL 14 and newer, and needs no extension; where pg_trgm is there,
// searches find parts of words. What the records mean is for the caller.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"snowlink/internal/link"
	"snowlink/internal/outage"
)

const (
	// readTime is how long a query may take that a visitor or a manager waits for, and writeTime one of
	// a worker, if their contexts have no deadline.
	readTime  = 1200 * time.Millisecond
	writeTime = 10 * time.Second
)

// A Row is a link as it is archived.
type Row struct {
	// Code is the code of the link, and the key.
	Code string
	// Number is that of the record: 0 for a link as it was created, one more with each change.
	Number int64
	// Record is the value in Redis, byte for byte. It begins with the target, and a line break if
	// there is more.
	Record string

	// What lists and search look for. Owner is "" for the links of API_KEY. Times are kept to the
	// microsecond, in UTC; zero ones are none. Created must not be zero; it changes only when the code
	// goes to another link. It is the Unix epoch if nobody knows when the link was made: such a link is
	// the oldest of a list, and not in one that has a From.
	Owner    string
	Created  time.Time
	Expires  time.Time
	Disabled bool
	// Deleted is when the link was deleted, as far as whoever archived it knew.
	Deleted time.Time
	// Title and Tags are those of the link. Line breaks separate tags.
	Title string
	Tags  []string
}

// Position is the row's place in lists.
func (r Row) Position() link.Position { return link.Position{Created: r.Created, Code: r.Code} }

// Errors of an Upsert for one row. All others wrap [link.ErrUnavailable].
var (
	// ErrRefused says that the row that is there has the same number or a higher one. It may be the
	// same record: read it.
	ErrRefused = errors.New("the archive has this record or a later one")

	// ErrUnfit says that PostgreSQL cannot hold the row, whatever else is written: it has text that is
	// not UTF-8 or has a NUL, a time out of range, or more than an index takes. We write no such
	// records.
	ErrUnfit = errors.New("the archive cannot hold the record")
)

// DB is one database of the archive. All methods may be called concurrently.
type DB struct {
	shard   int // from 0
	shards  *Shards
	pool    *pgxpool.Pool
	outage  *outage.Outage
	metrics *metrics
}

// open makes the pool of a shard. It does not connect.
func (s *Shards) open(config *pgxpool.Config, shard, of int, log *slog.Logger, m *metrics) (*DB, error) {
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, err
	}
	return &DB{
		shard: shard, shards: s, pool: pool, metrics: m,
		outage: outage.New(log, fmt.Sprintf("archive shard %d of %d", shard+1, of)),
	}, nil
}

// Ping asks the database for a sign of life. Its error wraps [link.ErrUnavailable].
func (db *DB) Ping(ctx context.Context) error {
	return db.do(ctx, "ping", readTime, func(ctx context.Context) error { return db.pool.Ping(ctx) })
}

// Close closes the connections, once the queries that run are done.
func (db *DB) Close() { db.pool.Close() }

const columns = "code, number, record, owner, created, expires, disabled, deleted, title, tags"

// Get returns the rows of the codes that there are, by code, in one query. The error wraps
// [link.ErrUnavailable], also if the database is not the shard that it should be: what it does not
// have may be elsewhere.
func (db *DB) Get(ctx context.Context, codes []string) (map[string]Row, error) {
	rows := make(map[string]Row, len(codes))
	if !isText(strings.Join(codes, "")) { // such a code is not there, and would fail the query of all
		codes = slices.DeleteFunc(slices.Clone(codes), func(code string) bool { return !isText(code) })
	}
	err := db.do(ctx, "get", readTime, func(ctx context.Context) error {
		var is identity // in the same query, so that it holds for its answer
		found, err := db.rows(ctx, "SELECT "+columns+", shard, total FROM (SELECT number AS shard, total FROM shard) AS shard "+
			"LEFT JOIN links ON code = ANY($1)", []any{codes}, &is.number, &is.total)
		if err != nil {
			return err
		}
		if !db.mayBe(is) {
			return db.wrong(is)
		}
		for _, r := range found {
			if r.Code != "" {
				rows[r.Code] = r
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// upsert is all of a batch in one statement, so that it costs one round trip and is written whole or
// not at all. Codes come in order and each once, or two archivers could wait for each other.
//
// COPY into a temporary table and a statement from there is no faster: 12,000, 21,700 and 24,700 new
// links a second in batches of 100, 1,000 and 5,000, and this 17,100, 22,100 and 25,100
// (BenchmarkUpsert, one client, PostgreSQL 15 without fsync, two busy cores, 2026-11-25).
//
// Nothing is written unless the database is the shard $11 of as many as one of $12.
const upsert = `
WITH written AS (
	INSERT INTO links (code, number, record, owner, created, expires, disabled, deleted, title, tags)
	SELECT code, number, record, owner, created, expires, disabled, deleted, title, string_to_array(tags, E'\n')
	FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::boolean[],
		$8::timestamptz[], $9::text[], $10::text[])
		AS batch (code, number, record, owner, created, expires, disabled, deleted, title, tags)
	WHERE EXISTS (SELECT FROM shard WHERE shard.number = $11 AND shard.total = ANY($12))
	ORDER BY code COLLATE "C"
	ON CONFLICT (code) DO UPDATE SET
		number = excluded.number, record = excluded.record, owner = excluded.owner, created = excluded.created,
		expires = excluded.expires, disabled = excluded.disabled, deleted = excluded.deleted,
		title = excluded.title, tags = excluded.tags
	WHERE links.number < excluded.number
	RETURNING code
)
SELECT number, total, code FROM shard LEFT JOIN written ON true`

// Upsert writes the rows, and returns an error, or nil for what was written, for each in order:
// [ErrRefused], [ErrUnfit], or one for all of them that wraps [link.ErrUnavailable]: they may or may
// not be written then, and to repeat it is safe. Of several rows of one code only the one with the
// highest number is written.
func (db *DB) Upsert(ctx context.Context, rows []Row) []error {
	errs := make([]error, len(rows))
	last := make(map[string]int, len(rows)) // of each code, the row to be written
	for i, r := range rows {
		if !isText(r.Record) {
			errs[i] = ErrUnfit
			continue
		}
		errs[i] = ErrRefused
		if before, ok := last[r.Code]; !ok || rows[before].Number < r.Number {
			last[r.Code] = i
		}
	}
	if len(last) == 0 {
		return errs
	}
	var b batch
	for _, i := range last {
		b.add(rows[i])
	}
	var written []string
	err := db.do(ctx, "upsert", writeTime, func(ctx context.Context) error {
		totals := db.totals(rows)
		found, err := db.pool.Query(ctx, upsert, append(b.args(), db.shard+1, totals)...)
		if err != nil {
			return err
		}
		var is identity
		var code *string
		_, err = pgx.ForEachRow(found, []any{&is.number, &is.total, &code}, func() error {
			if code != nil {
				written = append(written, *code)
			}
			return nil
		})
		if err == nil && (is.number != db.shard+1 || !slices.Contains(totals, is.total)) {
			db.shards.learn(is)
			err = db.wrong(is)
		}
		return err
	})
	if unfit(err) {
		if len(rows) == 1 {
			return []error{fmt.Errorf("%w: %w", ErrUnfit, err)}
		}
		// One row must not keep the others from the archive for ever. Which one it is takes as many
		// statements as there are halvings: such rows are next to none.
		half := len(rows) / 2
		return slices.Concat(db.Upsert(ctx, rows[:half]), db.Upsert(ctx, rows[half:]))
	}
	if err != nil {
		for i := range errs {
			if errs[i] != ErrUnfit {
				errs[i] = err
			}
		}
		return errs
	}
	for _, code := range written {
		errs[last[code]] = nil
	}
	return errs
}

// unfit reports whether PostgreSQL refused a statement for the data in it: SQLSTATE classes 22, data
// exception, and 54, program limit exceeded (PostgreSQL's manual, appendix A).
func unfit(err error) bool {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (strings.HasPrefix(refused.Code, "22") || strings.HasPrefix(refused.Code, "54"))
}

// batch is rows, column by column.
type batch struct {
	codes, records, owners    []string
	numbers                   []int64
	created, expires, deleted []*time.Time
	disabled                  []bool
	titles, tags              []*string
}

func (b *batch) add(r Row) {
	b.codes = append(b.codes, r.Code)
	b.numbers = append(b.numbers, r.Number)
	b.records = append(b.records, r.Record)
	b.owners = append(b.owners, r.Owner)
	b.created = append(b.created, orNull(r.Created))
	b.expires = append(b.expires, orNull(r.Expires))
	b.disabled = append(b.disabled, r.Disabled)
	b.deleted = append(b.deleted, orNull(r.Deleted))
	b.titles = append(b.titles, orNull(text(r.Title)))
	b.tags = append(b.tags, orNull(text(strings.Join(r.Tags, "\n"))))
}

func (b *batch) args() []any {
	return []any{b.codes, b.numbers, b.records, b.owners, b.created, b.expires, b.disabled, b.deleted, b.titles, b.tags}
}

// isText reports whether PostgreSQL can hold the text.
func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// text is what PostgreSQL can hold of a text. The record has the whole of it.
func text(s string) string { return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "") }

func orNull[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// Scan returns rows in the order of their codes, n at most, from after a code, "" being the start. It
// is for going through everything: no index beside that of the codes is used, and no transaction stays
// open between two pages. The error wraps [link.ErrUnavailable].
func (db *DB) Scan(ctx context.Context, after string, n int) ([]Row, error) {
	var rows []Row
	err := db.do(ctx, "scan", writeTime, func(ctx context.Context) (err error) {
		rows, err = db.rows(ctx, "SELECT "+columns+" FROM links WHERE code > $1 ORDER BY code LIMIT $2", []any{after, n})
		return err
	})
	return rows, err
}

// Drop deletes the rows that still have the number they are given with, after they were moved
// elsewhere, and returns how many it deleted. The error wraps [link.ErrUnavailable]; to repeat it is
// safe. Rows are locked in the order of their codes, or two who drop the same could wait for each
// other.
func (db *DB) Drop(ctx context.Context, rows []Row) (n int64, err error) {
	var b batch
	for _, r := range rows {
		b.add(r)
	}
	err = db.do(ctx, "drop", writeTime, func(ctx context.Context) error {
		tag, err := db.pool.Exec(ctx, `
DELETE FROM links WHERE code IN (
	SELECT links.code FROM links JOIN unnest($1::text[], $2::bigint[]) AS moved (code, number)
		ON links.code = moved.code AND links.number = moved.number
	ORDER BY links.code FOR UPDATE OF links)`, b.codes, b.numbers)
		n = tag.RowsAffected()
		return err
	})
	return n, err
}

// Stat is what a database holds.
type Stat struct {
	// Rows is an estimate of PostgreSQL's, as of its last ANALYZE or VACUUM. It costs nothing. Before
	// the first of them, rows are counted, up to 100,000.
	Rows int64
	// Bytes is what the links take on disk, with their indexes.
	Bytes int64
}

// Stat asks how much there is. The error wraps [link.ErrUnavailable].
func (db *DB) Stat(ctx context.Context) (s Stat, err error) {
	err = db.do(ctx, "stat", readTime, func(ctx context.Context) error {
		return db.pool.QueryRow(ctx, `
SELECT CASE WHEN reltuples >= 0 THEN reltuples::bigint ELSE (SELECT count(*) FROM (SELECT FROM links LIMIT 100000) AS few) END,
	pg_total_relation_size(oid)
FROM pg_class WHERE oid = 'links'::regclass`).
			Scan(&s.Rows, &s.Bytes)
	})
	return s, err
}

// countMost is how many rows a query of Count counts: well below writeTime.
const countMost = 500_000

// Count counts the rows, some at a time, as long as that takes: seconds for ten millions. The error
// wraps [link.ErrUnavailable].
func (db *DB) Count(ctx context.Context) (n int64, err error) { return db.count(ctx, countMost) }

func (db *DB) count(ctx context.Context, most int64) (n int64, err error) {
	for after := ""; ; {
		var some int64
		err := db.do(ctx, "count", writeTime, func(ctx context.Context) error {
			return db.pool.QueryRow(ctx, `
SELECT count(*), coalesce(max(code), '') FROM (SELECT code FROM links WHERE code > $1 ORDER BY code LIMIT $2) AS part`,
				after, most).Scan(&some, &after)
		})
		if n += some; err != nil || some < most {
			return n, err
		}
	}
}

// rows returns what a query found: columns, and then what more is scanned into. A row of nothing but
// that is one without a code.
func (db *DB) rows(ctx context.Context, sql string, args []any, more ...any) ([]Row, error) {
	found, err := db.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(found, func(row pgx.CollectableRow) (r Row, err error) {
		var code, record, owner, title *string
		var number *int64
		var created, expires, deleted *time.Time
		var disabled *bool
		into := []any{&code, &number, &record, &owner, &created, &expires, &disabled, &deleted, &title, &r.Tags}
		err = row.Scan(append(into, more...)...)
		r.Code, r.Number, r.Record, r.Owner, r.Title = orZero(code), orZero(number), orZero(record), orZero(owner), orZero(title)
		r.Created, r.Expires, r.Deleted = orZero(created).UTC(), orZero(expires).UTC(), orZero(deleted).UTC()
		r.Disabled = orZero(disabled)
		return r, err
	})
}

func orZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// do runs a query under its name, within ctx, and for as long as within if ctx has no deadline. Here
// alone do errors of PostgreSQL become those of package link. What the caller gave up says nothing
// about the database.
func (db *DB) do(ctx context.Context, name string, within time.Duration, query func(context.Context) error) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, within)
		defer cancel()
	}
	began := time.Now()
	err := query(ctx)
	db.metrics.took.WithLabelValues(name).Observe(time.Since(began).Seconds())
	if err == nil {
		db.outage.Ended()
		return nil
	}
	if !errors.Is(ctx.Err(), context.Canceled) {
		db.metrics.failed.WithLabelValues(name, strconv.Itoa(db.shard+1)).Inc()
		db.outage.Observed(err)
	}
	return fmt.Errorf("archive shard %d: %s: %w: %w", db.shard+1, name, link.ErrArchive, err)
}

// Do runs queries of another package under a name, as all queries here run: within ctx, and for as long
// as within if ctx has no deadline; measured; and with a log of outages. Its error wraps
// [link.ErrUnavailable].
func (db *DB) Do(ctx context.Context, name string, within time.Duration, query func(context.Context, *pgxpool.Pool) error) error {
	return db.do(ctx, name, within, func(ctx context.Context) error { return query(ctx, db.pool) })
}

// ordered sorts rows as lists have them, the newest first unless oldest is set.
func ordered(rows []Row, oldest bool) {
	slices.SortFunc(rows, func(a, b Row) int {
		c := a.Position().Compare(b.Position())
		if !oldest {
			c = -c
		}
		return c
	})
}
