package redisstore_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/nodelease"
)

// Under noeviction a full Redis refuses links, and a create must report that (507). It must not
// report that the node ID was lost meanwhile.
func TestNodeLeaseNeedsNoRoom(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t, "maxmemory 1", "maxmemory-policy noeviction")
	store := open(t, "redis://"+r.Addr, quiet)
	lease := nodelease.New(store.conn, 1, 1, quiet)
	stop := fleettest.Background(t, lease.Hold)
	fleettest.Eventually(t, 20*time.Second, "the lease is held", lease.Held)
	if err := store.Create(t.Context(), "o", "a", link.Link{Target: "https://example.com/"}); !errors.Is(err, link.ErrFull) {
		t.Errorf("Create = %v, want ErrFull", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	admin := fleettest.RedisClient(t, r.Addr)
	if n, err := admin.Exists(t.Context(), "node:1").Result(); n != 0 || err != nil {
		t.Errorf("the lease is still there: %d, %v", n, err)
	}
}

// Redis answers, but refuses. The log says why, once. When an operator has mended it, the lease
// comes without a restart.
func TestLeaseSaysWhatRedisRefuses(t *testing.T) {
	for _, tt := range []struct {
		name     string
		password string // in REDIS_URL
		spoil    func(t *testing.T, admin *redis.Client)
		want     string // in the log
		remedy   []any
	}{
		{"wrong password", "another", func(t *testing.T, admin *redis.Client) {
			admin.ConfigSet(t.Context(), "requirepass", "secret")
		}, "WRONGPASS", []any{"config", "set", "requirepass", "another"}},
		{"no password", "", func(t *testing.T, admin *redis.Client) {
			admin.ConfigSet(t.Context(), "requirepass", "secret")
		}, "NOAUTH", []any{"config", "set", "requirepass", ""}},
		{"read-only replica", "", func(t *testing.T, admin *redis.Client) {
			host, port, _ := net.SplitHostPort(fleettest.Redis(t).Addr)
			admin.Do(t.Context(), "replicaof", host, port)
		}, "READONLY", []any{"replicaof", "no", "one"}},
		{"a master no replica hears", "", func(t *testing.T, admin *redis.Client) {
			admin.ConfigSet(t.Context(), "min-replicas-to-write", "1")
		}, "NOREPLICAS", []any{"config", "set", "min-replicas-to-write", "0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := fleettest.Redis(t)
			admin := fleettest.RedisClient(t, r.Addr)
			tt.spoil(t, admin)
			var log fleettest.Output
			store := open(t, "redis://:"+tt.password+"@"+r.Addr, slog.New(slog.NewTextHandler(&log, nil)))
			lease := nodelease.New(store.conn, 1, 1, quiet)
			fleettest.Background(t, lease.Hold)
			errorsSeen := func() int { return strings.Count(log.String(), tt.want) }
			fleettest.Eventually(t, 20*time.Second, "the log says why", func() bool {
				_ = store.Ping(t.Context()) // which a replica answers: that is no end of this
				return errorsSeen() > 0 && strings.Contains(log.String(), "still unavailable")
			})
			if n := strings.Count(log.String(), "\n"); n > 5 {
				t.Errorf("%d lines in 5 s:\n%s", n, &log)
			}
			if lease.Held() {
				t.Error("the lease is held")
			}

			// The connection of before may do what one with the new password may not.
			if err := admin.Do(t.Context(), tt.remedy...).Err(); err != nil {
				t.Fatal(err)
			}
			fleettest.Eventually(t, 20*time.Second, "the lease is held", lease.Held)
		})
	}
}

// While Redis reads its data it answers LOADING, to everything: an outage, never a missing link.
func TestLoadingIsAnOutage(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t, "appendfsync always", // or what it has it may not have written yet
		"key-load-delay 100") // microseconds; it listens every 1,024 keys
	admin := fleettest.RedisClient(t, r.Addr)
	pipe := admin.Pipeline()
	for i := range 20_000 {
		pipe.Set(t.Context(), fmt.Sprintf("link:%d", i), "https://example.com/", 0)
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Kill()
	store := open(t, "redis://"+r.Addr, quiet)
	lease := nodelease.New(store.conn, 1, 1, quiet)
	fleettest.Background(t, lease.Hold)
	started := make(chan error, 1)
	go func() { started <- r.Start(t.Context()) }()
	loading := false
	fleettest.Eventually(t, 20*time.Second, "the last link is there", func() bool {
		_, err := store.Get(t.Context(), "19999")
		if errors.Is(err, link.ErrNotFound) {
			t.Fatalf("a link that is being read = %v", err)
		}
		loading = loading || redis.IsLoadingError(err)
		return err == nil
	})
	if err := <-started; err != nil || !loading {
		t.Errorf("it was loading: %t; %v", loading, err)
	}
	fleettest.Eventually(t, 20*time.Second, "the lease is held", lease.Held)
}

// A Sentinel answers nil if it does not know the master, because it was set up anew or the name is
// wrong. That is no answer about a link.
func TestSentinelWithoutTheMasterIsAnOutage(t *testing.T) {
	t.Parallel()
	f := fleettest.Start(t, fleet.Options{NoBackends: true, NoNginx: true, Sentinel: true})
	url := strings.Replace(f.Sentinel.URL(), "master_name=", "master_name=not-", 1)
	var log fleettest.Output
	store := open(t, url, slog.New(slog.NewTextHandler(&log, nil)))
	for range 30 { // go-redis answers from the last error when there were many
		if _, err := store.Get(t.Context(), "a"); !errors.Is(err, link.ErrUnavailable) {
			t.Errorf("Get = %v, want ErrUnavailable", err)
		}
		if err := store.Create(t.Context(), "o", "a", link.Link{Target: "https://example.com/"}); !errors.Is(err, link.ErrUnavailable) {
			t.Errorf("Create = %v, want ErrUnavailable", err)
		}
	}
	if !strings.Contains(log.String(), "no Sentinel knows of the master") {
		t.Errorf("the log does not say why:\n%s", &log)
	}
}

// If Redis becomes full between a link and its entry in the journal, the link is stored: that is no
// refusal.
func TestFullForTheJournalAloneCannotTell(t *testing.T) {
	l := link.Link{Target: "https://example.com/"}
	chosen := link.Link{Target: l.Target, Options: &link.Options{Created: time.UnixMilli(1), Nonce: 1}}
	for name, create := range map[string]func(*testing.T, testStore) []error{
		"Create": func(t *testing.T, s testStore) []error { return []error{s.Create(t.Context(), "o", "last", l)} },
		"Create of a chosen": func(t *testing.T, s testStore) []error {
			return []error{s.Create(t.Context(), "o", "last", chosen)}
		},
		"CreateAll": func(t *testing.T, s testStore) []error {
			return s.CreateAll(t.Context(), "o", []link.Coded{{Code: "first", Link: l}, {Code: "last", Link: chosen}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := fleettest.Redis(t)
			client := fleettest.RedisClient(t, r.Addr)
			stored := func() bool { return client.Exists(t.Context(), "link:last").Val() == 1 }
			store := open(t, "redis://"+fleettest.Proxy(t, r.Addr, fleettest.FullBefore(t, r.Addr, "xadd", stored)), quiet)
			for _, err := range create(t, store) {
				if !errors.Is(err, link.ErrUnavailable) || errors.Is(err, link.ErrFull) || !redis.IsOOMError(err) {
					t.Errorf("it is stored, and the answer is %v, want ErrUnavailable alone, for want of room", err)
				}
			}
			if !stored() {
				t.Error("it is not stored")
			}
			if err := client.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
