package redisstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/metrics"
)

// ErrVersion reports a Redis too old for SET with NX and GET, on which every
// create rests.
var ErrVersion = errors.New("this needs Redis 7.0 or newer, or Valkey")

const (
	watchEvery = 5 * time.Second
	// nearlyFull is the share of maxmemory from which a Redis counts as degraded.
	nearlyFull = 0.9
	// evictionQuiet is how long nothing must be evicted for evicting to be over.
	evictionQuiet = time.Minute
)

// Watcher looks at the memory of Redis now and then: eviction is never silent, and
// of a journal it would take all at once, so that is kept from looking idle. Full
// may be called concurrently with Watch.
type Watcher struct {
	store  *Store
	owners func() []string
	log    *slog.Logger
	full   atomic.Bool

	evicted   uint64    // when last seen
	evictedAt time.Time // when it last grew; zero while it rests
	untouched bool      // the journals, the last time
}

// NewWatcher makes a Watcher that keeps the journals of those whom owners returns.
// It does nothing before Watch.
func (s *Store) NewWatcher(owners func() []string, log *slog.Logger) *Watcher {
	return &Watcher{store: s, owners: owners, log: log}
}

// Full reports whether Redis holds more than nine tenths of what it may.
func (w *Watcher) Full() bool { return w.full.Load() }

// Watch looks until ctx ends. It says once what Redis runs and what that means
// for links, and then whenever links begin and cease to be evicted. It fails
// with ErrVersion, which says what was found.
func (w *Watcher) Watch(ctx context.Context) error {
	for first := true; ; {
		state, err := w.store.inspect(ctx)
		switch {
		case err != nil: // an outage, which others log
		case first:
			first = false
			if err := checkVersion(state.version); err != nil {
				return err
			}
			w.evicted = state.evicted
			w.log.Info("redis", "version", state.version, "maxmemory_policy", state.policy, "maxmemory", state.max, "meaning", meaning(state))
			if state.forgets {
				w.log.Warn("redis writes no append-only file (appendonly yes): when it ends, links are lost back to its last snapshot")
			}
			// Whether it takes NO-TOUCH is known from the first connection on. Without LRU and LFU nothing depends on it.
			lru := strings.HasSuffix(state.policy, "-lru") || strings.HasSuffix(state.policy, "-lfu")
			if err := w.store.aside.Ping(ctx).Err(); err == nil && lru && w.store.touches.Load() {
				w.log.Warn("lists, exports and look-ups of imports make links look used, so that redis may evict others that are: it has no CLIENT NO-TOUCH, as Redis 7.2 and newer and Valkey have, or does not allow it")
			}
			fallthrough
		default:
			w.saw(state)
			w.keepJournals(ctx)
		}
		if !sleep(ctx, watchEvery) {
			return nil
		}
	}
}

func (w *Watcher) saw(state redisState) {
	w.store.metrics.RedisMemory(metrics.Memory{Used: state.used, Max: state.max, Evicted: state.evicted})
	w.full.Store(state.max > 0 && float64(state.used) > nearlyFull*float64(state.max))
	switch now := time.Now(); {
	case state.evicted > w.evicted:
		if w.evictedAt.IsZero() {
			what := "redis evicts links: those least recently read are gone for good"
			if strings.HasPrefix(state.policy, "volatile-") {
				what = "redis evicts what has a time to live, and soon refuses new links"
			}
			w.log.Warn(what, "evicted_keys", state.evicted, "used", state.used, "maxmemory", state.max)
		}
		w.evictedAt = now
	case !w.evictedAt.IsZero() && now.Sub(w.evictedAt) > evictionQuiet:
		w.evictedAt = time.Time{}
		w.log.Info("redis evicts no more", "evicted_keys", state.evicted)
	}
	w.evicted = state.evicted // less than before means another Redis, after a failover
}

func (w *Watcher) keepJournals(ctx context.Context) {
	err := w.store.touchJournals(ctx, w.owners())
	if err != nil && !w.untouched {
		w.log.Warn("cannot keep the journals from being evicted, without which no links are listed", "err", err)
	}
	w.untouched = err != nil
}

// redisState is what INFO tells; of a Cluster, the sum over its masters.
type redisState struct {
	version, policy    string
	used, max, evicted uint64
	forgets            bool // it says that it writes no append-only file
}

// inspect asks for INFO.
func (s *Store) inspect(ctx context.Context) (redisState, error) {
	var total redisState
	add := func(ctx context.Context, client redis.Cmdable) error {
		info, err := client.Info(ctx).Result() // before 7.0 it takes no list of sections
		if err != nil {
			return s.unavailable(metrics.OpPing, &s.outage, err)
		}
		s.outage.ended()
		one := parseInfo(info)
		total.version, total.policy = one.version, one.policy
		total.forgets = total.forgets || one.forgets
		total.used, total.max, total.evicted = total.used+one.used, total.max+one.max, total.evicted+one.evicted
		return nil
	}
	if cluster, ok := s.client.(*redis.ClusterClient); ok {
		var mu sync.Mutex
		err := cluster.ForEachMaster(ctx, func(ctx context.Context, client *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			return add(ctx, client)
		})
		return total, err
	}
	err := add(ctx, s.client)
	return total, err
}

func parseInfo(info string) redisState {
	fields := make(map[string]string)
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	number := func(name string) uint64 {
		n, _ := strconv.ParseUint(fields[name], 10, 64) // 0 where it is not told
		return n
	}
	return redisState{
		version: fields["redis_version"], policy: fields["maxmemory_policy"],
		used: number("used_memory"), max: number("maxmemory"), evicted: number("evicted_keys"),
		forgets: fields["aof_enabled"] == "0",
	}
}

// checkVersion takes what does not tell its version, as some proxies do not.
func checkVersion(version string) error {
	major, err := strconv.Atoi(strings.SplitN(version, ".", 2)[0])
	if err == nil && major < 7 {
		return fmt.Errorf("%w; it found %s", ErrVersion, version)
	}
	return nil
}

// meaning is what a full Redis does to links, in words.
func meaning(state redisState) string {
	switch {
	case state.max == 0:
		return "memory has no bound: links stay until the machine is full"
	case strings.HasPrefix(state.policy, "allkeys-"):
		return "when full, Redis evicts links, and an evicted link is gone"
	case strings.HasPrefix(state.policy, "volatile-"):
		return "when full, Redis evicts what has a time to live: links that expire, deleted codes, which can be taken again then, " +
			"promises of Idempotency-Key, rates of API keys, and leases of node IDs; with none of those left it refuses new links and keeps the old ones"
	case state.policy == "noeviction":
		return "when full, Redis refuses new links and keeps the old ones"
	default:
		return "when full, Redis refuses new links or evicts old ones: it does not say which"
	}
}
