package redisstore_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"snowlink/internal/embedded"
	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/link/linktest"
	"snowlink/internal/redisconn"
	"snowlink/internal/redisstore"
)

// quiet is the log of tests that do not look at it.
var quiet = slog.New(slog.DiscardHandler)

// A testStore is a Store and its connections.
type testStore struct {
	*redisstore.Store
	conn *redisconn.Conn
}

func (s testStore) Ping(ctx context.Context) error { return s.conn.Ping(ctx) }

func open(t testing.TB, url string, log *slog.Logger) testStore {
	t.Helper()
	return openWith(t, url, log, redisstore.Options{JournalMax: 1000})
}

func openWith(t testing.TB, url string, log *slog.Logger, o redisstore.Options) testStore {
	t.Helper()
	conn := fleettest.Conn(t, url, log)
	return testStore{redisstore.New(conn, o), conn}
}

func TestStoreContract(t *testing.T) {
	t.Run("redis-server", func(t *testing.T) {
		linktest.Store(t, open(t, "redis://"+fleettest.Redis(t).Addr, quiet), "x")
	})
	t.Run("redis-server by its socket", func(t *testing.T) {
		socket := filepath.Join(t.TempDir(), "redis.sock")
		fleettest.Redis(t, "unixsocket "+socket)
		linktest.Store(t, open(t, "unix://"+socket, quiet), "x")
	})
	t.Run("Redis Cluster", func(t *testing.T) {
		cluster := fleettest.Start(t, fleet.Options{NoBackends: true, NoNginx: true, Cluster: true}).Cluster
		linktest.Store(t, open(t, cluster.URL(), quiet), "x")
	})
	t.Run("embedded", func(t *testing.T) {
		r, err := embedded.Start()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		linktest.Store(t, open(t, r.URL(), quiet), "x")
	})
}

func TestRecordIsTheTargetAndReadsWell(t *testing.T) {
	addr := fleettest.Redis(t).Addr
	store := open(t, "redis://"+addr, quiet)
	client := fleettest.RedisClient(t, addr)
	ctx := t.Context()

	for owner, want := range map[string]string{link.DefaultOwner: "https://example.com/", "shop": "https://example.com/\n{\"o\":\"shop\"}"} {
		if err := store.Create(ctx, owner, owner, link.Link{Target: "https://example.com/"}); err != nil {
			t.Fatal(err)
		}
		if got, err := client.Get(ctx, "link:"+owner).Result(); got != want || err != nil {
			t.Errorf("GET link:%s = %q, %v, want %q", owner, got, err, want)
		}
	}
	// A later version's options are not part of the target.
	client.Set(ctx, "link:opt", "https://example.com/\n{\"title\":\"x\"}", 0)
	if got, err := store.Get(ctx, "opt"); got.Target != "https://example.com/" || err != nil {
		t.Errorf("Get = %+v, %v", got, err)
	}
}

func TestOutageIsNeverNotFoundAndEndsByItself(t *testing.T) {
	r := fleettest.Redis(t)
	var log fleettest.Output
	store := open(t, "redis://"+r.Addr, slog.New(slog.NewTextHandler(&log, nil)))
	ctx := t.Context()
	l := link.Link{Target: "https://example.com/"}
	if err := store.Create(ctx, "o", "a", l); err != nil {
		t.Fatal(err)
	}

	r.Kill()
	for name, op := range map[string]func() error{
		"Get":    func() error { _, err := store.Get(ctx, "none"); return err },
		"Create": func() error { return store.Create(ctx, "o", "b", l) },
		"Ping":   func() error { return store.Ping(ctx) },
	} {
		started := time.Now()
		err := op()
		if !errors.Is(err, link.ErrUnavailable) || errors.Is(err, link.ErrNotFound) {
			t.Errorf("%s with Redis away = %v, want ErrUnavailable alone", name, err)
		}
		if took := time.Since(started); took > nginxWaits {
			t.Errorf("%s with Redis away took %s", name, took)
		}
	}

	if err := r.Start(ctx); err != nil {
		t.Fatal(err)
	}
	fleettest.Eventually(t, 20*time.Second, "the store works again", func() bool { return store.Create(ctx, "o", "c", l) == nil && store.Ping(ctx) == nil })
	for _, of := range []string{"redis", "\"redis writes\""} {
		down, up := "msg=unavailable of="+of, "msg=back of="+of
		fleettest.Eventually(t, 20*time.Second, up, func() bool { return strings.Contains(log.String(), up) })
		if got := log.String(); strings.Count(got, down) != 1 || strings.Index(got, down) > strings.Index(got, up) {
			t.Errorf("want %q once, then %q, got:\n%s", down, up, got)
		}
	}
}

// If some requests fail and others do not, the log must not grow with them.
func TestOutageThatComesAndGoesIsOne(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t, "maxmemory-policy noeviction")
	client := fleettest.RedisClient(t, r.Addr)
	var log fleettest.Output
	store := open(t, "redis://"+r.Addr, slog.New(slog.NewTextHandler(&log, nil)))
	l := link.Link{Target: "https://example.com/"}
	for i := range 20 {
		for limit, want := range map[string]error{"1": link.ErrFull, "0": nil} {
			if err := client.ConfigSet(t.Context(), "maxmemory", limit).Err(); err != nil {
				t.Fatal(err)
			}
			if err := store.Create(t.Context(), "o", strconv.Itoa(i), l); !errors.Is(err, want) {
				t.Errorf("Create with maxmemory %s = %v, want %v", limit, err, want)
			}
		}
	}
	if got := log.String(); !strings.Contains(got, "msg=unavailable") || strings.Contains(got, "msg=back") || strings.Count(got, "\n") > 5 {
		t.Errorf("20 outages within a moment are one, got:\n%s", got)
	}
	if err := client.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if err := store.Create(t.Context(), "o", "last", l); err != nil {
		t.Fatal(err)
	}
	fleettest.Eventually(t, 20*time.Second, "the log says that it is over", func() bool { return strings.Contains(log.String(), "msg=back") })
}

// nginxWaits is how long Nginx waits for a backend. An operation must fail before. It should take
// redisconn.OperationTime, a little over half of that, but a busy machine cannot prove it.
const nginxWaits = 2 * time.Second

// However many ask, and whenever, nobody waits longer than Nginx would.
func TestSilentRedisDoesNotHoldRequestsLong(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	store := open(t, "redis://"+r.Addr, quiet)
	if err := store.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Pause()
	defer r.Resume()
	ctx := context.WithoutCancel(t.Context()) // as requests have
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			started := time.Now()
			_, err := store.Get(ctx, "a")
			if i%2 == 0 {
				err = store.Create(ctx, "o", strconv.Itoa(i), link.Link{Target: "https://example.com/"})
			}
			if !errors.Is(err, link.ErrUnavailable) || errors.Is(err, link.ErrNotFound) {
				t.Errorf("a paused Redis: %v, want ErrUnavailable alone", err)
			}
			if took, calls := time.Since(started), time.Duration(2-i%2); took > calls*nginxWaits {
				t.Errorf("%d calls took %s", calls, took)
			}
		})
		time.Sleep(50 * time.Millisecond) // they come when they come
	}
	wg.Wait()
}

// Redis can refuse writes alone, because it is full or a replica. Reads go on, and do not end the
// outage of writes.
func TestRefusedWritesAreOneOutage(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t, "maxmemory 1", "maxmemory-policy noeviction")
	var log fleettest.Output
	store := open(t, "redis://"+r.Addr, slog.New(slog.NewTextHandler(&log, nil)))
	for range 5 {
		if err := store.Create(t.Context(), "o", "a", link.Link{Target: "https://example.com/"}); !errors.Is(err, link.ErrFull) {
			t.Errorf("Create = %v, want ErrFull", err)
		}
		if _, err := store.Get(t.Context(), "a"); !errors.Is(err, link.ErrNotFound) {
			t.Errorf("Get = %v, want ErrNotFound", err)
		}
	}
	if got := log.String(); strings.Count(got, "\n") != 1 {
		t.Errorf("want one line, got:\n%s", got)
	}
}
