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
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/maypok86/otter/v2"

	"snowlink/server/internal/link"
	"snowlink/server/internal/metrics"
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

	// While the store is away, a link is due again after retryAfter, and of all
	// that are due one every probeEvery is really tried.
	retryAfter = time.Second
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
	link.Store // the one behind: what is not kept here goes there
	links      *otter.Cache[string, entry]
	missing    *otter.Cache[string, struct{}]
	metrics    *metrics.Metrics

	staleIfError time.Duration
	started      time.Time // what ages count from, by the monotonic clock

	// Since started: when the store failed last, if it has not answered since,
	// or 0; when a refresh may try it again; when announcements may have been
	// missed last.
	failed, nextProbe, distrusted atomic.Int64
	// changes counts what may have ended the absence of a link.
	changes atomic.Uint64
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

// entry is a link as it was at a time, which lies before it was read.
type entry struct {
	link link.Link
	read time.Duration // since Cache.started
}

// New makes a cache of at most the given bytes, codes, targets and overhead
// counted, in front of store. A link that the store could not confirm is served
// for staleIfError at most. Reads of the store run under the context of the
// request that causes them, those in the background too: it must be one that
// outlives the request.
func New(store link.Store, bytes uint64, staleIfError time.Duration, m *metrics.Metrics) *Cache {
	c := &Cache{Store: store, staleIfError: max(staleIfError, FreshFor), started: time.Now(), metrics: m}
	// No expiry: otter then keeps no record of reads until it is half full, and
	// its bookkeeping of them, a goroutine for every 16, stays off the hot path.
	// Get looks at ages anyway.
	c.links = otter.Must(&otter.Options[string, entry]{
		MaximumWeight: bytes - bytes/missingShare,
		Weigher: func(code string, e entry) uint32 {
			return uint32(len(code) + len(e.link.Target) + optionsSize(e.link.Options) + overhead)
		},
		RefreshCalculator: refreshing{c},
		Logger:            &otter.NoopLogger{}, // the store logs its own outages
	})
	c.missing = otter.Must(&otter.Options[string, struct{}]{
		MaximumWeight:    bytes / missingShare,
		Weigher:          func(code string, _ struct{}) uint32 { return uint32(len(code) + overhead) },
		ExpiryCalculator: otter.ExpiryWriting[string, struct{}](MissingFor),
		Logger:           &otter.NoopLogger{},
	})
	m.WatchCache(
		func() float64 { return float64(c.links.WeightedSize() + c.missing.WeightedSize()) },
		func() float64 { return float64(c.links.EstimatedSize()) })
	return c
}

// Get returns the link under code, from memory if it can. Its errors are those
// of the store behind.
func (c *Cache) Get(ctx context.Context, code string) (link.Link, error) {
	asked, changes := c.now(), c.changes.Load()
	// In one step: find the entry, and if it is due start to refresh it, or
	// load it, once for all who wait.
	e, err := c.links.Get(ctx, code, loader{c})
	switch {
	case errors.Is(err, otter.ErrNotFound):
		c.missing.Set(code, struct{}{})
		if c.changes.Load() != changes { // since we asked: perhaps this link came
			c.missing.Invalidate(code)
		}
		return link.Link{}, link.ErrNotFound
	case err != nil:
		return link.Link{}, err
	case e.read >= asked: // loaded just now
		return e.link, nil
	case asked-e.read <= FreshFor:
		c.metrics.Cache(metrics.CacheHit)
		return e.link, nil
	}

	// Too old to be served unasked: nobody used it for a while, or the store
	// is away.
	if !c.away() {
		fresh := <-c.links.Refresh(ctx, code, loader{c})
		switch {
		case fresh.Err == nil:
			return fresh.Value.link, nil
		case errors.Is(fresh.Err, otter.ErrNotFound), errors.Is(fresh.Err, link.ErrNotFound):
			return link.Link{}, link.ErrNotFound
		}
	}
	if asked-e.read > c.staleIfError {
		return link.Link{}, link.ErrUnavailable
	}
	c.metrics.Cache(metrics.CacheStale)
	return e.link, nil
}

// Create creates the link in the store behind.
func (c *Cache) Create(ctx context.Context, owner, code string, l link.Link) error {
	err := c.Store.Create(ctx, owner, code, l)
	c.changes.Add(1)
	c.missing.Invalidate(code)
	return err
}

// CreateAll creates the links in the store behind.
func (c *Cache) CreateAll(ctx context.Context, owner string, links []link.Coded) []error {
	errs := c.Store.CreateAll(ctx, owner, links)
	c.changes.Add(1)
	for _, l := range links {
		c.missing.Invalidate(l.Code)
	}
	return errs
}

// Update changes the link in the store behind and drops it here: whoever changed
// it sees the change at once.
func (c *Cache) Update(ctx context.Context, code, version string, l link.Link) error {
	err := c.Store.Update(ctx, code, version, l)
	c.Drop(code) // even after an error: it may have been changed
	return err
}

// Drop forgets code, since it was changed: the next Get asks the store. A read
// that is under way is not kept.
func (c *Cache) Drop(code string) {
	c.metrics.Cache(metrics.CacheInvalidate)
	c.changes.Add(1)
	c.missing.Invalidate(code)
	c.links.Invalidate(code)
}

// Distrust makes every link due for a refresh at its next use, since changes
// may have been missed; so is a link whose read is under way. FreshFor goes on
// counting meanwhile.
func (c *Cache) Distrust() {
	c.metrics.Cache(metrics.CacheDistrust)
	c.distrusted.Store(int64(c.now()))
	c.changes.Add(1)
	for code := range c.links.Keys() {
		c.links.SetRefreshableAfter(code, atOnce)
	}
	c.missing.InvalidateAll()
}

// Close ends the cache's own goroutines.
func (c *Cache) Close() {
	c.links.StopAllGoroutines()
	c.missing.StopAllGoroutines()
}

func (c *Cache) now() time.Duration { return time.Since(c.started) }

// away reports whether the store failed lately and has not answered since.
func (c *Cache) away() bool {
	failed := c.failed.Load()
	return failed != 0 && c.now()-time.Duration(failed) < awayFor
}

// atOnce is the least that otter takes for a delay.
const atOnce = time.Nanosecond

// refreshing says when a link is due to be read again.
type refreshing struct{ *Cache }

func (r refreshing) RefreshAfterCreate(e otter.Entry[string, entry]) time.Duration {
	if e.Value.read < time.Duration(r.distrusted.Load()) {
		return atOnce
	}
	return RefreshAfter
}

func (r refreshing) RefreshAfterUpdate(e otter.Entry[string, entry], _ entry) time.Duration {
	return r.RefreshAfterCreate(e)
}

func (r refreshing) RefreshAfterReload(e otter.Entry[string, entry], _ entry) time.Duration {
	return r.RefreshAfterCreate(e)
}

func (refreshing) RefreshAfterReloadFailure(otter.Entry[string, entry], error) time.Duration {
	return retryAfter
}

// loader reads the store for the cache.
type loader struct{ *Cache }

// errMissing says that a code is known to have no link, without asking.
var errMissing = fmt.Errorf("known: %w", link.ErrNotFound)

// Load reads a link that is not in memory.
func (c loader) Load(ctx context.Context, code string) (entry, error) {
	if _, ok := c.missing.GetIfPresent(code); ok {
		c.metrics.Cache(metrics.CacheNegative)
		return entry{}, errMissing
	}
	c.metrics.Cache(metrics.CacheMiss)
	return c.read(ctx, code)
}

// Reload reads a link that is in memory again.
func (c loader) Reload(ctx context.Context, code string, _ entry) (entry, error) {
	// While the store is away every hot link would be tried every retryAfter.
	// A few tries are enough to find out that it is back.
	if c.away() {
		now, next := c.now(), time.Duration(c.nextProbe.Load())
		if now < next || !c.nextProbe.CompareAndSwap(int64(next), int64(now+probeEvery)) {
			return entry{}, link.ErrUnavailable
		}
	}
	c.metrics.Cache(metrics.CacheRefresh)
	return c.read(ctx, code)
}

func (c loader) read(ctx context.Context, code string) (entry, error) {
	read := c.now() // before: a change while we read makes the entry older, not newer
	l, err := c.Store.Get(ctx, code)
	if err != nil && !errors.Is(err, link.ErrNotFound) {
		c.failed.Store(max(1, int64(c.now())))
	} else if c.failed.Load() != 0 {
		c.failed.Store(0)
	}
	if errors.Is(err, link.ErrNotFound) {
		return entry{}, otter.ErrNotFound
	}
	return entry{link: l, read: read}, err
}
