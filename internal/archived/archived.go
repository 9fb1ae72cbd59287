// Package archived is a link.Store over Redis, which may forget, and PostgreSQL, which does not. It
// restores what Redis has forgotten, keeps codes that only the archive has from being given again,
// and answers from the archive while Redis is away. Its Archiver brings what was written to the
// archive.
//
// Its decision: Redis can forget only what the archive has, by mechanism and not by luck. The
// protocol that sees to it, and the tests that go through every interleaving of it, are package
// model. The names here are those of the model.
package archived

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"snowlink/internal/deadline"
	"snowlink/internal/link"
	"snowlink/internal/postgres"
	"snowlink/internal/redisstore"
	"snowlink/snowflake"
)

var _ link.Store = (*Store)(nil)

const (
	// requestTime is how long an operation may take in all, if its context has no deadline. It is
	// below Nginx's 2 s.
	requestTime = 1700 * time.Millisecond
	// hotTime is how long Redis may take to answer a visit. The rest of the time is for the archive,
	// which answers then.
	hotTime = 800 * time.Millisecond

	// restoreTries is how often an operation that needs the link in Redis begins anew since Redis
	// evicted it again.
	restoreTries = 3
	// fenceTries is how often a create begins anew since somebody else wrote the link. Whoever did
	// has the code then, and the next try finds that.
	fenceTries = 5
	// fenceMost is how many links share a trip.
	fenceMost = 500
)

// Store is a link.Store over Redis and an archive. All methods may be called concurrently.
type Store struct {
	hot      *redisstore.Store
	archive  *archive
	cold     askers // ask Redis once more, then the archive, and restore
	rows     askers // ask the archive alone
	requests *deadline.Shared
	reads    *deadline.Shared
	metrics  *metrics
}

// New makes a Store over hot, which has redisstore.Options.Archived set, and the archive. Both stay
// the caller's to close. The collectors are registered with reg.
func New(hot *redisstore.Store, shards *postgres.Shards, reg prometheus.Registerer) *Store {
	s := &Store{
		hot: hot, archive: &archive{hot, shards}, metrics: newMetrics(reg),
		requests: deadline.NewShared(requestTime), reads: deadline.NewShared(hotTime),
	}
	s.cold, s.rows = newAskers(shards, s.answerCold), newAskers(shards, s.answerRows)
	return s
}

// limit bounds an operation that begins now.
func (s *Store) limit(ctx context.Context, now time.Time) context.Context {
	if _, ok := ctx.Deadline(); ok {
		return ctx
	}
	return s.requests.From(now)
}

// limitHot bounds a visit's read of Redis, within ctx.
func (s *Store) limitHot(ctx context.Context, now time.Time) context.Context {
	if end, ok := ctx.Deadline(); ok && end.Sub(now) < hotTime {
		return ctx
	}
	return s.reads.From(now)
}

// Get returns the link as Redis has it. If Redis does not have it, the archive is asked, and the link
// restored. While Redis is away, the archive answers alone, with the link as it was archived last. A
// link with MaxVisits fails with link.ErrUnavailable then.
func (s *Store) Get(ctx context.Context, code string) (link.Link, error) {
	now := time.Now()
	ctx = s.limit(ctx, now)
	l, err := s.hot.Get(s.limitHot(ctx, now), code)
	return s.got(ctx, code, l, err)
}

// got is what Get returns if Redis answered with l and err.
func (s *Store) got(ctx context.Context, code string, l link.Link, err error) (link.Link, error) {
	switch {
	case errors.Is(err, link.ErrNotFound):
		a, err := s.cold.ask(ctx, code)
		return a.Link, err
	case errors.Is(err, link.ErrUnavailable):
		return s.stale(ctx, code, err)
	}
	return l, err
}

// GetAll does what Get does for many codes.
func (s *Store) GetAll(ctx context.Context, codes []string) ([]link.Link, []error) {
	now := time.Now()
	ctx = s.limit(ctx, now)
	links, errs := s.hot.GetAll(s.limitHot(ctx, now), codes)
	var wg sync.WaitGroup
	for i, err := range errs {
		if errors.Is(err, link.ErrNotFound) || errors.Is(err, link.ErrUnavailable) {
			wg.Go(func() { links[i], errs[i] = s.got(ctx, codes[i], links[i], err) }) // together they share a query
		}
	}
	wg.Wait()
	return links, errs
}

// stale is the link as it was archived last, while Redis is away: it failed with hotErr. What is not
// in the archive may be in Redis. How many visits a link has left, Redis alone knows.
func (s *Store) stale(ctx context.Context, code string, hotErr error) (link.Link, error) {
	a, err := s.rows.ask(ctx, code)
	if err != nil || a.Limit() > 0 || a.forgotten(time.Now()) {
		return link.Link{}, hotErr
	}
	s.metrics.stale.Inc()
	return a.Link, nil
}

// Read returns the link as it is now, restored if need be. Its errors are those of redisstore.
func (s *Store) Read(ctx context.Context, code string) (state link.State, err error) {
	err = s.restored(ctx, code, func(ctx context.Context) (err error) {
		state, err = s.hot.Read(ctx, code)
		return err
	})
	return state, err
}

// Visit takes a visit of the link, restored if need be. Its count is not restored: while the link has
// visits left, Redis does not evict it.
func (s *Store) Visit(ctx context.Context, code string) (l link.Link, err error) {
	err = s.restored(ctx, code, func(ctx context.Context) (err error) {
		l, err = s.hot.Visit(ctx, code)
		return err
	})
	return l, err
}

// Update changes the link, restored if need be.
func (s *Store) Update(ctx context.Context, code, version string, l link.Link) (state link.State, err error) {
	err = s.restored(ctx, code, func(ctx context.Context) (err error) {
		state, err = s.hot.Update(ctx, code, version, l)
		return err
	})
	return state, err
}

// restored calls f, and again each time after f did not find the link and that was restored.
func (s *Store) restored(ctx context.Context, code string, f func(context.Context) error) error {
	ctx = s.limit(ctx, time.Now())
	for range restoreTries {
		if err := f(ctx); !errors.Is(err, link.ErrNotFound) {
			return err
		}
		if err := s.cold.restore(ctx, code); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: it was restored and evicted %d times", link.ErrUnavailable, restoreTries)
}

// Create creates the link. Nobody else has a code that was just minted, so the archive is not asked.
// A code that was chosen or imported may be in the archive alone: without its answer the error is
// link.ErrUnavailable.
func (s *Store) Create(ctx context.Context, owner, code string, l link.Link) error {
	if now := time.Now(); fenced(code, l, now) {
		return s.createFenced(s.limit(ctx, now), owner, []link.Coded{{Code: code, Link: l}})[0]
	}
	return s.hot.Create(ctx, owner, code, l)
}

// CreateAll creates many links, each as Create does.
func (s *Store) CreateAll(ctx context.Context, owner string, links []link.Coded) []error {
	var minted, others []link.Coded
	var mintedAt, othersAt []int
	now := time.Now()
	for i, l := range links {
		if fenced(l.Code, l.Link, now) {
			others, othersAt = append(others, l), append(othersAt, i)
		} else {
			minted, mintedAt = append(minted, l), append(mintedAt, i)
		}
	}
	errs := make([]error, len(links))
	for i, err := range s.hot.CreateAll(ctx, owner, minted) {
		errs[mintedAt[i]] = err
	}
	for len(others) > 0 {
		n := min(fenceMost, len(others))
		for i, err := range s.createFenced(ctx, owner, others[:n]) {
			errs[othersAt[i]] = err
		}
		others, othersAt = others[n:], othersAt[n:]
	}
	return errs
}

// fenced reports whether the archive must be asked before the link is created under the code.
func fenced(code string, l link.Link, now time.Time) bool {
	if l.Chosen() || !link.MintedShape(code) {
		return true
	}
	// Others are an import's, or of a create that is repeated by its idempotency key.
	id, err := snowflake.Decode(code)
	return err != nil || now.Sub(id.Time()).Abs() > link.MintedLately
}

// createFenced creates links under codes that the archive may have.
func (s *Store) createFenced(ctx context.Context, owner string, links []link.Coded) []error {
	links = slices.Clone(links)
	for i := range links {
		links[i].Link = links[i].OwnedBy(owner) // as a record that is there has it
	}
	errs := make([]error, len(links))
	open := make([]int, len(links))
	for i := range open {
		open[i] = i
	}
	for try := 1; len(open) > 0; try++ {
		s.tryFenced(ctx, owner, links, open, errs) // of a code that comes twice, the second finds the first
		open = slices.DeleteFunc(open, func(i int) bool { return !errors.Is(errs[i], redisstore.ErrPass) })
		if try == fenceTries {
			for _, i := range open {
				errs[i] = fmt.Errorf("create %s: %w: %w", links[i].Code, link.ErrUnavailable, errs[i])
			}
			break
		}
	}
	return errs
}

// tryFenced is one try of createFenced, of the links at the indices. It sets their errors.
func (s *Store) tryFenced(ctx context.Context, owner string, links []link.Coded, at []int, errs []error) {
	codes := make([]string, len(at))
	for k, i := range at {
		codes[k] = links[i].Code
	}
	var creates []redisstore.Fenced
	var createsAt []int
	create := func(i int, number int64, pass string) {
		creates = append(creates, redisstore.Fenced{Coded: links[i], Number: number, Pass: pass})
		createsAt = append(createsAt, i)
	}
	var unknown []int // to Redis
	passes := make(map[string]string)
	for k, m := range s.hot.Miss(ctx, codes) {
		switch i := at[k]; {
		case m.Found && m.Err != nil: // whatever the link is, it has the code
			errs[i] = link.ErrExists
		case m.Err != nil:
			errs[i] = m.Err
		case m.Found && m.Record.Is(links[i].Link):
			create(i, 0, "") // which finds it, and writes it down
		case m.Found:
			errs[i] = link.ErrExists
		default:
			unknown, passes[codes[k]] = append(unknown, i), m.Pass
		}
	}
	var back []redisstore.Record // what is restored, so that the create finds it
	var backPasses []string
	now := time.Now()
	for k, a := range s.lookUp(ctx, links, unknown) { // after every pass was issued
		i := unknown[k]
		pass := passes[links[i].Code]
		switch {
		case a.err == nil && a.forgotten(now):
			create(i, a.Number+1, pass)
		case a.err == nil && a.Is(links[i].Link):
			back, backPasses = append(back, a.Record), append(backPasses, pass)
			create(i, 0, "")
		case a.err == nil || errors.Is(a.err, link.ErrUnreadable):
			errs[i] = link.ErrExists
		case errors.Is(a.err, link.ErrNotFound):
			create(i, 0, pass)
		default:
			errs[i] = a.err
		}
	}
	if len(back) > 0 {
		s.hot.Restore(ctx, back, backPasses)
	}
	if len(creates) > 0 {
		for n, err := range s.hot.CreateFenced(ctx, owner, creates) {
			errs[createsAt[n]] = err
		}
	}
}

// lookUp asks the archive for the links at the indices. One alone shares its query with others.
func (s *Store) lookUp(ctx context.Context, links []link.Coded, at []int) []answer {
	if len(at) == 1 {
		a, err := s.rows.ask(ctx, links[at[0]].Code)
		return []answer{{a, err}}
	}
	codes := make([]string, len(at))
	for k, i := range at {
		codes[k] = links[i].Code
	}
	return s.archive.get(ctx, codes)
}
