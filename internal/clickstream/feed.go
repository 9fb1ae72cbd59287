package clickstream

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"snowlink/internal/clicks"
	"snowlink/internal/deadline"
	"snowlink/internal/redisconn"
)

var _ clicks.Feed = (*Feed)(nil)

const (
	// channel is where batches are published while somebody hears them.
	channel = "clicks:live"
	// heardKey is there while somebody hears. A Cluster does not tell who has subscribed elsewhere.
	heardKey = "clicks:heard"
	// heardFor is its time to live. Whoever hears sets it anew every third of that.
	heardFor = 15 * time.Second
	// lookEvery is how long a publisher believes what it knows of heardKey.
	lookEvery = time.Second

	// tellCounts and tellFacts bound what is published at a time: some 200 KiB.
	tellCounts = 1000
	tellFacts  = 2000
)

// Feed is a clicks.Feed over a channel. All methods may be called concurrently.
//
// What it tells is bounded: of too many counts those with the most clicks, and of too many facts
// none of the counts with the fewest clicks. Visitors and misses it does not tell.
type Feed struct {
	conn    *redisconn.Conn
	op      *redisconn.Operation
	unheard *redisconn.Outage

	mu     sync.Mutex
	looked time.Time // when it last looked whether somebody hears
	heard  bool
}

// NewFeed makes a Feed over the connections, which stay the caller's to close.
func NewFeed(conn *redisconn.Conn) *Feed {
	return &Feed{conn: conn, op: conn.Operation("live clicks"), unheard: conn.Outage("live clicks")}
}

// Publish is that of clicks.Feed. While nobody hears it costs a round trip a second at most.
func (f *Feed) Publish(ctx context.Context, batches []clicks.Batch) {
	if !f.isHeard(ctx) {
		return
	}
	b := digest(batches)
	if len(b.Counts) == 0 {
		return
	}
	ctx, cancel := f.conn.Limit(ctx)
	defer cancel()
	if err := f.conn.Client.Publish(ctx, channel, clicks.AppendBatch(nil, &b)).Err(); err != nil {
		_ = f.op.Unavailable(f.conn.Writes, err) // which takes note
	}
}

// isHeard reports whether somebody heard a second ago.
func (f *Feed) isHeard(ctx context.Context) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.looked) < lookEvery {
		return f.heard
	}
	f.looked = time.Now()
	ctx, cancel := f.conn.Limit(ctx)
	defer cancel()
	n, err := f.conn.Client.Exists(ctx, heardKey).Result()
	if err != nil {
		_ = f.op.Unavailable(f.conn.Reads, err) // which takes note
	}
	f.heard = err == nil && n > 0
	return f.heard
}

// digest returns what is told of the batches.
func digest(batches []clicks.Batch) (d clicks.Batch) {
	for _, b := range batches {
		d.Counts = append(d.Counts, b.Counts...)
	}
	if len(d.Counts) > tellCounts {
		slices.SortStableFunc(d.Counts, func(a, b clicks.Count) int {
			return cmp.Compare(b.Clicks+b.Bots, a.Clicks+a.Bots)
		})
		d.Counts = d.Counts[:tellCounts]
	}
	facts := 0
	for i := range d.Counts {
		c := &d.Counts[i]
		c.Visitors = nil
		if facts += len(c.Facts); facts > tellFacts {
			c.Facts = nil
		}
	}
	return d
}

// Subscribe is that of clicks.Feed. Publishers know of it after a second.
func (f *Feed) Subscribe(ctx context.Context, hear func(clicks.Count)) {
	var saying sync.WaitGroup
	defer saying.Wait()
	saying.Go(func() {
		for {
			limited, cancel := f.conn.Limit(ctx)
			if err := f.conn.Client.Set(limited, heardKey, 1, heardFor).Err(); err != nil && ctx.Err() == nil {
				_ = f.op.Unavailable(f.conn.Writes, err) // which takes note
			}
			cancel()
			if !deadline.Sleep(ctx, heardFor/3) {
				return
			}
		}
	})
	f.conn.Hear(ctx, channel, f.unheard, func(payload string) {
		b, err := clicks.ParseBatch([]byte(payload))
		if err != nil {
			return // of another version
		}
		for _, c := range b.Counts {
			hear(c)
		}
	}, func() {})
}
