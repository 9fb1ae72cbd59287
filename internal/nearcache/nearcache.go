// Package nearcache is what consistent hashing is for: a link.Store in front of
// a link.Store that keeps a backend's share of the hot links in the process, so
// that a hot redirect touches neither network nor Redis.
//
// Its decisions. How stale an answer can be is bounded by FreshFor, whatever
// breaks, and by the delay of one message while changes are announced (see
// Drop). A link in use is read again every RefreshAfter, in the background: that
// keeps the bound without anyone waiting for it, and it keeps Redis's LRU
// honest, which would otherwise see the hottest links as idle and evict them
// first. When the store is away, links go on being served past the bound, up to
// StaleIfError: a redirect that was right a minute ago beats an error.
package nearcache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/maypok86/otter/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"snowlink/internal/link"
)

var _ link.Store = (*Cache)(nil)

const (
	// FreshFor is the most that a link may lag behind the store while the
	// store answers.
	FreshFor = 30 * time.Second
	// RefreshAfter is the age at which a link in use is read again. It is below
	// FreshFor by more than a read can take, so that a link in use never makes
	// a visitor wait.
	RefreshAfter = 25 * time.Second
	// MissingFor is how long it is remembered that a code has no link.
	MissingFor = 2 * time.Second

	// Links that are due are read together: those that a link finds due within
	// gatherFor of it, up to gatherMost. A read of one alone costs ten times
	// as much.
	gatherFor  = 50 * time.Millisecond
	gatherMost = 1024

	// A link whose read failed, or was spared, is due again after retryAfter,
	// which is more than a read can take. While the store is away, of all that
	// are due one every probeEvery is really tried.
	retryAfter = 2 * time.Second
	probeEvery = 100 * time.Millisecond
	// awayFor is how long a failure of the store spares visitors of old links
	// the wait for the next. Links in use are tried more often than that; a
	// backend without visitors must ask, for the store may be back.
	awayFor = 5 * time.Second

	// missingShare is the part of the bytes, as a divisor, that codes without a
	// link may take, so that someone who guesses codes cannot push links out.
	missingShare = 16

	// overhead is what an entry costs beside its code and its target, in bytes:
	// measured by TestMemoryBudget.
	overhead = 200
)

// Cache is a link.Store in front of another. All methods may be called
// concurrently.
type Cache struct {
	// store is the one behind. Its methods are forwarded by name: one that is added must not bypass
	// what is kept here.
	store   link.Store
	links   *otter.Cache[string, *entry]
	missing *otter.Cache[string, struct{}]
	metrics *metrics

	staleIfError time.Duration
	started      time.Time // what ages count from, by the monotonic clock

	due       chan due           // for the refresher
	overdue   singleflight.Group // for visitors who wait
	stop      context.CancelFunc // of the refresher
	refresher sync.WaitGroup

	// Since started: when the store failed last, if it has not answered since,
	// or 0; when announcements may have been missed last.
	failed, distrusted atomic.Int64
	// changes counts what may have ended the absence of a link.
	changes atomic.Uint64
}

// entry is a link as it was at a time. Another link under the code is another
// entry.
type entry struct {
	link link.Link
	// Since Cache.started: a time at which the store held this link, and when a
	// refresh was asked for last.
	read, tried atomic.Int64
}

// optionsSize is what the options of a link cost, in bytes.
func optionsSize(o *link.Options) int {
	if o == nil {
		return 0
	}
	size := int(unsafe.Sizeof(*o)) + len(o.Title)
	for _, tag := range o.Tags {
		size += int(unsafe.Sizeof(tag)) + len(tag)
	}
	return size
}

// due is an entry that should be read again.
type due struct {
	code string
	*entry
}

// New makes a cache of at most the given bytes, codes, targets and overhead
// counted, in front of store. A link that the store could not confirm is served
// for staleIfError at most.
func New(store link.Store, bytes uint64, staleIfError time.Duration, reg prometheus.Registerer) *Cache {
	c := &Cache{store: store, staleIfError: max(staleIfError, FreshFor), started: time.Now()}
	// Neither expiry nor refreshing by otter, for Get looks at ages anyway. So
	// otter keeps no record of reads until it is half full, and its bookkeeping
	// of them, a goroutine for every 16, stays off the hot path.
	c.links = otter.Must(&otter.Options[string, *entry]{
		MaximumWeight: bytes - bytes/missingShare,
		Weigher: func(code string, e *entry) uint32 {
			return uint32(len(code) + len(e.link.Target) + optionsSize(e.link.Options) + overhead)
		},
		Logger: &otter.NoopLogger{}, // the store logs its own outages
	})
	c.missing = otter.Must(&otter.Options[string, struct{}]{
		MaximumWeight:    bytes / missingShare,
		Weigher:          func(code string, _ struct{}) uint32 { return uint32(len(code) + overhead) },
		ExpiryCalculator: otter.ExpiryWriting[string, struct{}](MissingFor),
		Logger:           &otter.NoopLogger{},
	})
	c.metrics = newMetrics(reg,
		func() float64 { return float64(c.links.WeightedSize() + c.missing.WeightedSize()) },
		func() float64 { return float64(c.links.EstimatedSize()) })
	c.due = make(chan due, 4*gatherMost)
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.refresher.Go(func() { c.refresh(ctx) })
	return c
}

// Get returns the link under code, from memory if it can. Its errors are those
// of the store behind.
func (c *Cache) Get(ctx context.Context, code string) (link.Link, error) {
	asked := c.now()
	e, ok := c.links.GetIfPresent(code)
	if !ok {
		return c.load(ctx, code)
	}
	age := asked - time.Duration(e.read.Load())
	if age <= FreshFor {
		c.refreshIfDue(code, e, asked, age)
		c.metrics.count(hit)
		return e.link, nil
	}

	// Too old to be served unasked: nobody used it for a while, or the store
	// is away.
	if c.away() {
		c.refreshIfDue(code, e, asked, age)
	} else if l, err := c.wait(ctx, code, e); !errors.Is(err, link.ErrUnavailable) {
		return l, err
	}
	if age > c.staleIfError {
		return link.Link{}, link.ErrUnavailable
	}
	c.metrics.count(stale)
	return e.link, nil
}

// Create creates the link in the store behind: whoever created it sees it at once.
func (c *Cache) Create(ctx context.Context, owner, code string, l link.Link) error {
	err := c.store.Create(ctx, owner, code, l)
	// Somebody may be asking for a code that was chosen, or have been answered with a
	// link that the store has forgotten since. For one that was minted nobody does, and
	// a change would make every miss under way be asked again.
	if l.Chosen() {
		c.drop(code) // even after an error: it may have been created
	} else {
		c.missing.Invalidate(code)
	}
	return err
}

// CreateAll creates the links in the store behind, and is seen at once as Create is.
func (c *Cache) CreateAll(ctx context.Context, owner string, links []link.Coded) []error {
	errs := c.store.CreateAll(ctx, owner, links)
	for _, l := range links { // minted ones, too: an import may have them from before
		c.drop(l.Code)
	}
	return errs
}

// Update changes the link in the store behind and drops it here: whoever changed
// it sees the change at once.
func (c *Cache) Update(ctx context.Context, code, version string, l link.Link) (link.State, error) {
	s, err := c.store.Update(ctx, code, version, l)
	c.Drop(code) // even after an error: it may have been changed
	return s, err
}

// GetAll asks the store behind, for whoever wants many links at once: they would push others out.
func (c *Cache) GetAll(ctx context.Context, codes []string) ([]link.Link, []error) {
	return c.store.GetAll(ctx, codes)
}

// Read asks the store behind: the link as it is now.
func (c *Cache) Read(ctx context.Context, code string) (link.State, error) {
	return c.store.Read(ctx, code)
}

// Visit asks the store behind, which alone counts visits.
func (c *Cache) Visit(ctx context.Context, code string) (link.Link, error) {
	return c.store.Visit(ctx, code)
}

// List asks the store behind.
func (c *Cache) List(ctx context.Context, owner, cursor string, n int, keep func(link.Coded) bool) ([]link.Coded, string, error) {
	return c.store.List(ctx, owner, cursor, n, keep)
}

// Drop forgets code, since it was changed: the next Get asks the store. A read
// that is under way is not kept.
func (c *Cache) Drop(code string) {
	c.metrics.count(invalidate)
	c.drop(code)
}

func (c *Cache) drop(code string) {
	c.changes.Add(1)
	c.missing.Invalidate(code)
	c.links.Invalidate(code)
}

// Distrust makes every link due for a refresh at its next use, since changes
// may have been missed; so is a link whose read is under way. FreshFor goes on
// counting meanwhile.
func (c *Cache) Distrust() {
	c.metrics.count(distrust)
	c.distrusted.Store(int64(c.now()) + 1) // what was read in this very nanosecond, too
	c.changes.Add(1)
	c.missing.InvalidateAll()
}

// Close ends the cache's own goroutines.
func (c *Cache) Close() {
	c.stop()
	c.refresher.Wait()
	c.links.StopAllGoroutines()
	c.missing.StopAllGoroutines()
}

func (c *Cache) now() time.Duration { return time.Since(c.started) }

// load reads a link that is not in memory, once for all who wait.
func (c *Cache) load(ctx context.Context, code string) (link.Link, error) {
	changes := c.changes.Load()
	e, err := c.links.Get(ctx, code, otter.LoaderFunc[string, *entry](c.read))
	if errors.Is(err, otter.ErrNotFound) {
		c.missing.Set(code, struct{}{})
		if c.changes.Load() != changes { // since we asked: perhaps this link came
			c.missing.Invalidate(code)
		}
		return link.Link{}, link.ErrNotFound
	}
	if err != nil {
		return link.Link{}, err
	}
	return e.link, nil
}

// errMissing says that a code is known to have no link, without asking.
var errMissing = fmt.Errorf("known: %w", link.ErrNotFound)

// read reads the store for otter, whose error for a missing link it uses. ctx is that of
// the first who asked. The others wait no longer than their own, and when it ends first
// the next of them reads.
func (c *Cache) read(ctx context.Context, code string) (*entry, error) {
	if _, ok := c.missing.GetIfPresent(code); ok {
		c.metrics.count(negative)
		return nil, errMissing
	}
	c.metrics.count(miss)
	at := c.now() // before: a change while we read makes the entry older, not newer
	l, err := c.store.Get(ctx, code)
	if ctx.Err() == nil { // that its reader had no time left says nothing about the store
		c.heard(err)
	}
	if errors.Is(err, link.ErrNotFound) {
		return nil, otter.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return newEntry(l, at), nil
}

func newEntry(l link.Link, at time.Duration) *entry {
	e := &entry{link: l}
	e.read.Store(int64(at))
	e.tried.Store(int64(at))
	return e
}

// refreshIfDue asks for e to be read again, without waiting, if it has the age
// or may have missed a change. Of many visitors one asks.
func (c *Cache) refreshIfDue(code string, e *entry, now, age time.Duration) {
	distrusted := c.distrusted.Load()
	if age < RefreshAfter && e.read.Load() >= distrusted {
		return
	}
	tried := e.tried.Load()
	if tried >= distrusted && int64(now)-tried < int64(retryAfter) || !e.tried.CompareAndSwap(tried, int64(now)) {
		return
	}
	select {
	case c.due <- due{code, e}:
	default: // so many are due that this one waits for retryAfter, or for its visitor
	}
}

// refresh reads again what is due, many links at a time, until ctx ends.
func (c *Cache) refresh(ctx context.Context) {
	batch := make([]due, 0, gatherMost)
	var nextProbe time.Duration
	for {
		select {
		case d := <-c.due:
			batch = append(batch[:0], d)
		case <-ctx.Done():
			return
		}
		if len(c.due) < gatherMost {
			time.Sleep(gatherFor)
		}
		for len(batch) < gatherMost && len(c.due) > 0 {
			batch = append(batch, <-c.due)
		}
		// While the store is away every hot link would be tried every
		// retryAfter. A few tries are enough to find out that it is back.
		if c.away() {
			if c.now() < nextProbe {
				continue
			}
			nextProbe = c.now() + probeEvery
			batch = batch[:1]
		}
		c.reread(ctx, batch)
		clear(batch) // what was evicted meanwhile may go
	}
}

// reread reads many links again.
func (c *Cache) reread(ctx context.Context, batch []due) {
	codes := make([]string, len(batch))
	for i, d := range batch {
		codes[i] = d.code
	}
	at := c.now() // before: a change while we read makes the entry older, not newer
	links, errs := c.store.GetAll(ctx, codes)
	for i, d := range batch {
		c.settle(d.code, d.entry, at, links[i], errs[i])
	}
}

// wait reads a link again for its visitors, once for all who wait: in the store's own
// time, and each waits for as long as it can.
func (c *Cache) wait(ctx context.Context, code string, e *entry) (link.Link, error) {
	read := c.overdue.DoChan(code, func() (any, error) {
		at := c.now()
		l, err := c.store.Get(context.WithoutCancel(ctx), code)
		c.settle(code, e, at, l, err)
		return l, err
	})
	select {
	case r := <-read:
		return r.Val.(link.Link), r.Err
	case <-ctx.Done():
		return link.Link{}, fmt.Errorf("%w: %w", link.ErrUnavailable, ctx.Err())
	}
}

// settle makes of e what the store said at a time: the same link, another, none,
// or nothing. A link that became unreadable goes, as one that went: the store
// answered, and what it has is not e any more. If e has been dropped or replaced meanwhile, what is there is newer.
func (c *Cache) settle(code string, e *entry, at time.Duration, l link.Link, err error) {
	c.metrics.count(refreshed)
	c.heard(err)
	switch {
	case err == nil && l.Equal(e.link):
		e.read.Store(int64(at))
	case err == nil:
		c.replace(code, e, newEntry(l, at), otter.WriteOp)
	case isAnswer(err):
		c.replace(code, e, nil, otter.InvalidateOp)
	}
}

func (c *Cache) replace(code string, e, by *entry, op otter.ComputeOp) {
	c.links.ComputeIfPresent(code, func(now *entry) (*entry, otter.ComputeOp) {
		if now != e {
			return now, otter.CancelOp
		}
		return by, op
	})
}

// away reports whether the store failed lately and has not answered since.
func (c *Cache) away() bool {
	failed := c.failed.Load()
	return failed != 0 && c.now()-time.Duration(failed) < awayFor
}

// heard takes note of whether the store answered.
func (c *Cache) heard(err error) {
	if !isAnswer(err) {
		c.failed.Store(max(1, int64(c.now())))
	} else if c.failed.Load() != 0 {
		c.failed.Store(0)
	}
}

// isAnswer reports whether the store answered a read, be it that there is no link, or
// none that can be read.
func isAnswer(err error) bool {
	return err == nil || errors.Is(err, link.ErrNotFound) || errors.Is(err, link.ErrUnreadable)
}
