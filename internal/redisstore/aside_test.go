package redisstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"snowlink/internal/embedded"
	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/nodelease"
	"snowlink/internal/redisconn"
	"snowlink/internal/redisstore"
)

// tap is a proxy before Redis. It hands all that a connection has sent so far to heard. Once heard
// returns false, it passes nothing more on: the connection hangs.
func tap(t *testing.T, addr string, heard func(said []byte) (pass bool)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				up, err := net.Dial("tcp", addr)
				if err != nil {
					return
				}
				defer up.Close()
				go func() {
					defer conn.Close()
					buf := make([]byte, 1<<16)
					for {
						n, err := up.Read(buf)
						if err != nil {
							return
						}
						if _, err := conn.Write(buf[:n]); err != nil {
							return
						}
					}
				}()
				var said []byte
				for buf := make([]byte, 1<<16); ; {
					n, err := conn.Read(buf)
					if err != nil {
						return
					}
					if said = append(said, buf[:n]...); !heard(said) {
						continue
					}
					if _, err := up.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}

// Lists, and people who manage links, read on connections that were told not to make keys look
// used. Visitors do not.
func TestNoTouchIsAskedForOnTheConnectionsOfListsAndReads(t *testing.T) {
	t.Parallel()
	var (
		mu    sync.Mutex
		conns = map[*byte]string{} // what each has said, by its first byte
	)
	addr := tap(t, fleettest.Redis(t).Addr, func(said []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		conns[&said[:1][0]] = string(said)
		return true
	})
	store := open(t, "redis://"+addr, quiet)
	ctx := t.Context()
	mustCreate(t, store, "visited", nil)
	if _, err := store.Get(ctx, "visited"); err != nil {
		t.Fatal(err)
	}
	if _, errs := store.GetAll(ctx, []string{"visited"}); errs[0] != nil {
		t.Fatal(errs)
	}
	said := func(what string) (before bool) { // whether it was told that before
		mu.Lock()
		defer mu.Unlock()
		found := false
		for _, all := range conns {
			if i := strings.Index(all, what); i >= 0 {
				found = true
				before = before || strings.Contains(all[:i], "no-touch")
			}
		}
		if !found {
			t.Errorf("nothing said %q", what)
		}
		return before
	}
	const get, mget = "get\r\n$12\r\nlink:visited", "mget\r\n$12\r\nlink:visited"
	if said(get) {
		t.Error("Get came on a connection with NO-TOUCH")
	}
	mu.Lock()
	clear(conns)
	mu.Unlock()
	if _, err := store.Read(ctx, "visited"); err != nil {
		t.Fatal(err)
	}
	if !said(mget) {
		t.Error("Read came on a connection without NO-TOUCH")
	}
	if page, err := store.List(ctx, link.Query{Owner: "o", N: 10}); len(page.Links) != 1 || err != nil {
		t.Fatal(page, err)
	}
	if !said(get) {
		t.Error("List came on a connection without NO-TOUCH")
	}
}

// newRedis is a program that knows NO-TOUCH, Redis 7.2 or Valkey: the one that TEST_REDIS names, or
// valkey-server, or "" if there is none.
func newRedis() string {
	if program := os.Getenv("TEST_REDIS"); program != "" {
		return program
	}
	// `make tools` puts one into bin/ where Debian's Redis is too old.
	for _, program := range []string{"valkey-server", "../../bin/valkey-server"} {
		if found, err := exec.LookPath(program); err == nil {
			found, _ = filepath.Abs(found)
			return found
		}
	}
	return ""
}

// A full Redis evicts links that nobody visits, although all are listed, and keeps those that are
// visited. If Redis is too old for that, the log says so.
func TestListsDoNotMakeLinksLookUsed(t *testing.T) {
	t.Parallel()
	r := fleettest.Start(t, fleet.Options{NoBackends: true, NoNginx: true, RedisProgram: newRedis()}).Redis
	var log fleettest.Output
	logger := slog.New(slog.NewTextHandler(&log, nil))
	store := openWith(t, "redis://"+r.Addr, logger, redisstore.Options{JournalMax: 20_000})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	client := fleettest.RedisClient(t, r.Addr)

	watched := make(chan error, 1)
	go func() { watched <- store.NewWatcher(noOwners, logger, prometheus.NewRegistry()).Watch(ctx) }()
	if newRedis() == "" {
		fleettest.Eventually(t, 20*time.Second, "the log says so", func() bool { return strings.Contains(log.String(), "CLIENT NO-TOUCH") })
		cancel()
		if err := <-watched; err != nil {
			t.Error(err)
		}
		if os.Getenv("CI") == "true" {
			t.Fatal("neither TEST_REDIS nor valkey-server names a server that knows NO-TOUCH")
		}
		t.Skip("redis-server is too old for more; TEST_REDIS names one of 7.2, or Valkey")
	}

	const each = 4000
	create := func(kind string) (codes []string) {
		links := make([]link.Coded, each)
		for i := range links {
			links[i] = link.Coded{Code: fmt.Sprint(kind, "-", i), Link: link.Link{Target: "https://example.com/a/target/of/some/length"}}
			codes = append(codes, links[i].Code)
		}
		if err := errors.Join(store.CreateAll(ctx, "o", links)...); err != nil {
			t.Fatal(err)
		}
		return codes
	}
	idle := func(code string) func() bool { // by Redis's clock of ages, which ticks once a second
		return func() bool { return client.ObjectIdleTime(ctx, "link:"+code).Val() >= 2*time.Second }
	}
	visited, never := create("visited"), create("never")
	// A key that is made on such a connection is new all the same.
	if age, err := client.ObjectIdleTime(ctx, "link:"+never[each-1]).Result(); age > 2*time.Second || err != nil {
		t.Errorf("a new link is idle for %s, %v", age, err)
	}
	fleettest.Eventually(t, 20*time.Second, "all are a while old", idle(never[each-1]))
	if _, errs := store.GetAll(ctx, visited); errors.Join(errs...) != nil {
		t.Fatal(errs)
	}
	fleettest.Eventually(t, 20*time.Second, "the visits are, too", idle(visited[0]))
	listed := 0
	for q, more := (link.Query{Owner: "o", N: 1000}), true; more; more = q.Cursor != "" {
		page, err := store.List(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		listed, q.Cursor = listed+len(page.Links), page.Next
	}
	if listed != 2*each {
		t.Fatalf("%d were listed", listed)
	}
	for _, code := range never { // as an import looks up what it has
		if _, err := store.Read(ctx, code); err != nil {
			t.Fatal(err)
		}
	}
	used, _ := client.Info(ctx, "memory").Result()
	_, used, _ = strings.Cut(used, "used_memory:")
	used, _, _ = strings.Cut(used, "\r\n")
	if err := errors.Join(client.ConfigSet(ctx, "maxmemory-policy", "allkeys-lru").Err(), client.ConfigSet(ctx, "maxmemory", used).Err()); err != nil {
		t.Fatal(err)
	}
	create("more")
	if err := client.ConfigSet(ctx, "maxmemory", "0").Err(); err != nil { // or what counts them evicts some
		t.Fatal(err)
	}
	survived := func(codes []string) (n int64) {
		keys := make([]string, len(codes))
		for i, code := range codes {
			keys[i] = "link:" + code
		}
		return client.Exists(ctx, keys...).Val()
	}
	kept, keptToo := survived(visited), survived(never)
	t.Logf("of %d each, %d visited and %d others survived", each, kept, keptToo)
	if kept < each/2 || keptToo > kept/4 {
		t.Errorf("%d visited links and %d others survived, of %d each", kept, keptToo, each)
	}
	if strings.Contains(log.String(), "NO-TOUCH") {
		t.Errorf("the log says that Redis is too old:\n%s", &log)
	}
}

// The Redis in the process evicts nothing, so nobody is told that it does not know NO-TOUCH.
func TestEmbeddedRedisIsNotPointedOut(t *testing.T) {
	t.Parallel()
	r, err := embedded.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var log fleettest.Output
	logger := slog.New(slog.NewTextHandler(&log, nil))
	store := open(t, r.URL(), logger)
	mustCreate(t, store, "a", nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watched := make(chan error, 1)
	go func() { watched <- store.NewWatcher(noOwners, logger, prometheus.NewRegistry()).Watch(ctx) }()
	fleettest.Eventually(t, 20*time.Second, "it has looked", func() bool { return strings.Contains(log.String(), "maxmemory_policy") })
	if _, err := store.Read(ctx, "a"); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-watched; err != nil {
		t.Error(err)
	}
	if strings.Contains(log.String(), "level=WARN") {
		t.Errorf("it warns:\n%s", &log)
	}
}

// However many bulks hang, leases are renewed and Redis is asked for signs of life.
func TestBulksLeaveConnectionsToLeasesAndPing(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	var hung sync.Map
	addr := tap(t, r.Addr, func(said []byte) bool {
		if !bytes.Contains(said, []byte("link:hung")) {
			return true
		}
		hung.Store(&said[0], true)
		return false
	})
	const pool = 3
	reg := prometheus.NewRegistry()
	conn, err := redisconn.Open(fmt.Sprintf("redis://%s?pool_size=%d&pipeline_pool_size=%d", addr, pool, pool), quiet, reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	store := testStore{redisstore.New(conn, redisstore.Options{JournalMax: 1000}), conn}
	lease := nodelease.New(store.conn, 1, 1, quiet)
	fleettest.Background(t, lease.Hold)
	fleettest.Eventually(t, 20*time.Second, "the lease is held", lease.Held)

	ctx, stop := context.WithCancel(t.Context())
	var bulks sync.WaitGroup
	defer bulks.Wait()
	defer stop()
	links := slices.Repeat([]link.Coded{{Code: "hung", Link: link.Link{Target: "https://example.com/"}}}, 10)
	for range 8 * pool {
		bulks.Go(func() {
			for ctx.Err() == nil {
				store.CreateAll(context.WithoutCancel(ctx), "o", links)
			}
		})
	}
	hanging := func() (n int) {
		hung.Range(func(any, any) bool { n++; return true })
		return n
	}
	client := fleettest.RedisClient(t, r.Addr)
	left := func() time.Duration { return client.PTTL(ctx, "node:1").Val() }
	fleettest.Eventually(t, 20*time.Second, "the pool is full of bulks", func() bool { return hanging() >= 2*pool })
	pinged := func() {
		if err := store.Ping(ctx); err != nil {
			t.Errorf("Ping = %v", err)
		}
	}
	before := left()
	fleettest.Eventually(t, 20*time.Second, "the lease has aged", func() bool { pinged(); return left() < before-time.Second })
	fleettest.Eventually(t, 20*time.Second, "it was renewed", func() bool { pinged(); return left() > 14*time.Second })
	if !lease.Held() {
		t.Error("the lease is lost")
	}
	if total := connections(t, reg); total < 2*pool {
		t.Errorf("the metrics tell of %v connections, the bulks' not among them", total)
	}
}

// connections is how many connections to Redis the metrics tell of, in all states.
func connections(t *testing.T, reg *prometheus.Registry) (total float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "snowlink_redis_pool_connections" {
			for _, metric := range family.Metric {
				total += metric.Gauge.GetValue()
			}
		}
	}
	return total
}
