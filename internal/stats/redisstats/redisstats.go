// Package redisstats keeps roll-ups of clicks in Redis, for those who have no archive.
//
// Its decisions. Sums are in pages: a day has daysPages of them, each with the scopes whose names
// hash to it. So there are few keys whatever there is to count, each stands alone, and a day is
// forgotten by name. To apply a batch is to append to pages, blindly; whoever reads a page leaves
// out what was appended twice, since each segment says whose it is and which of theirs. A page that
// has grown is rewritten shorter, if it still begins as it did: that needs one small script, and no
// lock. Pages of days have a time to live, and all of them a bound in bytes: what is above it costs
// the oldest day.
package redisstats

import (
	"context"
	"log/slog"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/redis/go-redis/v9"

	"snowlink/internal/clicks"
	"snowlink/internal/redisconn"
	"snowlink/internal/stats"
)

var _ stats.Store = (*Store)(nil)

const (
	// daysPages and totalsPages decide where sums are: they must never change.
	daysPages   = 256  // of a day
	totalsPages = 1024 // small ones, since a list of links needs many

	// doneBits is how many batches share a key that says which of them were applied, and doneFor is for
	// how long it is kept. It is longer than a queue keeps a batch.
	doneBits = 8192
	doneFor  = 4 * 24 * time.Hour

	applyTime = 10 * time.Second // of an Apply without a deadline
	// A round trip has at most as many commands, and some more bytes, so that it takes less time than
	// a connection waits.
	tripCommands = 512
	tripBytes    = 1 << 20
)

// Options say what a Store keeps.
type Options struct {
	// Keep is how long hours, facts and visitors are kept: CLICKS_KEEP.
	Keep time.Duration
	// Most bounds the memory of all clicks, in bytes. 0 is a tenth of maxmemory, or 64 MiB if Redis
	// has none.
	Most int64
}

// Store keeps roll-ups in Redis. All methods may be called concurrently.
type Store struct {
	conn *redisconn.Conn
	log  *slog.Logger
	o    Options
	ops  struct{ apply, ask, forget, tend *redisconn.Operation }

	rewriteAt sync.Map         // by key: the length above which the page is rewritten, as this process knows
	share     *redisconn.Share // what most is, without Options.Most
	most      atomic.Int64     // bytes; 0 until it is known
	full      atomic.Bool      // there is nothing left to forget but today
	fullOn    atomic.Int64     // the day of which the log says so
	oldest    atomic.Int64     // the oldest day that is kept, as far as it is known

	bytes     prometheus.Gauge
	forgotten prometheus.Counter
	leftOut   prometheus.Counter
	gone      prometheus.Counter
	evicted   *redisconn.Outage // of pages; it never ends
}

// New makes a Store over the connections, which stay the caller's to close. The collectors are
// registered with reg.
func New(conn *redisconn.Conn, log *slog.Logger, reg prometheus.Registerer, o Options) *Store {
	register := promauto.With(reg)
	s := &Store{
		conn: conn, log: log, o: o, share: conn.Share(share, unbounded),
		bytes: register.NewGauge(prometheus.GaugeOpts{
			Name: "snowlink_clicks_redis_bytes", Help: "Memory of counted clicks in Redis, about.",
		}),
		forgotten: register.NewCounter(prometheus.CounterOpts{
			Name: "snowlink_clicks_redis_forgotten_days_total", Help: "Days whose clicks were forgotten to keep the bound on memory.",
		}),
		leftOut: register.NewCounter(prometheus.CounterOpts{
			Name: "snowlink_clicks_redis_left_out_total", Help: "Clicks that were counted for the owner, but not for the link and its tags, to keep the bound on memory.",
		}),
	}
	s.gone = register.NewCounter(prometheus.CounterOpts{
		Name: "snowlink_clicks_redis_gone_pages_total", Help: "Pages of counted clicks that Redis had lost when more was to be added, as by eviction.",
	})
	s.evicted = conn.Outage("counted clicks")
	s.ops.apply, s.ops.ask = conn.Operation("apply clicks"), conn.Operation("ask for clicks")
	s.ops.forget, s.ops.tend = conn.Operation("forget clicks"), conn.Operation("tend clicks")
	return s
}

// dayOf returns the day of a time (UTC), counted from 1970.
func dayOf(t time.Time) int { return int(t.Unix() / (24 * 60 * 60)) }

func timeOf(day int) time.Time { return time.Unix(int64(day)*24*60*60, 0).UTC() }

// totals is in the place of a day for pages of totals.
const totals = -1

// pageID says which page.
type pageID struct{ day, number int }

func (p pageID) key() string {
	if p.day == totals {
		return "clicks:total:" + strconv.Itoa(p.number)
	}
	return "clicks:" + field(p.day) + ":" + strconv.Itoa(p.number)
}

// field names a day in daysKey.
func field(day int) string {
	if day == totals {
		return "totals"
	}
	return timeOf(day).Format(time.DateOnly)
}

// until is when Redis forgets the page, if nothing is added to it.
func (s *Store) until(day int) time.Time {
	if day == totals {
		return time.Now().Add(s.o.Keep + 48*time.Hour)
	}
	return timeOf(day + 2).Add(s.o.Keep)
}

// The names of scopes in pages. They begin with a letter for their kind.
const (
	everything = "a"
	missed     = "m"
)

func linkName(code string) string { return "l" + code }

func scopeName(s stats.Scope) string {
	switch {
	case s.Code != "":
		return linkName(s.Code)
	case s.Owner != "" && s.Tag != "":
		return "b" + strconv.Itoa(len(s.Owner)) + ":" + s.Owner + s.Tag
	case s.Owner != "":
		return "o" + s.Owner
	case s.Tag != "":
		return "t" + s.Tag
	default:
		return everything
	}
}

func dayPage(day int, scope string) pageID {
	return pageID{day, int(xxhash.Sum64String(scope) % daysPages)}
}

func totalsPage(code string) pageID {
	return pageID{totals, int(xxhash.Sum64String(code) % totalsPages)}
}

// Since returns the same time twice: what is kept is kept in all detail.
func (s *Store) Since(now time.Time) (hours, days time.Time) {
	since := timeOf(s.firstDay(now))
	return since, since
}

func (s *Store) firstDay(now time.Time) int {
	return max(dayOf(now.Add(-s.o.Keep)), int(s.oldest.Load()))
}

// Apply appends the batches to their pages, and then takes note of those that are done. Batches of
// which that is known already are left out.
func (s *Store) Apply(ctx context.Context, batches []clicks.Batch) (stats.Applied, error) {
	var a stats.Applied
	if len(batches) == 0 {
		return a, nil
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, applyTime)
		defer cancel()
	}
	s.lookUpMost(ctx)
	batches, a.Repeated = distinct(batches)
	unknown, err := s.leaveOutDone(ctx, batches)
	if err != nil {
		return stats.Applied{}, s.ops.apply.Unavailable(s.conn.Reads, err)
	}
	a.Repeated += len(batches) - len(unknown)
	pages := s.draw(unknown)
	lengths, err := s.append(ctx, pages)
	if err != nil {
		return stats.Applied{}, s.ops.apply.Unavailable(s.conn.Writes, err)
	}
	added, err := s.markDone(ctx, unknown)
	if err != nil {
		return stats.Applied{}, s.ops.apply.Unavailable(s.conn.Writes, err)
	}
	s.conn.Writes.Ended()
	for i, isNew := range added {
		if !isNew {
			a.Repeated++
			continue
		}
		a.New = append(a.New, unknown[i])
		for _, c := range unknown[i].Counts {
			a.Clicks += c.Clicks + c.Bots
		}
	}
	// The batches are applied, and what follows is done by the next Apply if it fails now.
	if err := s.grow(ctx, pages, lengths); err != nil {
		_ = s.ops.tend.Unavailable(s.conn.Writes, err)
	}
	return a, nil
}

// distinct leaves out batches that come twice.
func distinct(batches []clicks.Batch) (kept []clicks.Batch, repeated int) {
	type identity struct {
		producer string
		number   uint64
	}
	seen := make(map[identity]bool, len(batches))
	for _, b := range batches {
		if id := (identity{b.Producer, b.Number}); !b.Ordered {
			if seen[id] {
				repeated++
				continue
			}
			seen[id] = true
		}
		kept = append(kept, b)
	}
	return kept, repeated
}

// offsetsKey is a sorted set: for each producer of ordered counts, the number of the first one that
// was not applied.
const offsetsKey = "clicks:offsets"

// doneKey is a bitmap: which batches of a producer were applied.
func doneKey(b *clicks.Batch) (key string, bit int64) {
	return "clicks:done:" + b.Producer + ":" + strconv.FormatUint(b.Number/doneBits, 10), int64(b.Number % doneBits)
}

// leaveOutDone leaves out what is known to be applied.
func (s *Store) leaveOutDone(ctx context.Context, batches []clicks.Batch) ([]clicks.Batch, error) {
	pipe := s.conn.Aside.Pipeline()
	bits, offsets := make([]*redis.IntCmd, len(batches)), make([]*redis.FloatSliceCmd, len(batches))
	for i := range batches {
		if b := &batches[i]; b.Ordered {
			offsets[i] = pipe.ZMScore(ctx, offsetsKey, b.Producer)
		} else {
			key, bit := doneKey(b)
			bits[i] = pipe.GetBit(ctx, key, bit)
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	var unknown []clicks.Batch
	for i, b := range batches {
		if !b.Ordered {
			if bits[i].Val() == 0 {
				unknown = append(unknown, b)
			}
			continue
		}
		next := uint64(offsets[i].Val()[0]) // 0 if there is none
		b.Counts = b.Counts[sort.Search(len(b.Counts), func(i int) bool { return b.Counts[i].Number >= next }):]
		b.Misses = b.Misses[sort.Search(len(b.Misses), func(i int) bool { return b.Misses[i].Number >= next }):]
		if len(b.Counts)+len(b.Misses) > 0 {
			unknown = append(unknown, b)
		}
	}
	return unknown, nil
}

// markDone takes note of what was applied, and returns of which batches nobody had before.
func (s *Store) markDone(ctx context.Context, batches []clicks.Batch) ([]bool, error) {
	added := make([]bool, len(batches))
	if len(batches) == 0 {
		return added, nil
	}
	pipe := s.conn.Aside.Pipeline()
	marks := make([]*redis.IntCmd, len(batches))
	for i := range batches {
		if b := &batches[i]; b.Ordered {
			var last uint64
			if n := len(b.Counts); n > 0 {
				last = b.Counts[n-1].Number
			}
			if n := len(b.Misses); n > 0 {
				last = max(last, b.Misses[n-1].Number)
			}
			marks[i] = pipe.ZAddArgs(ctx, offsetsKey, redis.ZAddArgs{GT: true, Ch: true, Members: []redis.Z{{Score: float64(last + 1), Member: b.Producer}}})
			pipe.Expire(ctx, offsetsKey, s.o.Keep+doneFor)
		} else {
			key, bit := doneKey(b)
			marks[i] = pipe.SetBit(ctx, key, bit, 1)
			pipe.Expire(ctx, key, doneFor)
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	for i, m := range marks {
		added[i] = (m.Val() == 1) == batches[i].Ordered // SETBIT returns the bit before
	}
	return added, nil
}

// drawn is what is to be appended to a page, of all batches.
type drawn struct {
	id   pageID
	text []byte
}

// draw makes the segments of batches, in their order.
func (s *Store) draw(batches []clicks.Batch) []drawn {
	var pages []drawn
	at := make(map[pageID]int)
	today := dayOf(time.Now())
	for i := range batches {
		b := &batches[i]
		producer := xxhash.Sum64String(b.Producer)
		d := drawing{store: s, drafts: make(map[pageID]*draft)}
		misses := b.Misses
		for i := range b.Counts {
			if number := b.Counts[i].Number; b.Ordered {
				for len(misses) > 0 && misses[0].Number < number {
					d.miss(&misses[0])
					d.flush(misses[0].Number)
					misses = misses[1:]
				}
				d.count(&b.Counts[i])
				d.flush(number)
			} else {
				d.count(&b.Counts[i])
			}
		}
		for i := range misses {
			if d.miss(&misses[i]); b.Ordered {
				d.flush(misses[i].Number)
			}
		}
		if !b.Ordered {
			d.flush(b.Number)
		}
		for id, draft := range d.drafts {
			n, ok := at[id]
			if !ok {
				n = len(pages)
				at[id], pages = n, append(pages, drawn{id: id})
			}
			pages[n].text = draft.appendDelta(pages[n].text, producer, b.Ordered, today, d.facts.list)
		}
	}
	return pages
}

// drawing makes the segments of one batch.
type drawing struct {
	store  *Store
	facts  factsTable
	drafts map[pageID]*draft

	// Of one number:
	drawn  []drawnSums
	shared map[sharedBy]*sums // those that many links are in
	slab   []sums             // not used yet
}

type drawnSums struct {
	page pageID
	name string
	*sums
}

type sharedBy struct {
	day   int
	scope string
}

// sums makes the sums of a scope in a page. A page may have several of the same: a reader adds them up.
func (d *drawing) sums(page pageID, name string) *sums {
	if len(d.slab) == 0 {
		d.slab = make([]sums, 128)
	}
	s := &d.slab[0]
	d.slab = d.slab[1:]
	d.drawn = append(d.drawn, drawnSums{page, name, s})
	return s
}

// of returns the sums of a scope that many links are in.
func (d *drawing) of(day int, scope string) *sums {
	by := sharedBy{day, scope}
	s := d.shared[by]
	if s == nil {
		s = d.sums(dayPage(day, scope), scope)
		if d.shared == nil {
			d.shared = make(map[sharedBy]*sums)
		}
		d.shared[by] = s
	}
	return s
}

// count adds a count to every scope that it belongs to.
func (d *drawing) count(c *clicks.Count) {
	if c.Clicks <= 0 && c.Bots <= 0 {
		return
	}
	day, t := dayOf(c.Hour), tally{c.Clicks, c.Bots}
	hour := hourSum{uint8(c.Hour.Unix() / 3600 % 24), t}
	facts := make([]combinedSum, 0, len(c.Facts))
	for _, f := range c.Facts {
		if f.Clicks > 0 {
			facts = append(facts, combinedSum{d.facts.add(f.Facts), hour.hour, f.Clicks})
		}
	}
	add := func(s *sums) {
		if n := len(s.hours); n > 0 && s.hours[n-1].hour == hour.hour {
			s.hours[n-1].add(t)
		} else {
			s.hours = append(s.hours, hour)
		}
		for _, f := range facts {
			s.addCombined(f)
		}
		s.visitors = append(s.visitors, c.Visitors...)
		s.links = append(s.links, linkSum{c.Code, t})
	}
	full := d.store.full.Load()
	for scope := range stats.Shared(c) {
		if scope.Tag == "" || !full {
			add(d.of(day, scopeName(scope)))
		}
	}
	if full {
		d.store.leftOut.Add(float64(t.sum()))
		return
	}
	name := linkName(c.Code)
	link := d.sums(dayPage(day, name), name)
	link.hours = append(link.first[:0], hour)
	link.combined, link.visitors = facts, c.Visitors[:len(c.Visitors):len(c.Visitors)]
	if c.Clicks > 0 {
		total := d.sums(totalsPage(c.Code), c.Code)
		total.hours = append(total.first[:0], hourSum{tally: tally{people: c.Clicks}})
		total.last = day
	}
}

func (d *drawing) miss(m *clicks.Miss) {
	if m.Clicks > 0 {
		s := d.of(dayOf(m.Hour), missed)
		s.links = append(s.links, linkSum{m.Code, tally{people: m.Clicks}})
	}
}

// flush drafts what was counted, all of it under one number.
func (d *drawing) flush(number uint64) {
	for _, s := range d.drawn {
		draftOf := d.drafts[s.page]
		if draftOf == nil {
			draftOf = &draft{}
			d.drafts[s.page] = draftOf
		}
		s.shorten(d.facts.list)
		draftOf.add(number, s.name, s.sums)
	}
	d.drawn, d.shared = d.drawn[:0], nil
}

// append appends to pages, and returns how long they are now.
func (s *Store) append(ctx context.Context, pages []drawn) ([]int64, error) {
	lengths := make([]int64, 0, len(pages))
	for len(pages) > 0 {
		n, size := 0, 0
		for n < len(pages) && n < tripCommands && size < tripBytes {
			size += len(pages[n].text)
			n++
		}
		pipe := s.conn.Client.Pipeline() // not Aside, where pages would look unused and be evicted before links
		appended := make([]*redis.IntCmd, n)
		for i, p := range pages[:n] {
			key := p.id.key()
			appended[i] = redis.NewIntCmd(ctx, "append", key, p.text)
			_ = pipe.Process(ctx, appended[i]) // queues it
			pipe.ExpireAt(ctx, key, s.until(p.id.day))
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return nil, err
		}
		for _, a := range appended {
			lengths = append(lengths, a.Val())
		}
		pages = pages[n:]
	}
	return lengths, nil
}
