// Package nearcache keeps a backend's share of the hot links in the process, so that a hot redirect
// touches neither network nor Redis. It is a link.Store in front of a link.Store, and the reason
// why Nginx hashes codes: each link is then in one cache.
//
// Its decisions. How stale an answer can be is bounded by FreshFor, whatever breaks, and by the
// delay of one message while changes are announced (see Drop). A link in use is read again every
// RefreshAfter, in the background. That keeps the bound, and nobody waits for it. It also keeps
// Redis's LRU honest, which would otherwise see the hottest links as idle and evict them first.
// When the store is away, or the part of it that has a link, the link is served past the bound, up
// to StaleIfError: a redirect that was right a minute ago is better than an error.
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

	"snowlink/internal/deadline"
	"snowlink/internal/link"
)

var _ link.Store = (*Cache)(nil)

const (
	// FreshFor is the most that a link may lag behind the store while the store answers.
	FreshFor = 30 * time.Second
	// RefreshAfter is the age at which a link in use is read again. It is below FreshFor by more
	// than a read can take, so that no visitor waits for a link in use.
	RefreshAfter = 25 * time.Second
	// MissingFor is how long the cache remembers that a code has no link.
	MissingFor = 2 * time.Second

	// Links that are due within gatherFor of each other are read together, up to gatherMost. A read
	// of one alone costs ten times as much.
	gatherFor  = 50 * time.Millisecond
	gatherMost = 4096

	// A link whose read failed is due again after retryAfter, which is more than a read can take.
	// At most gatherMost of them are read every retryEvery: while the store is away, all hot links
	// are among them.
	retryAfter = 2 * time.Second
	retryEvery = time.Second
	// awayFor is how long the whole store counts as away after it failed. Links in use are tried
	// more often than that. A backend without visitors tries none, so its next visitor has to ask:
	// the store may be back.
	awayFor = 5 * time.Second

	// missingShare is a divisor: codes without a link may take this part of the bytes, so that
	// someone who guesses codes cannot push links out.
	missingShare = 16

	// overhead is what an entry costs beside its code, its target and its owner, in bytes. TestMemoryBudget
	// measures it.
	overhead = 200
)

// Cache is a link.Store in front of another. All methods may be called concurrently.
type Cache struct {
	// store is the one behind. Its methods are forwarded by name: a new one that writes must not
	// bypass what is kept here.
	store   link.Store
	links   *otter.Cache[string, *entry]
	missing *otter.Cache[string, struct{}]
	metrics *metrics

	staleIfError time.Duration
	started      time.Time // ages count from it, by the monotonic clock

	// The links to be read again. Those whose last read failed are in retries, and read apart: the
	// part of the store that has them may hang, and the others are not to wait for it.
	due, retries chan due
	overdue      singleflight.Group // for visitors who wait
	stop         context.CancelFunc // of the refreshers
	refreshers   sync.WaitGroup

	// These are times since started. At distrusted, announcements may have been missed last. At
	// answered, the store answered a read last. At silent, a read failed last during which the
	// store answered no other.
	distrusted, answered, silent atomic.Int64
	// changes counts events after which a code that had no link may have one.
	changes atomic.Uint64
}

// entry is a link as it was at a time. Another link under the code is another entry.
type entry struct {
	link link.Link
	// These are times since Cache.started. At read, the store held this link. At tried, a refresh
	// was asked for last. At failed, the last read of this link began, if it failed; otherwise that
	// is 0.
	read, tried, failed atomic.Int64
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

// New makes a cache in front of store. It takes at most the given bytes for codes, targets and
// overhead. A link that the store could not confirm is served for staleIfError at most.
func New(store link.Store, bytes uint64, staleIfError time.Duration, reg prometheus.Registerer) *Cache {
	c := &Cache{store: store, staleIfError: max(staleIfError, FreshFor), started: time.Now()}
	// Otter neither expires nor refreshes, for Get looks at ages anyway. So otter keeps no record
	// of reads until it is half full. That keeps its bookkeeping, a goroutine for every 16 reads,
	// off the hot path.
	c.links = otter.Must(&otter.Options[string, *entry]{
		MaximumWeight: bytes - bytes/missingShare,
		Weigher: func(code string, e *entry) uint32 {
			return uint32(len(code) + len(e.link.Target) + len(e.link.Owner) + optionsSize(e.link.Options) + overhead)
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
	c.due, c.retries = make(chan due, gatherMost), make(chan due, gatherMost)
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.refreshers.Go(func() { c.refresh(ctx, c.due, gatherFor) })
	c.refreshers.Go(func() { c.refresh(ctx, c.retries, retryEvery) })
	return c
}

// Get returns the link under code, from memory if it can. Its errors are those of the store behind.
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

	// The link is too old to be served unasked: nobody used it for a while, or the store could not
	// be read.
	if e.failedLately(asked) || c.away(asked) {
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

// Create creates the link in the store behind. Whoever created it sees it at once.
func (c *Cache) Create(ctx context.Context, owner, code string, l link.Link) error {
	err := c.store.Create(ctx, owner, code, l)
	// Somebody may be asking for a code that was chosen, or may have been given a link that the
	// store has forgotten since. Nobody asks for a minted code before it is made. Counted as a
	// change, it would only make the codes be asked for again that are being found missing.
	if l.Chosen() {
		c.created(code, err)
	} else {
		c.missing.Invalidate(code)
	}
	return err
}

// CreateAll creates the links in the store behind. Whoever created them sees them at once.
func (c *Cache) CreateAll(ctx context.Context, owner string, links []link.Coded) []error {
	errs := c.store.CreateAll(ctx, owner, links)
	for i, l := range links { // minted ones, too: an import may bring codes that were minted before
		c.created(l.Code, errs[i])
	}
	return errs
}

// created takes note of the create of a code that ended with err. Only one that succeeded says that
// a link kept here is not the store's: a refused create, or one during an outage, must not take a
// link from its visitors. One that may have succeeded shows within FreshFor.
func (c *Cache) created(code string, err error) {
	if err == nil {
		c.drop(code)
		return
	}
	c.changes.Add(1)
	c.missing.Invalidate(code)
}

// Update changes the link in the store behind and drops it here. Whoever changed it sees the change
// at once.
func (c *Cache) Update(ctx context.Context, code, version string, l link.Link) (link.State, error) {
	s, err := c.store.Update(ctx, code, version, l)
	c.Drop(code) // even after an error: it may have been changed
	return s, err
}

// GetAll asks the store behind and keeps nothing: many links at once would push others out.
func (c *Cache) GetAll(ctx context.Context, codes []string) ([]link.Link, []error) {
	return c.store.GetAll(ctx, codes)
}

// Read asks the store behind, for the link as it is now.
func (c *Cache) Read(ctx context.Context, code string) (link.State, error) {
	return c.store.Read(ctx, code)
}

// Visit asks the store behind, which alone counts visits.
func (c *Cache) Visit(ctx context.Context, code string) (link.Link, error) {
	return c.store.Visit(ctx, code)
}

// List asks the store behind.
func (c *Cache) List(ctx context.Context, q link.Query) (link.Page, error) {
	return c.store.List(ctx, q)
}

// Drop forgets code, since it was changed. The next Get asks the store. What a read brings that is
// under way is not kept.
func (c *Cache) Drop(code string) {
	c.metrics.count(invalidate)
	c.drop(code)
}

func (c *Cache) drop(code string) {
	c.changes.Add(1)
	c.missing.Invalidate(code)
	c.links.Invalidate(code)
}

// Distrust makes every link due for a refresh at its next use, since changes may have been missed.
// So is a link whose read is under way. FreshFor goes on counting meanwhile.
func (c *Cache) Distrust() {
	c.metrics.count(distrust)
	c.distrusted.Store(int64(c.now()) + 1) // what was read in this very nanosecond, too
	c.changes.Add(1)
	c.missing.InvalidateAll()
}

// Close ends the cache's own goroutines.
func (c *Cache) Close() {
	c.stop()
	c.refreshers.Wait()
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

// errMissing reports that a code is known to have no link, without asking.
var errMissing = fmt.Errorf("known: %w", link.ErrNotFound)

// read reads the store for otter, and returns otter's error if there is no link. ctx is that of the
// first who asked. The others wait no longer than their own contexts allow. If ctx ends before the
// answer comes, the next of them reads.
func (c *Cache) read(ctx context.Context, code string) (*entry, error) {
	if _, ok := c.missing.GetIfPresent(code); ok {
		c.metrics.count(negative)
		return nil, errMissing
	}
	c.metrics.count(miss)
	at := c.now() // before: a change while we read makes the entry older, not newer
	l, err := c.store.Get(ctx, code)
	if ctx.Err() == nil { // a reader who had no time left says nothing about the store
		c.heard(at, err)
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

// refreshIfDue asks for e to be read again, without waiting, if it is old enough or may have missed
// a change. Of many visitors one asks.
func (c *Cache) refreshIfDue(code string, e *entry, now, age time.Duration) {
	distrusted := c.distrusted.Load()
	if age < RefreshAfter && e.read.Load() >= distrusted {
		return
	}
	tried := e.tried.Load()
	if tried >= distrusted && int64(now)-tried < int64(retryAfter) || !e.tried.CompareAndSwap(tried, int64(now)) {
		return
	}
	queue := c.due
	if e.failed.Load() != 0 {
		queue = c.retries
	}
	select {
	case queue <- due{code, e}:
	default: // so many are due that this one is due again after retryAfter, or its visitor waits
	}
}

// refresh reads again what is due in a queue, many links at a time, until ctx ends. It gathers them
// for a time.
func (c *Cache) refresh(ctx context.Context, queue <-chan due, gather time.Duration) {
	batch := make([]due, 0, gatherMost)
	for {
		select {
		case d := <-queue:
			batch = append(batch[:0], d)
		case <-ctx.Done():
			return
		}
		if !deadline.Sleep(ctx, gather) {
			return
		}
		for len(batch) < gatherMost && len(queue) > 0 {
			batch = append(batch, <-queue)
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

// wait reads a link again for its visitors, once for all who wait. The read has the store's own
// time, and each visitor waits for as long as it can.
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

// settle applies to e what a read that began at a time brought: the same link, another, none, or no
// answer. A link that became unreadable goes as a deleted one does: the store answered, and what it
// has is not e any more. If e has been dropped or replaced meanwhile, what is there is newer and
// stays.
func (c *Cache) settle(code string, e *entry, at time.Duration, l link.Link, err error) {
	c.metrics.count(refreshed)
	c.heard(at, err)
	switch {
	case err == nil && l.Equal(e.link):
		e.read.Store(int64(at))
		e.failed.Store(0)
	case err == nil:
		c.replace(code, e, newEntry(l, at), otter.WriteOp)
	case isAnswer(err):
		c.replace(code, e, nil, otter.InvalidateOp)
	default:
		e.failed.Store(max(1, int64(at)))
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

// failedLately reports whether the last read of this link failed, less than FreshFor ago. The store
// was away then, and FreshFor counts from there.
func (e *entry) failedLately(now time.Duration) bool {
	failed := e.failed.Load()
	return failed != 0 && now-time.Duration(failed) < FreshFor
}

// away reports whether all of the store is away, as far as is known: it failed lately, and answered
// nothing while it failed or since. It spares visitors of links that were not tried yet the wait.
func (c *Cache) away(now time.Duration) bool {
	silent := c.silent.Load()
	return silent != 0 && silent > c.answered.Load() && now-time.Duration(silent) < awayFor
}

// heard takes note of whether the store answered a read that began at a time.
func (c *Cache) heard(at time.Duration, err error) {
	now := int64(c.now())
	if isAnswer(err) {
		c.answered.Store(now)
	} else if c.answered.Load() < int64(at) {
		c.silent.Store(now)
	}
}

// isAnswer reports whether the store answered a read. That there is no link, or none that can be
// read, is an answer.
func isAnswer(err error) bool {
	return err == nil || errors.Is(err, link.ErrNotFound) || errors.Is(err, link.ErrUnreadable)
}
