package redisstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"snowlink/internal/deadline"
	"snowlink/internal/redisconn"
)

// ErrVersion reports that Redis is too old for SET with NX and GET, which every create uses.
var ErrVersion = errors.New("this needs Redis 7.0 or newer, or Valkey")

const (
	watchEvery = 5 * time.Second
	// nearlyFull is the share of maxmemory above which Redis counts as degraded. In front of an
	// archive it is the share of what has no time to live, since Redis is full then as a rule.
	nearlyFull        = 0.9
	nearlyFullOfLinks = "Redis is nearly full: it holds more than 90 % of maxmemory"
	// evictionQuiet is how long Redis must evict nothing before that counts as over.
	evictionQuiet = time.Minute
)

// Watcher looks at the memory of Redis now and then, so that eviction is never silent. It also
// keeps journals from looking idle: Redis evicts a key whole, and a journal is one key. Degraded may
// be called concurrently with Watch.
type Watcher struct {
	store  *Store
	owners func() []string
	log    *slog.Logger
	// degraded is why Redis needs attention; "" if it does not.
	degraded atomic.Pointer[string]

	used, max, evictedKeys prometheus.Gauge // evictedKeys is no counter, since a failover may set it back

	evicted   uint64    // keys, when Watch looked last
	evictedAt time.Time // when evicted last grew; zero while nothing is evicted
	untouched bool      // the journals could not be touched the last time
}

// NewWatcher makes a Watcher that keeps the journals of those whom owners returns. It does nothing
// before Watch. Its gauges are registered with reg.
func (s *Store) NewWatcher(owners func() []string, log *slog.Logger, reg prometheus.Registerer) *Watcher {
	gauge := func(name, help string) prometheus.Gauge {
		return promauto.With(reg).NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	return &Watcher{
		store: s, owners: owners, log: log,
		used:        gauge("snowlink_redis_memory_used_bytes", "Memory that Redis uses."),
		max:         gauge("snowlink_redis_memory_max_bytes", "maxmemory of Redis; 0 for no bound."),
		evictedKeys: gauge("snowlink_redis_evicted_keys", "Keys that Redis has evicted since it started."),
	}
}

// Degraded says why the operator should attend to Redis, as of when Watch looked last, or returns
// "".
func (w *Watcher) Degraded() string {
	if reason := w.degraded.Load(); reason != nil {
		return *reason
	}
	return ""
}

// Watch looks until ctx ends. It logs once what Redis runs and what that means for links, and then
// whenever Redis begins and ceases to evict. It fails with ErrVersion, which says what was found.
func (w *Watcher) Watch(ctx context.Context) error {
	for first := true; ; {
		state, err := w.store.conn.Info(ctx)
		switch {
		case err != nil: // an outage, which others log
		case first:
			first = false
			if err := checkVersion(state.Version); err != nil {
				return err
			}
			w.evicted = state.Evicted
			w.log.Info("redis", "version", state.Version, "maxmemory_policy", state.Policy, "maxmemory", state.Max, "meaning", w.meaning(state))
			w.warnOfState(state)
			if state.NoPersistence {
				w.log.Warn("redis writes no append-only file (appendonly yes): when it ends, links are lost back to its last snapshot")
			}
			// Only eviction by LRU and LFU depends on NO-TOUCH.
			lru := strings.HasSuffix(state.Policy, "-lru") || strings.HasSuffix(state.Policy, "-lfu")
			if lru && w.store.conn.Touches(ctx) {
				w.log.Warn("lists, exports and look-ups of imports make links look used, so that redis may evict others that are: it has no CLIENT NO-TOUCH, as Redis 7.2 and newer and Valkey have, or does not allow it")
			}
			fallthrough
		default:
			w.saw(state)
			w.judge(ctx, state)
			w.keepJournals(ctx)
		}
		if !deadline.Sleep(ctx, watchEvery) {
			return nil
		}
	}
}

func (w *Watcher) saw(state redisconn.Info) {
	w.used.Set(float64(state.Used))
	w.max.Set(float64(state.Max))
	w.evictedKeys.Set(float64(state.Evicted))
	switch now := time.Now(); {
	case state.Evicted > w.evicted:
		if w.evictedAt.IsZero() {
			what := "redis evicts links: those least recently read are gone for good"
			if w.store.outbox != nil {
				what = "redis evicts links that are archived"
			} else if strings.HasPrefix(state.Policy, "volatile-") {
				what = "redis evicts what has a time to live, and soon refuses new links"
			}
			if w.store.noLinks {
				what = "redis evicts promises, rates and leases: set maxmemory-policy noeviction"
			}
			w.log.Warn(what, "evicted_keys", state.Evicted, "used", state.Used, "maxmemory", state.Max)
		}
		w.evictedAt = now
	case !w.evictedAt.IsZero() && now.Sub(w.evictedAt) > evictionQuiet:
		w.evictedAt = time.Time{}
		w.log.Info("redis evicts no more", "evicted_keys", state.Evicted)
	}
	w.evicted = state.Evicted // less than before means another Redis, after a failover
}

// judge decides whether Redis needs attention. The log says when that is about the archive; that a
// Redis without one is full, it says when links are evicted.
func (w *Watcher) judge(ctx context.Context, state redisconn.Info) {
	reason := ""
	used := float64(state.Used)
	full := state.Max > 0 && used > nearlyFull*float64(state.Max)
	policy := checkPolicy(state)
	switch archived := w.store.outbox != nil; {
	case w.store.noLinks:
		if full {
			reason = "the Redis at REDIS_STATE_URL is nearly full: it holds more than 90 % of maxmemory"
		}
	case !archived:
		if elsewhere, err := w.store.RemembersArchive(ctx); err == nil && elsewhere {
			reason = "Redis is in front of an archive, and this backend has no ARCHIVE_URL: restart it with one"
			break
		}
		if full {
			reason = nearlyFullOfLinks
		}
	case policy != nil:
		reason = policy.Error()
	case state.Max > 0 && state.Keys > 0 && used*float64(state.Keys-state.Expires)/float64(state.Keys) > nearlyFull*float64(state.Max):
		reason = "Redis is nearly full of what is not archived: more than 90 % of maxmemory"
	}
	if reason != w.Degraded() {
		if reason != "" && reason != nearlyFullOfLinks {
			w.log.Error("redis needs attention", "reason", reason)
		}
		w.degraded.Store(&reason)
	}
}

func (w *Watcher) keepJournals(ctx context.Context) {
	if w.store.noLinks {
		return
	}
	err := w.store.touchJournals(ctx, w.owners())
	if err != nil && !w.untouched {
		w.log.Warn("cannot keep the journals from being evicted, without which no links are listed", "err", err)
	}
	w.untouched = err != nil
}

// warnOfState warns of a Redis that may evict promises, rates and leases while links stay.
func (w *Watcher) warnOfState(state redisconn.Info) {
	evicts := strings.HasPrefix(state.Policy, "volatile-") || strings.HasPrefix(state.Policy, "allkeys-")
	switch {
	case !evicts:
	case w.store.noLinks:
		w.log.Warn("redis may evict promises of Idempotency-Key, rates of API keys and leases of node IDs: set maxmemory-policy noeviction at REDIS_STATE_URL")
	case w.store.outbox != nil && !w.store.elsewhere:
		w.log.Warn("redis is in front of an archive and may evict promises of Idempotency-Key, rates of API keys and leases of node IDs, " +
			"first of all while the archive is away: set REDIS_STATE_URL to a small Redis with maxmemory-policy noeviction")
	}
}

// checkVersion refuses a Redis that is too old. It takes one that does not tell its version, as
// some proxies do not.
func checkVersion(version string) error {
	major, err := strconv.Atoi(strings.SplitN(version, ".", 2)[0])
	if err == nil && major < 7 {
		return fmt.Errorf("%w; it found %s", ErrVersion, version)
	}
	return nil
}

// meaning says in words what happens when Redis is full.
func (w *Watcher) meaning(state redisconn.Info) string {
	if !w.store.noLinks {
		return meaning(state, w.store.outbox != nil)
	}
	if state.Policy == "noeviction" {
		return "when full, Redis refuses promises of Idempotency-Key and counts no rates; leases of node IDs go on"
	}
	return "this Redis keeps promises of Idempotency-Key, rates of API keys and leases of node IDs"
}

// meaning says in words what a full Redis does to links.
func meaning(state redisconn.Info, archived bool) string {
	switch {
	case state.Max == 0:
		return "memory has no bound: links stay until the machine is full"
	case archived && state.Policy == "noeviction":
		return "when full, Redis refuses new links; with volatile-lru it would make room for them, since old ones are archived"
	case archived && strings.HasPrefix(state.Policy, "volatile-"):
		return "when full, Redis evicts links that are archived; if none are, it refuses new links"
	case strings.HasPrefix(state.Policy, "allkeys-"):
		return "when full, Redis evicts links, and an evicted link is gone"
	case strings.HasPrefix(state.Policy, "volatile-"):
		return "when full, Redis evicts what has a time to live: links that expire, deleted codes, which can be taken again then, " +
			"promises of Idempotency-Key, rates of API keys, and leases of node IDs; with none of those left it refuses new links and keeps the old ones"
	case state.Policy == "noeviction":
		return "when full, Redis refuses new links and keeps the old ones"
	default:
		return "when full, Redis refuses new links or evicts old ones: it does not say which"
	}
}
