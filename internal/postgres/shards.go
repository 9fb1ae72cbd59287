package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"snowlink/internal/link"
)

// Shards is the archive: the databases of ARCHIVE_URL together. All methods may be called concurrently.
// Databases are asked at the same time, and each error is of those codes alone whose database failed.
type Shards struct {
	dbs    []*DB
	before int // how many there were; 0 if rows do not move
	// writeTo is among how many databases, from the first, rows have the home that they are written
	// to: those of before, until one of these says that there are more now.
	writeTo atomic.Int64
}

// Open makes the archive that archiveURL describes: one address of a database, or several separated by
// commas, in an order that must not change. before is how many of them, from the first, were all before
// the others were added, and 0 once every row is at home. Open does not connect. A value that cannot be
// used is an error, which never repeats an address or a password. The collectors are registered with
// reg.
func Open(archiveURL string, before int, log *slog.Logger, reg prometheus.Registerer) (*Shards, error) {
	configs, err := parse(archiveURL)
	if err != nil {
		return nil, err
	}
	if before < 0 || before > len(configs) {
		return nil, fmt.Errorf("there were %d shards before, and are %d: shards are only added", before, len(configs))
	}
	s := &Shards{before: before}
	s.writeTo.Store(int64(len(configs)))
	if before > 0 {
		s.writeTo.Store(int64(before))
	}
	m := newMetrics(s)
	for i, config := range configs {
		db, err := s.open(config, i, len(configs), log, m)
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("address %d: %w", i+1, redacted(err))
		}
		s.dbs = append(s.dbs, db)
	}
	reg.MustRegister(m, m.took, m.failed)
	return s, nil
}

// DBs returns the databases, in the order of their addresses. It is for work on each of them.
func (s *Shards) DBs() []*DB { return s.dbs }

// Before returns how many databases there were before some were added; 0 if no rows move.
func (s *Shards) Before() int { return s.before }

// Home returns the database that the code's row is to be written to. While databases are added, it
// becomes another one when a move begins.
func (s *Shards) Home(code string) *DB { return s.dbs[home(code, int(s.writeTo.Load()))] }

// Homes returns where what is kept under a key, and never moves, may be: first the database that it is
// to be written to, and then the others that were its home when there were fewer databases.
func (s *Shards) Homes(key string) []*DB {
	homes := []*DB{s.dbs[home(key, len(s.dbs))]}
	for n := len(s.dbs) - 1; n > 0; n-- {
		if db := s.dbs[home(key, n)]; !slices.Contains(homes, db) {
			homes = append(homes, db)
		}
	}
	return homes
}

// totals are how many databases there may be, by what a database says, for rows to be written to it:
// as long as it does not know that there are more, it may take those that have their home elsewhere.
func (db *DB) totals(rows []Row) []int {
	s := db.shards
	switch {
	case s.before == 0:
		return []int{len(s.dbs)}
	case slices.ContainsFunc(rows, func(r Row) bool { return home(r.Code, len(s.dbs)) != db.shard }):
		return []int{s.before}
	}
	return []int{s.before, len(s.dbs)}
}

// learn takes note of what a database says.
func (s *Shards) learn(is identity) {
	if is.total == len(s.dbs) && is.number <= s.before {
		s.writeTo.Store(int64(len(s.dbs)))
	}
}

// mayBe reports whether a database may be what it says, and so has what it should have.
func (db *DB) mayBe(is identity) bool {
	s := db.shards
	return is.number == db.shard+1 && (is.total == len(s.dbs) || is.total == s.before && db.shard < s.before)
}

// wrong is the error of a database that is not what it should be.
func (db *DB) wrong(is identity) error {
	if is == (identity{}) {
		return fmt.Errorf("%w: the database does not know which shard it is, and ARCHIVE_URL says that it is shard %d of %d",
			ErrShard, db.shard+1, len(db.shards.dbs))
	}
	return fmt.Errorf("%w: the database says that it is shard %d of %d, and ARCHIVE_URL that it is shard %d of %d",
		ErrShard, is.number, is.total, db.shard+1, len(db.shards.dbs))
}

// Close closes all connections, once the queries that run are done.
func (s *Shards) Close() {
	for _, db := range s.dbs {
		db.Close()
	}
}

// Ping asks all databases for a sign of life. Its error wraps [link.ErrUnavailable].
func (s *Shards) Ping(ctx context.Context) error {
	return s.each(func(db *DB) error { return db.Ping(ctx) })
}

// Migrate does what [DB.Migrate] does to all databases.
func (s *Shards) Migrate(ctx context.Context) error {
	return s.each(func(db *DB) error { return db.Migrate(ctx) })
}

// Check compares what each database says it is with ARCHIVE_URL. New databases become what it says. An
// empty one is not new while others have links, unless shards were added: it stands where a shard was,
// whose links would be missing. Once shards were added, the number of before must be told until
// [Shards.Move] has brought every link home: or links would be missing that are not yet. The error
// wraps [ErrShard], or [link.ErrUnavailable].
func (s *Shards) Check(ctx context.Context) error {
	ids, err := s.compare(ctx) // nothing is changed before all is known to be right
	if err != nil {
		return err
	}
	err = s.each(func(db *DB) error {
		if ids[db.shard].identity == (identity{}) {
			return db.become(ctx, identity{db.shard + 1, len(s.dbs)})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if ids, err = s.said(ctx); err != nil {
		return err
	}
	for i, is := range ids { // another backend may have made it something else at the same time
		if !s.dbs[i].mayBe(is.identity) {
			return s.dbs[i].wrong(is.identity)
		}
		s.learn(is.identity)
	}
	return nil
}

// Compare is Check without a change of any database. It reports whether rows move: a [Shards.Move] has
// begun, and not come to its end.
func (s *Shards) Compare(ctx context.Context) (moving bool, err error) {
	ids, err := s.compare(ctx)
	return slices.ContainsFunc(ids, func(is said) bool { return is.before > 0 }), err
}

// said asks each database what it says of itself.
func (s *Shards) said(ctx context.Context) (ids []said, err error) {
	ids = make([]said, len(s.dbs))
	return ids, s.each(func(db *DB) (err error) { ids[db.shard], err = db.said(ctx); return err })
}

func (s *Shards) compare(ctx context.Context) (ids []said, err error) {
	if ids, err = s.said(ctx); err != nil {
		return nil, err
	}
	anyUsed := false
	for _, is := range ids {
		anyUsed = anyUsed || is.used
	}
	for i, is := range ids {
		should := identity{i + 1, len(s.dbs)}
		switch {
		case is.identity == should && (is.before == 0 || is.before == s.before):
		case is.identity == identity{} && (!anyUsed || s.before > 0 && i >= s.before):
		case is.identity == identity{}:
			return nil, fmt.Errorf("%w: it says that the archive has shard %d of %d, and that database is empty, while others have links",
				ErrShard, should.number, should.total)
		case s.dbs[i].mayBe(is.identity) && is.before == 0: // it learns of the others when a move begins
		case is.before > 0 && is.number == i+1:
			return nil, fmt.Errorf("%w: links still move from %d databases to %d: have ARCHIVE_URL name these %d, and set "+
				"ARCHIVE_SHARDS_BEFORE=%d until server archive move is done", ErrShard, is.before, is.total, is.total, is.before)
		default:
			return nil, s.dbs[i].wrong(is.identity)
		}
	}
	return ids, nil
}

// each does something with all databases at once.
func (s *Shards) each(do func(*DB) error) error { return Each(s.dbs, do) }

// Each does something with some databases at once. It returns all errors together.
func Each(dbs []*DB, do func(*DB) error) error {
	if len(dbs) == 1 { // nobody to wait for
		return do(dbs[0])
	}
	errs := make([]error, len(dbs))
	var wg sync.WaitGroup
	for i, db := range dbs {
		wg.Go(func() { errs[i] = do(db) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Get returns the rows of the codes, and for each an error, or nil, in order: [link.ErrNotFound], or one
// that wraps [link.ErrUnavailable] if its database cannot tell. Each database is asked once for all of
// its codes.
//
// While there are two homes of a code, the old one is asked first and then the new one: what has left
// the old one since is in the new one. Of two rows the one with the higher number counts.
func (s *Shards) Get(ctx context.Context, codes []string) ([]Row, []error) {
	rows, errs := make([]Row, len(codes)), make([]error, len(codes))
	var all, moving []int
	for i, code := range codes {
		all = append(all, i)
		if s.before > 0 && home(code, s.before) != home(code, len(s.dbs)) {
			moving = append(moving, i)
		}
	}
	var old []Row
	var oldErrs []error
	if len(moving) > 0 {
		old, oldErrs = make([]Row, len(codes)), make([]error, len(codes))
		s.get(ctx, codes, moving, s.before, old, oldErrs)
	}
	s.get(ctx, codes, all, len(s.dbs), rows, errs)
	for _, i := range moving {
		switch {
		case errors.Is(oldErrs[i], link.ErrNotFound):
		case oldErrs[i] != nil: // it may have a later row
			rows[i], errs[i] = Row{}, oldErrs[i]
		case errors.Is(errs[i], link.ErrNotFound), errs[i] == nil && rows[i].Number < old[i].Number:
			rows[i], errs[i] = old[i], nil
		}
	}
	return rows, errs
}

// get asks for some of the codes at their homes among n databases.
func (s *Shards) get(ctx context.Context, codes []string, some []int, n int, rows []Row, errs []error) {
	s.split(codes, some, n, func(db *DB, some []int) {
		mine := make([]string, len(some))
		for j, i := range some {
			mine[j] = codes[i]
		}
		found, err := db.Get(ctx, mine)
		for _, i := range some {
			row, ok := found[codes[i]]
			switch {
			case err != nil:
				errs[i] = err
			case !ok:
				errs[i] = link.ErrNotFound
			default:
				rows[i], errs[i] = row, nil
			}
		}
	})
}

// split gives each database those of some codes that have their home there, among n. It returns when
// all are done.
func (s *Shards) split(codes []string, some []int, n int, do func(db *DB, some []int)) {
	parts := make([][]int, n)
	for _, i := range some {
		h := home(codes[i], n)
		parts[h] = append(parts[h], i)
	}
	var wg sync.WaitGroup
	for h, part := range parts {
		switch {
		case len(part) == 0:
		case len(part) == len(some): // nobody to wait for
			do(s.dbs[h], part)
		default:
			wg.Go(func() { do(s.dbs[h], part) })
		}
	}
	wg.Wait()
}

// Upsert writes the rows at their homes, each database's share in one statement. It returns an error, or
// nil, for each in order: those of [DB.Upsert].
func (s *Shards) Upsert(ctx context.Context, rows []Row) []error {
	return s.UpsertBy(rows, func(db *DB, mine []Row) []error { return db.Upsert(ctx, mine) })
}

// UpsertBy is Upsert whose caller writes each database's share: write returns an error, or nil, for each
// row in order. It is called for several databases at once.
func (s *Shards) UpsertBy(rows []Row, write func(db *DB, mine []Row) []error) []error {
	errs, codes, all := make([]error, len(rows)), make([]string, len(rows)), make([]int, len(rows))
	for i, r := range rows {
		codes[i], all[i] = r.Code, i
	}
	s.split(codes, all, int(s.writeTo.Load()), func(db *DB, some []int) {
		mine := make([]Row, len(some))
		for j, i := range some {
			mine[j] = rows[i]
		}
		for j, err := range write(db, mine) {
			errs[some[j]] = err
		}
	})
	return errs
}

// List returns a page of the links that the query asks for, in its order, and the cursor to go on from,
// "" at the end. The cursor is stable: a link that is made while somebody turns pages is neither a
// reason for another to be missing nor to come twice. While rows move to another database, one that
// moves during a query may be missing on that page.
//
// The error is [link.ErrCursor], or wraps [link.ErrUnavailable] if any database is away: a list with
// gaps would look whole.
func (s *Shards) List(ctx context.Context, q link.Query) (page []Row, next string, err error) {
	var after *link.Position
	if q.Cursor != "" {
		p, err := link.ParsePosition(q.Cursor)
		if err != nil {
			return nil, "", err
		}
		after = &p
	}
	n := q.N
	q.N++ // one more tells whether there is another page
	parts := make([][]Row, len(s.dbs))
	if err := s.each(func(db *DB) (err error) { parts[db.shard], err = db.list(ctx, q, after); return err }); err != nil {
		return nil, "", err
	}
	page = merge(parts, q.Oldest)
	if len(page) > n {
		page = page[:n]
		next = page[n-1].Position().Cursor()
	}
	return page, next, nil
}

// merge puts the rows of all databases in order. A row that is in two of them, since it moves, is taken
// once, as its highest number has it.
func merge(parts [][]Row, oldest bool) []Row {
	var all []Row
	for _, part := range parts {
		all = append(all, part...)
	}
	ordered(all, oldest)
	page := all[:0]
	for _, r := range all {
		if last := len(page) - 1; last >= 0 && page[last].Code == r.Code {
			if page[last].Number < r.Number {
				page[last] = r
			}
			continue
		}
		page = append(page, r)
	}
	return page
}

// Total returns how many links the query asks for in all, whatever its page, and whether that is exact.
// Up to 10,000 links of each database are counted; more are as many as PostgreSQL estimates from its
// statistics. A link that is in two databases, since it moves, counts twice.
// The error wraps [link.ErrUnavailable].
func (s *Shards) Total(ctx context.Context, q link.Query) (n int64, exact bool, err error) {
	counts, exacts := make([]int64, len(s.dbs)), make([]bool, len(s.dbs))
	err = s.each(func(db *DB) (err error) {
		counts[db.shard], exacts[db.shard], err = db.total(ctx, q)
		return err
	})
	if err != nil {
		return 0, false, err
	}
	exact = true
	for i := range counts {
		n += counts[i]
		exact = exact && exacts[i]
	}
	return n, exact, nil
}
