package archived_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"snowlink/internal/archived"
	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/link/linktest"
	"snowlink/internal/postgres"
	"snowlink/internal/postgres/postgrestest"
	"snowlink/internal/redisstore"
	"snowlink/snowflake"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// quiet is the log of tests that do not look at it.
var quiet = slog.New(slog.DiscardHandler)

// A system is a Store over a Redis and an archive of its own, and what looks at both.
type system struct {
	*archived.Store
	hot    *redisstore.Store
	shards *postgres.Shards
	reg    *prometheus.Registry
	client *redis.Client
	redis  *fleet.Redis
	url    string
}

// start starts a Redis in front of some databases.
func start(t testing.TB, urls []string, config ...string) *system {
	t.Helper()
	r := fleettest.Redis(t, append([]string{"maxmemory-policy volatile-lru"}, config...)...)
	return open(t, "redis://"+r.Addr, r, urls)
}

func open(t testing.TB, redisURL string, r *fleet.Redis, urls []string) *system {
	t.Helper()
	s := &system{redis: r, url: redisURL, reg: prometheus.NewRegistry()}
	s.hot = redisstore.New(fleettest.Conn(t, redisURL, quiet), redisstore.Options{JournalMax: 100_000, Archived: true})
	var err error
	s.shards, err = postgres.Open(strings.Join(urls, ","), 0, quiet, s.reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.shards.Close)
	if err := archived.Prepare(t.Context(), s.hot, s.shards); err != nil {
		t.Fatal(err)
	}
	s.Store = archived.New(s.hot, s.shards, s.reg)
	if r != nil {
		s.client = fleettest.RedisClient(t, r.Addr)
	}
	return s
}

func (s *system) archiver(log io.Writer) *archived.Archiver {
	return archived.NewArchiver(s.hot, s.shards, slog.New(slog.NewTextHandler(log, nil)), prometheus.NewRegistry())
}

// archiving runs an Archiver until the test ends or stop is called.
func (s *system) archiving(t testing.TB) (stop func() error) {
	return fleettest.Background(t, s.archiver(io.Discard).Run)
}

// metric is the value of a counter.
func (s *system) metric(t testing.TB, name string) float64 {
	t.Helper()
	families, err := s.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.Metric[0].Counter.GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

// drained waits until everything that was marked is archived.
func (s *system) drained(t testing.TB) {
	t.Helper()
	fleettest.Eventually(t, 60*time.Second, "everything is archived", func() bool {
		n, _, err := s.hot.Backlog(t.Context())
		return err == nil && n == 0
	})
}

// evict makes Redis forget a link as if there were no room for it.
func (s *system) evict(t testing.TB, code string) {
	t.Helper()
	if ttl, err := s.client.PTTL(t.Context(), "link:"+code).Result(); err != nil || ttl <= 0 {
		t.Fatalf("Redis may not evict %s: its time to live is %s, %v", code, ttl, err)
	}
	if err := s.client.Del(t.Context(), "link:"+code).Err(); err != nil {
		t.Fatal(err)
	}
}

// verify fails the test unless Redis and the archive agree, but for some links that Redis may not
// evict.
func (s *system) verify(t testing.TB, pending int64) archived.Verified {
	t.Helper()
	v, err := s.archiver(io.Discard).Verify(t.Context(), nil)
	if err != nil || v.Wrong > 0 || v.Pending != pending || v.Same+pending != v.Links {
		t.Errorf("Verify = %+v, %v", v, err)
	}
	return v
}

var (
	one = link.Link{Target: "https://example.com/?a=1&b=%20#f"}
	two = link.Link{Target: "https://example.org/"}
)

func chosen(target string) link.Link {
	return link.Link{Target: target, Options: &link.Options{Created: time.UnixMilli(1_800_000_000_001).UTC(), Nonce: 1}}
}

// minter returns codes as backends mint them.
func minter(t testing.TB) func() string {
	g, err := snowflake.NewGenerator(7)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return snowflake.Encode(g.Next())
	}
}

func (s *system) create(t testing.TB, code string, l link.Link) {
	t.Helper()
	if err := s.Create(t.Context(), link.DefaultOwner, code, l); err != nil {
		t.Fatalf("Create(%s) = %v", code, err)
	}
}

func (s *system) change(t testing.TB, code string, l link.Link) {
	t.Helper()
	state, err := s.Read(t.Context(), code)
	if err == nil {
		_, err = s.Update(t.Context(), code, state.Version, l)
	}
	if err != nil {
		t.Fatalf("change %s: %v", code, err)
	}
}

func (s *system) want(t testing.TB, code string, want link.Link) {
	t.Helper()
	if got, err := s.Get(t.Context(), code); err != nil || !got.Equal(want) {
		t.Errorf("Get(%s) = %+v, %v, want %+v", code, got, err, want)
	}
}

// spaced is how many codes of linktest have a space, which no link can have: no mark can name them.
const spaced = 1

func TestStoreContract(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			s := start(t, postgrestest.Databases(t, n))
			s.archiving(t)
			linktest.Store(t, s.Store, "x")
			s.drained(t)
			s.verify(t, spaced)
		})
	}
}

func TestStoreContractOnACluster(t *testing.T) {
	t.Parallel()
	cluster := fleettest.Start(t, fleet.Options{NoBackends: true, NoNginx: true, Cluster: true, RedisConfig: []string{"maxmemory-policy volatile-lru"}}).Cluster
	s := open(t, cluster.URL(), nil, postgrestest.Databases(t, 1))
	s.archiving(t)
	linktest.Store(t, s.Store, "x")
	s.drained(t)
	s.verify(t, spaced)
}

// Redis evicts a link, and it is there all the same: as it was, and for whoever changes it.
func TestEvictedLinksComeBack(t *testing.T) {
	t.Parallel()
	s := start(t, postgrestest.Databases(t, 3))
	mint := minter(t)
	codes := []string{mint(), mint(), "chosen"}
	want := []link.Link{one, {Target: two.Target, Options: &link.Options{Title: "x", Status: 301}}, chosen("https://example.net/")}
	for i, code := range codes {
		s.create(t, code, want[i])
		if ttl := s.client.PTTL(t.Context(), "link:"+code).Val(); ttl != -1 {
			t.Errorf("Redis may evict %s, which is not archived: %s", code, ttl)
		}
	}
	s.archiving(t)
	s.drained(t)
	evict := func() {
		for _, code := range codes {
			s.evict(t, code)
		}
	}
	evict()
	for i, code := range codes {
		s.want(t, code, want[i])
		fleettest.Eventually(t, 10*time.Second, "it is restored for an hour at most", func() bool {
			ttl := s.client.PTTL(t.Context(), "link:"+code).Val()
			return ttl > 0 && ttl <= time.Hour
		})
	}
	evict()
	if links, errs := s.GetAll(t.Context(), append(codes, "none")); !links[0].Equal(want[0]) || !links[2].Equal(want[2]) ||
		errors.Join(errs[:3]...) != nil || !errors.Is(errs[3], link.ErrNotFound) {
		t.Errorf("GetAll = %v, %v", links, errs)
	}
	for i, code := range codes { // a change of what only the archive has
		fleettest.Eventually(t, 10*time.Second, "it is restored", func() bool { return s.client.Exists(t.Context(), "link:"+code).Val() == 1 })
		s.evict(t, code)
		want[i].Target += "changed"
		s.change(t, code, want[i])
	}
	s.drained(t)
	evict()
	for i, code := range codes {
		s.want(t, code, want[i])
		s.change(t, code, link.Link{Options: &link.Options{Deleted: true}})
	}
	s.drained(t)
	for _, code := range codes { // a tombstone is evicted, and no link comes back for it
		if ttl := s.client.PTTL(t.Context(), "link:"+code).Val(); ttl <= link.Grace-time.Hour || ttl > link.Grace {
			t.Errorf("the tombstone of %s has %s", code, ttl)
		}
	}
	evict()
	for _, code := range codes {
		s.want(t, code, link.Link{Options: &link.Options{Deleted: true}})
		if err := s.Create(t.Context(), link.DefaultOwner, code, chosen("https://example.com/other")); !errors.Is(err, link.ErrExists) {
			t.Errorf("Create under a deleted code = %v", err)
		}
	}
	s.verify(t, 0)
}

// Once its grace is over, a code is free, although the archive still has its tombstone.
func TestForgottenCodesAreFree(t *testing.T) {
	t.Parallel()
	s := start(t, postgrestest.Databases(t, 1))
	over := postgres.Row{Code: "over", Number: 3, Record: "\n{\"d\":true,\"v\":3}", Created: time.Unix(1, 0), Deleted: time.Now().Add(-link.Grace)}
	if err := errors.Join(s.shards.Upsert(t.Context(), []postgres.Row{over})...); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), "over"); !errors.Is(err, link.ErrNotFound) {
		t.Errorf("Get = %v, want ErrNotFound", err)
	}
	l := chosen("https://example.com/new")
	s.create(t, "over", l)
	s.create(t, "over", l) // it is safe to repeat
	s.archiving(t)
	s.drained(t)
	s.evict(t, "over")
	s.want(t, "over", l)
	s.verify(t, 0)
}

// A chosen code whose link only the archive has is taken.
func TestFence(t *testing.T) {
	s := start(t, postgrestest.Databases(t, 3))
	s.archiving(t)
	first := chosen("https://example.com/first")
	s.create(t, "poster", first)
	s.drained(t)
	s.evict(t, "poster")
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			if err := s.Create(t.Context(), link.DefaultOwner, "poster", chosen(fmt.Sprint("https://example.com/", i))); !errors.Is(err, link.ErrExists) {
				t.Errorf("Create = %v, want ErrExists", err)
			}
		})
	}
	wg.Wait()
	s.create(t, "poster", first) // the same create again
	s.evict(t, "poster")
	errs := s.CreateAll(t.Context(), link.DefaultOwner, []link.Coded{{Code: "poster", Link: two}, {Code: "poster", Link: first}, {Code: "new-one", Link: two}})
	if !errors.Is(errs[0], link.ErrExists) || errs[1] != nil || errs[2] != nil {
		t.Errorf("CreateAll = %v", errs)
	}
	s.want(t, "poster", first)
	s.drained(t)
	s.verify(t, 0)
}

// Of many creates of one code that nobody has, one wins.
func TestFenceOfAFreeCode(t *testing.T) {
	s := start(t, postgrestest.Databases(t, 1))
	s.archiving(t)
	for round := range 20 {
		code := fmt.Sprint("free-", round)
		var won atomic.Int64
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				switch err := s.Create(t.Context(), link.DefaultOwner, code, chosen(fmt.Sprint("https://example.com/", i))); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, link.ErrExists):
					t.Errorf("Create = %v", err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d creates of one code succeeded", won.Load())
		}
	}
	s.drained(t)
	s.verify(t, 0)
}

// However many ask at once for a link that only the archive has, it is asked once.
func TestStormOnAColdCode(t *testing.T) {
	s := start(t, postgrestest.Databases(t, 1))
	s.archiving(t)
	s.create(t, "cold", one)
	s.drained(t)
	for range 10 {
		s.evict(t, "cold")
		before := s.metric(t, "snowlink_archive_lookups_total")
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() { s.want(t, "cold", one) })
		}
		wg.Wait()
		if asked := s.metric(t, "snowlink_archive_lookups_total") - before; asked != 1 {
			t.Errorf("1000 readers of one code made %v queries", asked)
		}
		fleettest.Eventually(t, 10*time.Second, "it is restored", func() bool { return s.client.Exists(t.Context(), "link:cold").Val() == 1 })
	}
}

// While the archive is away, codes are minted and hot links are followed. Whether there is a cold
// link, or whether a chosen code is free, nobody can tell.
func TestArchiveAway(t *testing.T) {
	server := postgrestest.Own(t)
	s := start(t, []string{server.Database(t)})
	var log fleettest.Output
	fleettest.Background(t, s.archiver(&log).Run)
	mint := minter(t)
	s.create(t, "hot", one)
	s.create(t, "cold", one)
	s.drained(t)
	s.evict(t, "cold")

	if err := server.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.want(t, "hot", one)
	var minted []string
	for range 10 {
		code := mint()
		s.create(t, code, two)
		s.want(t, code, two)
		minted = append(minted, code)
	}
	s.change(t, "hot", two)
	for name, do := range map[string]func() error{
		"a cold read":     func() error { _, err := s.Get(t.Context(), "cold"); return err },
		"an unknown code": func() error { _, err := s.Get(t.Context(), "none"); return err },
		"a chosen code": func() error {
			return s.Create(t.Context(), link.DefaultOwner, "wanted", chosen("https://example.com/"))
		},
		"a taken code": func() error { return s.Create(t.Context(), link.DefaultOwner, "cold", chosen("https://example.com/")) },
	} {
		began := time.Now()
		if err := do(); !errors.Is(err, link.ErrUnavailable) || errors.Is(err, link.ErrNotFound) {
			t.Errorf("%s: %v, want ErrUnavailable alone", name, err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s took %s", name, took)
		}
	}
	for _, code := range append(minted, "hot") {
		if ttl := s.client.PTTL(t.Context(), "link:"+code).Val(); ttl != -1 {
			t.Errorf("Redis may evict %s: %s", code, ttl)
		}
	}
	fleettest.Eventually(t, 30*time.Second, "the log tells of it", func() bool { return strings.Contains(log.String(), "msg=unavailable of=archiving") })
	if err := server.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.drained(t)
	fleettest.Eventually(t, 30*time.Second, "the log tells of its end", func() bool { return strings.Contains(log.String(), "msg=back of=archiving") })
	if n := strings.Count(log.String(), "msg=unavailable"); n != 1 {
		t.Errorf("one outage has %d lines that begin it:\n%s", n, &log)
	}
	for _, code := range append(minted, "hot") {
		s.evict(t, code)
		s.want(t, code, two)
	}
	s.want(t, "cold", one)
	fleettest.Eventually(t, 10*time.Second, "what is restored agrees", func() bool { return s.client.Exists(t.Context(), "link:cold").Val() == 1 })
	s.verify(t, 0)
}

// While Redis is away, the archive answers.
func TestRedisAway(t *testing.T) {
	s := start(t, postgrestest.Databases(t, 3))
	stop := s.archiving(t)
	limited := link.Link{Target: one.Target, Options: &link.Options{MaxVisits: 3}}
	s.create(t, "archived", one)
	s.create(t, "limited", limited)
	s.drained(t)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	s.create(t, "unarchived", one)
	for name, away := range map[string]func(){"killed": func() { s.redis.Kill() }, "hung": func() { s.redis.Pause() }} {
		t.Run(name, func(t *testing.T) {
			away()
			before := s.metric(t, "snowlink_archive_stale_total")
			began := time.Now()
			s.want(t, "archived", one)
			if took := time.Since(began); took > 1500*time.Millisecond {
				t.Errorf("it took %s", took)
			}
			if stale := s.metric(t, "snowlink_archive_stale_total") - before; stale != 1 {
				t.Errorf("%v links were counted as stale", stale)
			}
			links, errs := s.GetAll(t.Context(), []string{"archived", "limited"})
			if !links[0].Equal(one) || errs[0] != nil || !errors.Is(errs[1], link.ErrUnavailable) {
				t.Errorf("GetAll = %v, %v", links, errs)
			}
			for _, code := range []string{"limited", "unarchived", "none"} {
				if _, err := s.Get(t.Context(), code); !errors.Is(err, link.ErrUnavailable) || errors.Is(err, link.ErrNotFound) {
					t.Errorf("Get(%s) = %v, want ErrUnavailable alone", code, err)
				}
			}
			if _, err := s.Visit(t.Context(), "limited"); !errors.Is(err, link.ErrUnavailable) {
				t.Errorf("Visit = %v", err)
			}
			if name == "hung" {
				s.redis.Resume()
			} else if err := s.redis.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			fleettest.Eventually(t, 20*time.Second, "Redis is back", func() bool { _, err := s.Read(t.Context(), "unarchived"); return err == nil })
		})
	}
}
