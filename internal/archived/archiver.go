package archived

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"snowlink/internal/deadline"
	"snowlink/internal/link"
	"snowlink/internal/outage"
	"snowlink/internal/postgres"
	"snowlink/internal/redisstore"
)

const (
	// workers is how many batches an Archiver works on at once: one is read while another is written.
	workers = 2
	// takeMost is how many entries of the outbox a worker takes at a time, and batchMost how many
	// links it holds at a time: a few MiB.
	takeMost  = 500
	batchMost = 1000
	// idleFor is how long a worker rests when the outbox has little.
	idleFor = 100 * time.Millisecond
	// unwrittenFor is how long a mark waits for its link: longer than a create may take.
	unwrittenFor = 5 * time.Second
	// backOff is for how long a worker rests when nothing can be archived, and for how long a
	// database is left alone that failed: twice as long each time, up to backOffMost.
	backOff     = 100 * time.Millisecond
	backOffMost = 5 * time.Second
	// lookTries is how often a link is looked at anew, since it was changed meanwhile or was settled.
	lookTries = 10
	// keepFor is the time to live of what is archived. It only marks what Redis may evict.
	keepFor = 10 * 365 * 24 * time.Hour
)

var errCollision = errors.New("two links were made under one minted code: two processes share a node ID, or a clock went back")

// Archiver brings what was written to the archive, and lets Redis evict it then. Several may run, in
// one process or many: they share the work.
type Archiver struct {
	hot     *redisstore.Store
	archive *archive
	log     *slog.Logger
	outage  *outage.Outage
	odd     *outage.Outage // of records that somebody must look at; it never ends

	away   map[*postgres.DB]*away
	behind atomic.Int64           // see Lag
	amiss  atomic.Pointer[string] // see Degraded

	archived, refused, settled, collisions, unfit prometheus.Counter
	lag, pending                                  prometheus.Gauge
}

// away is since when and until when a database is left alone.
type away struct {
	mu    sync.Mutex
	pause time.Duration // 0 while it answers
	until time.Time
}

// NewArchiver makes an Archiver. Its collectors are registered with reg.
func NewArchiver(hot *redisstore.Store, shards *postgres.Shards, log *slog.Logger, reg prometheus.Registerer) *Archiver {
	gauge := func(name, help string) prometheus.Gauge {
		return promauto.With(reg).NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	a := &Archiver{
		hot: hot, archive: &archive{hot, shards}, log: log, outage: outage.New(log, "archiving"),
		odd:        outage.New(log, "the archiving of some records"),
		away:       make(map[*postgres.DB]*away),
		archived:   counter(reg, "snowlink_archive_written_total", "Records written to the archive."),
		refused:    counter(reg, "snowlink_archive_refused_total", "Records that the archive had already, or had newer."),
		settled:    counter(reg, "snowlink_archive_settled_total", "Links on which Redis and the archive differed. Above zero, Redis lost writes."),
		collisions: counter(reg, "snowlink_archive_collisions_total", "Links under a minted code that the archive has another link for. Above zero, two processes share a node ID or a clock went back."),
		unfit:      counter(reg, "snowlink_archive_unfit_total", "Records that cannot be archived, since they cannot be read. They stay in Redis."),
		lag:        gauge("snowlink_archive_lag_seconds", "Age of the oldest mark that is not archived; 0 if there is none."),
		pending:    gauge("snowlink_archive_pending_marks", "Marks that are not archived, of one link or some."),
	}
	for _, db := range shards.DBs() {
		a.away[db] = &away{}
	}
	return a
}

// Run archives until ctx ends, and returns nil. It outlasts outages. It begins once Redis remembers
// that it is in front of an archive: see [Prepare].
func (a *Archiver) Run(ctx context.Context) error {
	for {
		if ok, err := a.hot.RemembersArchive(ctx); err == nil && ok {
			break
		}
		if !deadline.Sleep(ctx, idleFor) {
			return nil
		}
	}
	var all sync.WaitGroup
	for range workers {
		all.Go(func() { a.work(ctx) })
	}
	all.Wait()
	return nil
}

// unwritten is a mark whose link was not there yet.
type unwritten struct {
	redisstore.Marked
	since time.Time
}

func (a *Archiver) work(ctx context.Context) {
	var later []unwritten
	for pause := backOff; ctx.Err() == nil; {
		progress, busy, err := a.round(ctx, &later)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !progress:
			a.outage.Observed(err)
			deadline.Sleep(ctx, pause)
			pause = min(2*pause, backOffMost)
			continue
		case err != nil:
			a.outage.Observed(err)
		default:
			a.outage.Ended()
		}
		pause = backOff
		if !busy {
			deadline.Sleep(ctx, idleFor)
		}
	}
}

// round archives the links of some marks. Marks are deleted when their links are archived; what
// fails is taken again by whoever comes to it. It reports whether anything was done, and whether
// there is probably more.
func (a *Archiver) round(ctx context.Context, later *[]unwritten) (progress, busy bool, err error) {
	taken, err := a.hot.Take(ctx, takeMost)
	if err != nil {
		return false, false, err
	}
	now := time.Now()
	marks := *later
	for _, m := range taken {
		marks = append(marks, unwritten{m, now})
	}
	var codes []string
	for _, m := range marks {
		codes = append(codes, m.Codes...)
	}
	slices.Sort(codes)
	codes = slices.Compact(codes)
	failed := make(map[string]error)
	for some := range slices.Chunk(codes, batchMost) {
		a.archiveAll(ctx, some, failed)
	}

	var done []redisstore.Marked
	var left []unwritten
	var anew []string // failed, of marks of which others did not
	for _, m := range marks {
		missing, other := false, error(nil)
		var cannot []string
		for _, code := range m.Codes {
			if err := failed[code]; errors.Is(err, link.ErrNotFound) {
				missing = true
			} else if err != nil {
				other, cannot = err, append(cannot, code)
			}
		}
		switch {
		case other != nil && !missing && len(cannot) < len(m.Codes):
			// While a database is away, what the others have would be archived again and again.
			err, anew, done = other, append(anew, cannot...), append(done, m.Marked)
		case other != nil: // it is claimed again
			err = other
		case missing && now.Sub(m.since) < unwrittenFor && len(left) < takeMost:
			left = append(left, m)
		case missing && now.Sub(m.since) < unwrittenFor: // too many: it is claimed again
		default:
			done = append(done, m.Marked)
		}
	}
	*later = left
	if len(anew) > 0 {
		if markErr := a.hot.Mark(ctx, anew); markErr != nil {
			return false, false, markErr
		}
	}
	if doneErr := a.hot.Done(ctx, done); doneErr != nil {
		return false, false, doneErr
	}
	return len(done) > 0, len(taken) >= takeMost/2, err
}

// archiveAll archives the present records of the codes. Those that failed it adds to failed, with an
// error that wraps link.ErrNotFound or link.ErrUnavailable.
func (a *Archiver) archiveAll(ctx context.Context, codes []string, failed map[string]error) {
	for range lookTries {
		if codes = a.archiveSome(ctx, codes, failed); len(codes) == 0 {
			return
		}
	}
	for _, code := range codes {
		failed[code] = fmt.Errorf("archive %s: %w: it changes all the time", code, link.ErrUnavailable)
	}
}

// archiveSome is one look of archiveAll. It returns the codes that are to be looked at anew.
func (a *Archiver) archiveSome(ctx context.Context, codes []string, failed map[string]error) (again []string) {
	now := time.Now()
	codes = slices.DeleteFunc(slices.Clone(codes), func(code string) bool {
		away := a.away[a.archive.shards.Home(code)].left(now)
		if away {
			failed[code] = errAway
		}
		return away
	})
	records, errs := a.hot.Peek(ctx, codes)
	var is []redisstore.Record
	var rows []postgres.Row
	for i, code := range codes {
		switch {
		case errors.Is(errs[i], link.ErrUnreadable): // the Store said so
			a.unfit.Inc()
		case errs[i] != nil:
			failed[code] = errs[i]
		default:
			is, rows = append(is, records[i]), append(rows, rowOf(records[i], now))
		}
	}

	var done []redisstore.Archived
	var refused []string
	refusedAt := make([]int, 0)
	// A database that failed is left alone for a while, so that the others do not wait for it.
	upserted := a.archive.shards.UpsertBy(rows, func(db *postgres.DB, mine []postgres.Row) []error {
		return a.away[db].upsert(ctx, db, mine)
	})
	for i, err := range upserted {
		switch {
		case err == nil:
			a.archived.Inc()
			done = a.mayForget(done, is[i], forget(rows[i]), now)
		case errors.Is(err, postgres.ErrRefused):
			a.refused.Inc()
			refused, refusedAt = append(refused, is[i].Code), append(refusedAt, i)
		case errors.Is(err, postgres.ErrUnfit):
			a.unfit.Inc()
			a.odd.Observed(fmt.Errorf("%s: %w", is[i].Code, err))
		default:
			failed[is[i].Code] = err
		}
	}

	var differ, archivedAs []redisstore.Record
	for k, row := range a.archive.get(ctx, refused) {
		switch r := is[refusedAt[k]]; {
		case errors.Is(row.err, link.ErrNotFound): // it moves
			again = append(again, r.Code)
		case row.err != nil:
			failed[r.Code] = row.err
		case row.Text == r.Text:
			done = a.mayForget(done, r, row.forget, now)
		case row.Number == 0 && r.Number == 0 && !r.Chosen() && link.MintedShape(r.Code):
			a.collisions.Inc()
			a.odd.Observed(fmt.Errorf("%s: %w: it leads to %q, and in the archive to %q", r.Code, errCollision, r.Target, row.Target))
		default:
			differ, archivedAs = append(differ, r), append(archivedAs, row.Record)
		}
	}

	for i, err := range a.hot.Expire(ctx, done) {
		if err != nil {
			failed[done[i].Code] = err
		}
	}
	for i, err := range a.hot.Settle(ctx, differ, archivedAs) {
		if err != nil {
			failed[differ[i].Code] = err
			continue
		}
		a.settled.Inc()
		again = append(again, differ[i].Code)
	}
	return again
}

// mayForget adds a record that is archived to those that Redis may forget, unless it must not.
// forget is when its code is free again.
func (a *Archiver) mayForget(done []redisstore.Archived, r redisstore.Record, forget, now time.Time) []redisstore.Archived {
	if mayBeMinted(r, now) {
		return done
	}
	x := redisstore.Archived{Record: r, Until: now.Add(keepFor), WhileVisits: r.Limit() > 0 && !r.Over(now)}
	if x.WhileVisits { // its grace begins when they are used up
		x.Until = now.Add(link.Grace)
	}
	if !forget.IsZero() {
		x.Until = forget
	}
	return append(done, x)
}

var errAway = fmt.Errorf("%w: the database is left alone for a moment, since it failed", link.ErrUnavailable)

// left reports whether the database is left alone.
func (w *away) left(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return now.Before(w.until)
}

// upsert writes rows to the database, unless that is away.
func (w *away) upsert(ctx context.Context, db *postgres.DB, rows []postgres.Row) []error {
	now := time.Now()
	w.mu.Lock()
	alone, pause := now.Before(w.until), w.pause
	if !alone && pause > 0 {
		w.until = now.Add(pause) // one worker looks whether it is back
	}
	w.mu.Unlock()
	var err error
	if alone {
		err = errAway
	} else if pause > 0 {
		err = db.Ping(ctx) // which fails sooner
	}
	var errs []error
	if err == nil {
		errs = db.Upsert(ctx, rows)
		if i := slices.IndexFunc(errs, func(err error) bool { return errors.Is(err, link.ErrUnavailable) }); i >= 0 {
			err = errs[i]
		}
	} else {
		errs = slices.Repeat([]error{err}, len(rows))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		w.pause, w.until = 0, time.Time{}
	case !alone && ctx.Err() == nil:
		w.pause = min(max(backOff, 2*w.pause), backOffMost)
		w.until = time.Now().Add(w.pause)
	}
	return errs
}
