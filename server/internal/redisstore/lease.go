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

	"snowlink/server/internal/metrics"
)

// ErrNodeTaken reports that another process holds the node ID, or all of them.
// Its text names the holder.
var ErrNodeTaken = errors.New("node ID is taken")

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
)

// claim takes node:<id> if it is free, extends it if it is ours, and returns
// the holder's token either way. One key, one script: atomic, Cluster included.
var claim = redis.NewScript(`
local holder = redis.call("GET", KEYS[1])
if holder and holder ~= ARGV[1] then
  return holder
end
redis.call("SET", KEYS[1], ARGV[1], "PX", ARGV[2])
return ARGV[1]`)

// release gives node:<id> back if it is still ours.
var release = redis.NewScript(`
if redis.call("GET", KEYS[1]) == ARGV[1] then
  return redis.call("DEL", KEYS[1])
end
return 0`)

// Lease is the exclusive use of one node ID. It is what keeps two backends
// from minting the same code; SET NX is the fence where a lease cannot be.
// Held may be called concurrently with Hold.
type Lease struct {
	store *Store
	log   *slog.Logger
	token string
	node  int // owned by Hold
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

// Hold takes the lease, waiting while Redis is away, calls acquired with the
// node ID, and renews until ctx ends; then it gives the ID back. A lease that was lost, to an outage longer than its TTL, is taken
// back as soon as it is free. Hold fails with ErrNodeTaken, at once, if another
// process holds the ID at the start, and with the error of acquired.
func (l *Lease) Hold(ctx context.Context, acquired func(node int) error) error {
	for {
		err := l.acquire(ctx)
		if err == nil {
			break
		}
		if errors.Is(err, ErrNodeTaken) {
			return err
		}
		if !sleep(ctx, leaseRetryEvery) {
			return nil
		}
	}
	err := acquired(l.node)
	if err == nil {
		l.log.Info("node ID held", "node", l.node)
		l.renew(ctx)
	}
	l.release()
	return err
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
func (l *Lease) renew(ctx context.Context) {
	lost := false
	for sleep(ctx, leaseRenewEvery) {
		holder, err := l.claim(ctx)
		if err == nil && holder != l.token {
			l.until.Store(0)
		}
		switch held := l.Held(); {
		case !held && !lost:
			lost = true
			l.log.Error("node ID lost: creates answer 503 until it is ours again", "node", l.node, "holder", holder, "err", err)
		case held && lost:
			lost = false
			l.log.Info("node ID is ours again", "node", l.node)
		}
	}
}

// claim asks for the lease and returns the token of whoever has it now.
func (l *Lease) claim(ctx context.Context) (holder string, err error) {
	asked := time.Since(l.start) // before asking: Redis counts from some time after
	holder, err = claim.Run(ctx, l.store.client, []string{l.key()}, l.token, leaseTTL.Milliseconds()).Text()
	if err != nil {
		return "", l.store.unavailable(metrics.OpLease, &l.store.outage, err)
	}
	l.store.outage.ended()
	if holder == l.token {
		l.until.Store(int64(asked + leaseTTL - leaseMargin))
	}
	return holder, nil
}

// release gives the node ID back, so that the next process need not wait for
// the lease to run out. That it does, where Redis is away.
func (l *Lease) release() {
	l.until.Store(0)
	if err := release.Run(context.Background(), l.store.client, []string{l.key()}, l.token).Err(); err != nil {
		l.log.Warn("node ID not given back: it is free when its lease runs out", "node", l.node, "after", leaseTTL.String(), "err", err)
	}
}

func (l *Lease) key() string { return "node:" + strconv.Itoa(l.node) }

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
