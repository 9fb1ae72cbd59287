package redisstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/server/internal/link"
	"snowlink/server/internal/metrics"
)

// ErrNodeTaken reports that another process holds the node ID, or all of them.
// Its text names the holder.
var ErrNodeTaken = errors.New("node ID is taken")

// ErrClockBehind reports that codes were minted under the node ID at a time
// that this machine's clock has not reached: it would mint them again. Its text
// says how far the clock is behind.
var ErrClockBehind = errors.New("the clock is behind")

const (
	// leaseTTL is how long a lease outlives the last renewal: the time a
	// crashed backend's node ID stays blocked.
	leaseTTL = 15 * time.Second
	// leaseRenewEvery leaves room for two failed renewals before the end.
	leaseRenewEvery = 4 * time.Second
	// leaseMargin is taken off the TTL here: the holder stops minting before
	// Redis lets another process in.
	leaseMargin = time.Second
	// leaseRetryEvery is the pace of waiting for a Redis that is away.
	leaseRetryEvery = 500 * time.Millisecond
	// clockWait is how far a clock may be behind at the start and be waited for:
	// what time synchronisation may set back.
	clockWait = 10 * time.Second
)

// The scripts that set a key delete it first. Under noeviction a full Redis
// refuses SET, but not DEL, nor anything more of a script that has written: the
// lease lives on, and a create hears that there is no room, not that the node ID
// is lost.

// claim takes node:<id> if it is free, extends it if it is ours, and returns
// the holder's token either way. One key, one script: atomic, Cluster included.
var claim = redis.NewScript(`
local holder = redis.call("GET", KEYS[1])
if holder and holder ~= ARGV[1] then
  return holder
end
redis.call("DEL", KEYS[1])
redis.call("SET", KEYS[1], ARGV[1], "PX", ARGV[2])
return ARGV[1]`)

// raise sets node:<id>:clock, the high-water time in Unix milliseconds, unless
// it is higher.
var raise = redis.NewScript(`
if tonumber(redis.call("GET", KEYS[1]) or "0") < tonumber(ARGV[1]) then
  redis.call("DEL", KEYS[1])
  redis.call("SET", KEYS[1], ARGV[1])
end
return 0`)

// lower sets node:<id>:clock to an earlier time.
var lower = redis.NewScript(`
redis.call("DEL", KEYS[1])
return redis.call("SET", KEYS[1], ARGV[1])`)

// release gives node:<id> back if it is still ours.
var release = redis.NewScript(`
if redis.call("GET", KEYS[1]) == ARGV[1] then
  return redis.call("DEL", KEYS[1])
end
return 0`)

// Lease is the exclusive use of one node ID at times that no holder has used
// before. It is what keeps two processes from minting the same code; SET NX is
// the fence where a lease cannot be. Held may be called concurrently with Hold.
//
// The times are kept by a high-water mark beside the lease, node:<id>:clock:
// while the lease is held, the time until which it may be used; afterwards, the
// time at which it was given back.
type Lease struct {
	store *Store
	log   *slog.Logger
	token string
	node  int           // owned by Hold
	asked time.Duration // since start, when it was claimed last; owned by Hold
	max   int
	auto  bool
	start time.Time    // what until counts from, by the monotonic clock
	until atomic.Int64 // nanoseconds
}

// NewLease describes the lease on node, or on the lowest free ID up to max if
// node is negative. Nothing is held before Hold.
func (s *Store) NewLease(node, max int, log *slog.Logger) *Lease {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return &Lease{
		store: s, log: log, node: node, max: max, auto: node < 0, start: time.Now(),
		// Readable: it is what a refused process shows to its operator.
		token: fmt.Sprintf("host %s, pid %d, since %s, %s",
			host, os.Getpid(), time.Now().UTC().Format(time.RFC3339), rand.Text()[:8]),
	}
}

// Held reports whether the lease is certainly ours: Redis confirmed it less
// than its TTL ago.
func (l *Lease) Held() bool { return time.Since(l.start) < time.Duration(l.until.Load()) }

// Hold takes the lease, waiting while Redis is away, and renews it until ctx
// ends; then it gives the ID back. It calls acquired with the node ID before
// Held reports true.
//
// A lease that is lost, to an outage longer than its TTL, is taken back as soon
// as it is free; an automatic one becomes another free ID, and acquired is
// called again. Hold fails with ErrNodeTaken or ErrClockBehind, at the start
// only, and with an error of acquired.
func (l *Lease) Hold(ctx context.Context, acquired func(node int) error) error {
	for {
		err := l.begin(ctx, acquired)
		if err == nil {
			break
		}
		if ctx.Err() != nil { // while it waited, for Redis or the clock: no failure
			return nil
		}
		if !errors.Is(err, link.ErrUnavailable) {
			return err
		}
		sleep(ctx, leaseRetryEvery)
	}
	l.renew(ctx, acquired)
	l.release()
	return nil
}

// begin acquires the lease and puts it to use.
func (l *Lease) begin(ctx context.Context, acquired func(node int) error) error {
	if err := l.acquire(ctx); err != nil {
		return err
	}
	err := l.awaitClock(ctx)
	if err == nil {
		err = acquired(l.node)
	}
	if err == nil {
		var holder string
		if holder, err = l.claim(ctx); err == nil && holder != l.token {
			err = fmt.Errorf("node %d was lost to %s on the way: %w", l.node, holder, link.ErrUnavailable)
		}
	}
	if err == nil {
		err = l.use(ctx)
	}
	if err != nil {
		l.release()
		return err
	}
	l.log.Info("node ID held", "node", l.node)
	return nil
}

// awaitClock waits until this machine's clock is past the high-water mark, if
// it is near.
func (l *Lease) awaitClock(ctx context.Context) error {
	high, err := l.store.client.Get(ctx, l.clockKey()).Int64()
	if errors.Is(err, redis.Nil) {
		return nil
	}
	if err != nil {
		return l.store.unavailable(metrics.OpLease, &l.store.leasing, err)
	}
	behind := time.Until(time.UnixMilli(high))
	if behind > clockWait {
		return fmt.Errorf("%w by %s: node %d has minted codes until %s; set the clock, or use another NODE_ID",
			ErrClockBehind, behind.Round(time.Second), l.node, time.UnixMilli(high).UTC().Format(time.RFC3339))
	}
	if behind > 0 {
		l.log.Warn("the clock is behind: waiting", "node", l.node, "for", behind.Round(time.Millisecond).String())
		sleep(ctx, behind)
	}
	return ctx.Err()
}

func (l *Lease) acquire(ctx context.Context) error {
	if !l.auto {
		holder, err := l.claim(ctx)
		if err == nil && holder != l.token {
			err = fmt.Errorf("%w: %d is held by %s", ErrNodeTaken, l.node, holder)
		}
		return err
	}
	for l.node = 0; l.node <= l.max; l.node++ {
		holder, err := l.claim(ctx)
		if err != nil || holder == l.token {
			return err
		}
	}
	return fmt.Errorf("%w: none of 0 to %d is free", ErrNodeTaken, l.max)
}

// renew extends the lease until ctx ends.
func (l *Lease) renew(ctx context.Context, acquired func(node int) error) {
	lost := false
	for sleep(ctx, leaseRenewEvery) {
		holder, err := l.claim(ctx)
		switch {
		case err == nil && holder == l.token:
			err = l.use(ctx)
		case err == nil:
			l.until.Store(0)
		}
		switch held := l.Held(); {
		case !held && !lost:
			lost = true
			l.log.Error("node ID lost: creates answer 503 until one is ours", "node", l.node, "holder", holder, "err", err)
		case held && lost:
			lost = false
			l.log.Info("node ID is ours again", "node", l.node)
		}
		if lost && err == nil && l.auto {
			if err := l.begin(ctx, acquired); err != nil {
				l.log.Error("no other node ID either", "err", err)
				continue
			}
			lost = false
		}
	}
}

// claim asks for the lease and returns the token of whoever has it now.
func (l *Lease) claim(ctx context.Context) (holder string, err error) {
	l.asked = time.Since(l.start) // before asking: Redis counts from some time after
	holder, err = claim.Run(ctx, l.store.client, []string{l.key()}, l.token, leaseTTL.Milliseconds()).Text()
	if err != nil {
		return "", l.store.unavailable(metrics.OpLease, &l.store.leasing, err)
	}
	l.store.leasing.ended()
	return holder, nil
}

// use extends Held to the end of the lease just claimed, once Redis knows that
// times until then are used.
func (l *Lease) use(ctx context.Context) error {
	until := l.asked + leaseTTL - leaseMargin
	high := time.Now().Add(until - time.Since(l.start))
	if err := raise.Run(ctx, l.store.client, []string{l.clockKey()}, high.UnixMilli()).Err(); err != nil {
		return l.store.unavailable(metrics.OpLease, &l.store.leasing, err)
	}
	l.until.Store(int64(until))
	return nil
}

// release gives the node ID back, so that the next process need not wait for
// the lease to run out. That it does, where Redis is away. The mark goes first,
// while nobody else may set it.
func (l *Lease) release() {
	held := l.Held()
	l.until.Store(0)
	ctx := context.Background()
	var err error
	if held {
		err = lower.Run(ctx, l.store.client, []string{l.clockKey()}, time.Now().UnixMilli()).Err()
	}
	if err == nil {
		err = release.Run(ctx, l.store.client, []string{l.key()}, l.token).Err()
	}
	if err != nil {
		l.log.Warn("node ID not given back: it is free when its lease runs out", "node", l.node, "after", leaseTTL.String(), "err", err)
	}
}

func (l *Lease) key() string      { return "node:" + strconv.Itoa(l.node) }
func (l *Lease) clockKey() string { return l.key() + ":clock" }

// sleep waits for d and reports whether it did so before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
