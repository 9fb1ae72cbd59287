package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/redisstore"
)

func noOwners() []string { return nil }

func TestEvictionIsNeverSilent(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t, "maxmemory 4mb")
	var log fleettest.Output
	store := open(t, "redis://"+r.Addr, slog.New(slog.NewTextHandler(&log, nil)))
	watcher := store.NewWatcher(noOwners, slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- watcher.Watch(ctx) }()
	fleettest.Eventually(t, 20*time.Second, "it says what the policy means", func() bool {
		return strings.Contains(log.String(), "allkeys-lru") && strings.Contains(log.String(), "evicted link is gone")
	})
	if watcher.Degraded() != "" {
		t.Error("full before anything was stored")
	}

	client := fleettest.RedisClient(t, r.Addr)
	pipe := client.Pipeline()
	for i := range 50_000 {
		pipe.Set(ctx, fmt.Sprintf("link:%d", i), "https://example.com/a/target/of/some/length", 0)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	fleettest.Eventually(t, 20*time.Second, "it says that links are evicted", func() bool { return strings.Contains(log.String(), "evicts links") })
	fleettest.Eventually(t, 20*time.Second, "it is full", func() bool { return strings.Contains(watcher.Degraded(), "nearly full") })
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Watch = %v", err)
	}
}

// A Redis that keeps links in memory alone looks like any other until it ends.
func TestRedisWithoutAppendOnlyFileIsPointedOut(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		appendonly string
		warned     bool
	}{{"no", true}, {"yes", false}} {
		t.Run(tt.appendonly, func(t *testing.T) {
			t.Parallel()
			r := fleettest.Redis(t, "appendonly "+tt.appendonly)
			var log fleettest.Output
			logger := slog.New(slog.NewTextHandler(&log, nil))
			watcher := open(t, "redis://"+r.Addr, logger).NewWatcher(noOwners, logger, prometheus.NewRegistry())
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- watcher.Watch(ctx) }()
			fleettest.Eventually(t, 20*time.Second, "it says what Redis runs", func() bool { return strings.Contains(log.String(), "maxmemory_policy") })
			cancel()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(log.String(), "no append-only file"); got != tt.warned {
				t.Errorf("appendonly %s: warned %t, want %t:\n%s", tt.appendonly, got, tt.warned, &log)
			}
		})
	}
}

// No Redis before 7.0 is installed here, so the test plays one that answers INFO.
func TestOldRedisIsRefused(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buf := make([]byte, 4096)
				for {
					n, err := conn.Read(buf)
					if err != nil {
						return
					}
					const info = "redis_version:6.2.14\r\nmaxmemory:0\r\n"
					for range strings.Count(string(buf[:n]), "*") { // as many answers as commands
						if strings.Contains(strings.ToLower(string(buf[:n])), "*1\r\n$4\r\ninfo\r\n") { // 6.2 takes no more
							fmt.Fprintf(conn, "$%d\r\n%s\r\n", len(info), info)
						} else {
							fmt.Fprint(conn, "-ERR unknown command\r\n")
						}
					}
				}
			}()
		}
	}()
	store := open(t, "redis://"+listener.Addr().String(), quiet)
	err = store.NewWatcher(noOwners, quiet, prometheus.NewRegistry()).Watch(t.Context())
	if !errors.Is(err, redisstore.ErrVersion) || !strings.Contains(err.Error(), "6.2.14") {
		t.Errorf("Watch = %v, want ErrVersion that says 6.2.14", err)
	}
}

func TestMeaningOfThePolicy(t *testing.T) {
	for _, tt := range []struct {
		policy   string
		max      uint64
		archived bool
		want     []string // in the log line
		not      string
	}{
		{"noeviction", 0, false, []string{"no bound"}, "evict"},
		{"allkeys-lru", 0, false, []string{"no bound"}, "evict"},
		{"noeviction", 1, false, []string{"refuses new links", "keeps the old"}, "evict"},
		{"allkeys-lru", 1, false, []string{"evicts links", "is gone"}, "refuses"},
		{"allkeys-lfu", 1, false, []string{"evicts links", "is gone"}, "refuses"},
		{"allkeys-random", 1, false, []string{"evicts links", "is gone"}, "refuses"},
		{"volatile-lru", 1, false, []string{"time to live", "links that expire", "deleted codes", "Idempotency-Key", "leases", "refuses new links"}, "evicts links"},
		{"volatile-ttl", 1, false, []string{"time to live", "leases", "refuses new links"}, "evicts links"},
		{"volatile-lru", 1, true, []string{"evicts links that are archived"}, "gone"},
		{"noeviction", 1, true, []string{"refuses new links", "volatile-lru"}, "evicts"},
		{"", 1, false, []string{"does not say which"}, "is gone"}, // as behind some proxies
	} {
		t.Run(fmt.Sprintf("%s, maxmemory %d, archived %t", tt.policy, tt.max, tt.archived), func(t *testing.T) {
			got := redisstore.Meaning(tt.policy, tt.max, tt.archived)
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("%q does not say %q", got, want)
				}
			}
			if strings.Contains(got, tt.not) {
				t.Errorf("%q says %q", got, tt.not)
			}
		})
	}
}

// In front of an archive a full Redis evicts promises, rates and leases first: the log says so,
// unless another Redis keeps them.
func TestWatcherWarnsOfEvictableState(t *testing.T) {
	r := fleettest.Redis(t, "maxmemory 64mb", "maxmemory-policy volatile-lru")
	for elsewhere, want := range map[bool]int{false: 1, true: 0} {
		var log fleettest.Output
		store := openWith(t, "redis://"+r.Addr, quiet, redisstore.Options{Archived: true, StateElsewhere: elsewhere})
		w := store.NewWatcher(noOwners, slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry())
		stop := fleettest.Background(t, w.Watch)
		fleettest.Eventually(t, 20*time.Second, "the watcher has looked", func() bool { return strings.Contains(log.String(), "meaning") })
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := strings.Count(log.String(), "REDIS_STATE_URL"); got != want {
			t.Errorf("elsewhere %t: %d lines name REDIS_STATE_URL, want %d:\n%s", elsewhere, got, want, &log)
		}
	}
}
