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

	"github.com/redis/go-redis/v9"

	"snowlink/loadtest/fleet"
	"snowlink/loadtest/fleet/fleettest"
	"snowlink/server/internal/embedded"
	"snowlink/server/internal/link"
	"snowlink/server/internal/link/linktest"
	"snowlink/server/internal/metrics"
	"snowlink/server/internal/redisstore"
)

func open(t *testing.T, url string, log *slog.Logger) *redisstore.Store {
	t.Helper()
	store, err := redisstore.Open(url, redisstore.Options{JournalMax: 1000}, log, metrics.New())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

func TestStoreContract(t *testing.T) {
	t.Run("redis-server", func(t *testing.T) {
		linktest.Store(t, open(t, "redis://"+fleettest.Redis(t).Addr, slog.New(slog.DiscardHandler)), "x")
	})
	t.Run("redis-server by its socket", func(t *testing.T) {
		socket := filepath.Join(t.TempDir(), "redis.sock")
		fleettest.Redis(t, "unixsocket "+socket)
		linktest.Store(t, open(t, "unix://"+socket, slog.New(slog.DiscardHandler)), "x")
	})
	t.Run("Redis Cluster", func(t *testing.T) {
		cluster := fleettest.Start(t, fleet.Options{NoBackends: true, NoNginx: true, Cluster: true}).Cluster
		linktest.Store(t, open(t, cluster.URL(), slog.New(slog.DiscardHandler)), "x")
	})
	t.Run("embedded", func(t *testing.T) {
		r, err := embedded.Start()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		linktest.Store(t, open(t, r.URL(), slog.New(slog.DiscardHandler)), "x")
	})
}

func TestRecordIsTheTargetAndReadsWell(t *testing.T) {
	addr := fleettest.Redis(t).Addr
	store := open(t, "redis://"+addr, slog.New(slog.DiscardHandler))
	client := redis.NewClient(&redis.Options{Addr: addr})
	defer client.Close()
	ctx := t.Context()

	if err := store.Create(ctx, "o", "abc", link.Link{Target: "https://example.com/"}); err != nil {
		t.Fatal(err)
	}
	if got, err := client.Get(ctx, "link:abc").Result(); got != "https://example.com/" || err != nil {
		t.Errorf("GET link:abc = %q, %v", got, err)
	}
	// A later version's options are not part of the target.
	client.Set(ctx, "link:opt", "https://example.com/\n{\"title\":\"x\"}", 0)
	if got, err := store.Get(ctx, "opt"); got.Target != "https://example.com/" || err != nil {
		t.Errorf("Get = %+v, %v", got, err)
	}
}

func TestOutageIsNeverNotFoundAndEndsByItself(t *testing.T) {
	r := fleettest.Redis(t)
	var log syncBuffer
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
		if took := time.Since(started); took > 1500*time.Millisecond {
			t.Errorf("%s with Redis away took %s, nearly as long as Nginx waits", name, took)
		}
	}

	if err := r.Start(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the store works again", func() bool { return store.Create(ctx, "o", "c", l) == nil && store.Ping(ctx) == nil })
	if got := log.String(); strings.Count(got, "msg=unavailable") != 2 || strings.Count(got, "msg=back") != 2 {
		t.Errorf("an outage must be one line at its start and one at its end, for reads and for writes, got:\n%s", got)
	}
}

// However many ask, and whenever, nobody waits as long as Nginx would (2 s).
func TestSilentRedisDoesNotHoldRequestsLong(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	store := open(t, "redis://"+r.Addr, slog.New(slog.DiscardHandler))
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
			if took, calls := time.Since(started), time.Duration(2-i%2); took > calls*1500*time.Millisecond {
				t.Errorf("%d calls took %s", calls, took)
			}
		})
		time.Sleep(50 * time.Millisecond) // they come when they come
	}
	wg.Wait()
}

// Redis can refuse writes alone: full, or a replica. Reads go on, and say
// nothing of it being over.
func TestRefusedWritesAreOneOutage(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t, "maxmemory 1", "maxmemory-policy noeviction")
	var log syncBuffer
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

func TestOpenRefusesWhatItCannotReadWithoutTheSecret(t *testing.T) {
	for _, url := range []string{
		"http://u:secret@localhost", "localhost:6379", "redis://u:secret@localhost:port",
		"redis://u:secret@localhost/?colour=red", "redis://u:secret@local host", "redis://u:secret@a,redis://u:secret@b:port:1/?x=%zz",
	} {
		t.Run(url, func(t *testing.T) {
			store, err := redisstore.Open(url, redisstore.Options{}, slog.New(slog.DiscardHandler), metrics.New())
			if err == nil {
				store.Close()
				t.Fatal("Open succeeded")
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}

// hold runs lease.Hold until the test ends or stop is called, which returns
// what Hold did.
func hold(t *testing.T, lease *redisstore.Lease) (acquired <-chan int, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	node, done := make(chan int, 8), make(chan error, 1)
	go func() { done <- lease.Hold(ctx, func(n int) error { node <- n; return nil }) }()
	stop = func() error { cancel(); err := <-done; done <- err; return err }
	t.Cleanup(func() { stop() })
	return node, stop
}

func TestNodeLease(t *testing.T) {
	r, err := embedded.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	store := open(t, r.URL(), slog.New(slog.DiscardHandler))
	newLease := func(node int) *redisstore.Lease { return store.NewLease(node, 3, slog.New(slog.DiscardHandler)) }

	first := newLease(1)
	acquired, stopFirst := hold(t, first)
	if node := <-acquired; node != 1 {
		t.Fatalf("acquired %d", node)
	}
	eventually(t, "the lease is held", first.Held)

	err = newLease(1).Hold(t.Context(), func(int) error { t.Error("a taken ID was acquired"); return nil })
	if !errors.Is(err, redisstore.ErrNodeTaken) || !strings.Contains(err.Error(), "pid ") {
		t.Errorf("a second holder of node 1 = %v, want ErrNodeTaken naming the first", err)
	}

	for _, want := range []int{0, 2, 3} { // the lowest that is free, 1 being taken
		acquired, _ := hold(t, newLease(-1))
		if node := <-acquired; node != want {
			t.Errorf("automatic ID = %d, want %d", node, want)
		}
	}
	if err := newLease(-1).Hold(t.Context(), nil); !errors.Is(err, redisstore.ErrNodeTaken) {
		t.Errorf("with all IDs taken: %v, want ErrNodeTaken", err)
	}

	if err := stopFirst(); err != nil || first.Held() {
		t.Errorf("after the end: %v, held %v", err, first.Held())
	}
	acquired, _ = hold(t, newLease(1)) // at once: it was given back
	if node := <-acquired; node != 1 {
		t.Errorf("a released ID = %d, want 1", node)
	}
}

func TestNodeLeaseThatIsLostSaysSoAndComesBack(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	store := open(t, "redis://"+r.Addr, slog.New(slog.DiscardHandler))
	client := redis.NewClient(&redis.Options{Addr: r.Addr})
	defer client.Close()
	lease := store.NewLease(7, 7, slog.New(slog.DiscardHandler))
	acquired, _ := hold(t, lease)
	<-acquired
	eventually(t, "the lease is held", lease.Held)

	client.Set(t.Context(), "node:7", "somebody else", 0)
	eventually(t, "the lease is lost", func() bool { return !lease.Held() })
	client.Del(t.Context(), "node:7")
	eventually(t, "the lease is back", lease.Held)
}

func TestAutomaticNodeLeaseBecomesAnother(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	store := open(t, "redis://"+r.Addr, slog.New(slog.DiscardHandler))
	client := redis.NewClient(&redis.Options{Addr: r.Addr})
	defer client.Close()
	lease := store.NewLease(-1, 3, slog.New(slog.DiscardHandler))
	acquired, _ := hold(t, lease)
	if node := <-acquired; node != 0 {
		t.Fatalf("acquired %d, want 0", node)
	}
	client.Set(t.Context(), "node:0", "somebody else", 0)
	if node := <-acquired; node != 1 {
		t.Errorf("acquired %d after the loss of 0, want 1", node)
	}
	eventually(t, "the other is held", lease.Held)
}

func TestClockBehindIsWaitedForOrRefused(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	store := open(t, "redis://"+r.Addr, slog.New(slog.DiscardHandler))
	client := redis.NewClient(&redis.Options{Addr: r.Addr})
	defer client.Close()

	until := time.Now().Add(2 * time.Second)
	client.Set(t.Context(), "node:1:clock", until.UnixMilli(), 0)
	lease := store.NewLease(1, 1, slog.New(slog.DiscardHandler))
	acquired, stop := hold(t, lease)
	<-acquired
	if early := time.Until(until); early > time.Millisecond {
		t.Errorf("acquired %s before the clock had caught up", early)
	}
	eventually(t, "the lease is held", lease.Held)
	if high, err := client.Get(t.Context(), "node:1:clock").Int64(); err != nil || time.UnixMilli(high).Before(time.Now()) {
		t.Errorf("the high-water mark is %d, %v", high, err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// Given back in order: the next holder need not wait.
	if high, err := client.Get(t.Context(), "node:1:clock").Int64(); err != nil || time.UnixMilli(high).After(time.Now()) {
		t.Errorf("the high-water mark after a clean end is %d, %v", high, err)
	}

	client.Set(t.Context(), "node:1:clock", time.Now().Add(time.Minute).UnixMilli(), 0)
	err := store.NewLease(1, 1, slog.New(slog.DiscardHandler)).Hold(t.Context(), func(int) error { t.Error("acquired"); return nil })
	if !errors.Is(err, redisstore.ErrClockBehind) || !strings.Contains(err.Error(), "1m0s") {
		t.Errorf("a clock a minute behind: %v, want ErrClockBehind that says so", err)
	}
	if n, err := client.Exists(t.Context(), "node:1").Result(); n != 0 || err != nil {
		t.Errorf("the refused process keeps the lease: %d, %v", n, err)
	}
}

func TestLeaseWaitsForRedis(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	r.Kill()
	store := open(t, "redis://"+r.Addr, slog.New(slog.DiscardHandler))
	lease := store.NewLease(0, 0, slog.New(slog.DiscardHandler))
	acquired, _ := hold(t, lease)
	if lease.Held() {
		t.Fatal("held without Redis")
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-acquired
	eventually(t, "the lease is held", lease.Held)
}
