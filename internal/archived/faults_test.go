package archived_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"snowlink/internal/archived"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/postgres/postgrestest"
	"snowlink/internal/redisstore"
)

// Two archivers work at once, and one of them is stopped in the middle again and again, while links
// are created, changed, deleted and evicted. Nothing is lost, no change is undone, and afterwards
// both stores agree.
func TestArchiversThatDie(t *testing.T) {
	t.Parallel()
	s := start(t, postgrestest.Databases(t, 3))
	s.archiving(t)
	ctx, stop := context.WithCancel(t.Context())
	var load, killer sync.WaitGroup
	var kills atomic.Int64
	killer.Go(func() {
		for ctx.Err() == nil {
			short, cancel := context.WithTimeout(ctx, time.Duration(1+rand.IntN(40))*time.Millisecond)
			_ = s.archiver(io.Discard).Run(short)
			cancel()
			kills.Add(1)
		}
	})
	mint := minter(t)
	const writers, rounds = 8, 150
	last := make([]map[string]link.Link, writers) // of each writer's own links
	var evicted atomic.Int64
	for w := range writers {
		last[w] = make(map[string]link.Link)
		load.Go(func() {
			codes := []string{}
			for n := range rounds {
				if n%3 == 0 {
					code := mint()
					if n%2 == 0 {
						code = fmt.Sprintf("own-%d-%d", w, n)
					}
					l := link.Link{Target: fmt.Sprintf("https://example.com/%d/%d", w, n)}
					if err := s.Create(t.Context(), link.DefaultOwner, code, l); err != nil {
						t.Errorf("Create = %v", err)
						return
					}
					codes, last[w][code] = append(codes, code), l
				}
				code := codes[rand.IntN(len(codes))]
				if ttl := s.client.PTTL(t.Context(), "link:"+code).Val(); ttl > 0 { // as an eviction
					// Between the two it may be written, and not be evictable any more: a transaction would see it.
					evicted.Add(s.evictIfIdle(code))
				}
				want := last[w][code]
				got, err := s.Read(t.Context(), code)
				if err != nil || !got.Link.Equal(want) {
					t.Errorf("Read(%s) = %+v, %v, want %+v", code, got, err, want)
					return
				}
				next := link.Link{Target: fmt.Sprintf("https://example.com/%d/%d/changed", w, n%7)}
				if want.Options != nil { // deleted
					continue
				}
				if n%20 == 0 {
					next = link.Link{Options: &link.Options{Deleted: true}}
				}
				if _, err := s.Update(t.Context(), code, got.Version, next); err != nil {
					t.Errorf("Update(%s) = %v", code, err)
					return
				}
				last[w][code] = next
			}
		})
	}
	load.Wait()
	stop()
	killer.Wait()
	s.drained(t)
	v := s.verify(t, 0)
	t.Logf("%d archivers were stopped, %d links evicted; %+v", kills.Load(), evicted.Load(), v)
	if kills.Load() < 20 || evicted.Load() == 0 {
		t.Error("that is too little to prove anything")
	}
	links := 0
	for _, own := range last {
		for code, want := range own {
			links++
			s.evict(t, code)
			s.want(t, code, want)
		}
	}
	if v.Rows != int64(links) {
		t.Errorf("the archive has %d rows, and there are %d links", v.Rows, links)
	}
}

// evictIfIdle evicts a link in one step, if Redis may.
func (s *system) evictIfIdle(code string) int64 {
	n, _ := s.client.Eval(context.Background(),
		`if redis.call("PTTL", KEYS[1]) > 0 then return redis.call("DEL", KEYS[1]) end return 0`, []string{"link:" + code}).Int64()
	return n
}

// A link that is deleted while others read it and Redis evicts it stays deleted: for whoever asks
// after the delete, and for ever.
func TestDeletedLinksStayDeleted(t *testing.T) {
	t.Parallel()
	s := start(t, postgrestest.Databases(t, 1))
	s.archiving(t)
	const rounds = 8
	for round := range rounds {
		code := fmt.Sprint("doomed-", round)
		s.create(t, code, one)
		ctx, stop := context.WithCancel(t.Context())
		var deleted atomic.Bool
		var evictions atomic.Int64
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for ctx.Err() == nil {
					was := deleted.Load()
					got, err := s.Get(t.Context(), code)
					if err != nil || was && !got.Over(time.Now()) {
						t.Errorf("after its delete (%t) Get = %+v, %v", was, got, err)
						return
					}
				}
			})
		}
		all.Go(func() {
			for ctx.Err() == nil {
				evictions.Add(s.evictIfIdle(code))
			}
		})
		for s.evictIfIdle(code) == 0 { // it is archived
			time.Sleep(time.Millisecond)
		}
		gone := link.Link{Options: &link.Options{Deleted: true}}
		fleettest.Eventually(t, 20*time.Second, "it is deleted", func() bool { // evictions come between
			state, err := s.Read(t.Context(), code)
			if err == nil {
				_, err = s.Update(t.Context(), code, state.Version, gone)
			}
			if err != nil && !errors.Is(err, link.ErrUnavailable) {
				t.Fatal(err)
			}
			return err == nil
		})
		deleted.Store(true)
		for before := evictions.Load(); evictions.Load() < before+3; { // the tombstone, too
			time.Sleep(time.Millisecond)
		}
		stop()
		all.Wait()
	}
	s.drained(t)
	for round := range rounds {
		code := fmt.Sprint("doomed-", round)
		s.evictIfIdle(code)
		s.want(t, code, link.Link{Options: &link.Options{Deleted: true}})
	}
	s.verify(t, 0)
}

// There are 20 times more links than Redis has room for. None is lost, and Redis does evict.
func TestMoreLinksThanRedisHasRoomFor(t *testing.T) {
	t.Parallel()
	s := start(t, postgrestest.Databases(t, 3), "maxmemory-policy volatile-lru")
	s.archiving(t)
	ctx := t.Context()
	info := func(name string) int64 {
		text, err := s.client.Info(ctx).Result()
		if err != nil {
			t.Fatal(err)
		}
		_, text, _ = strings.Cut(text, "\r\n"+name+":")
		text, _, _ = strings.Cut(text, "\r\n")
		n, _ := strconv.ParseInt(text, 10, 64)
		return n
	}
	const room, times = 2000, 20
	target := func(code string) string { return "https://example.com/" + strings.Repeat("path/", 60) + code }
	s.create(t, "warm", one)
	s.drained(t)
	// A link takes some 450 bytes, and the journal and the outbox something, too.
	if err := s.client.ConfigSet(ctx, "maxmemory", fmt.Sprint(info("used_memory")+1_500_000)).Err(); err != nil {
		t.Fatal(err)
	}
	mint := minter(t)
	var mu sync.Mutex
	var codes []string
	var full atomic.Int64
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range room * times / 16 {
				code := mint()
				for { // Redis may be full until more is archived: then nothing is stored, and it is said
					err := s.Create(ctx, link.DefaultOwner, code, link.Link{Target: target(code)})
					if err == nil {
						break
					}
					if !errors.Is(err, link.ErrFull) && !errors.Is(err, link.ErrUnavailable) {
						t.Errorf("Create = %v", err)
						return
					}
					full.Add(1)
					time.Sleep(10 * time.Millisecond)
				}
				mu.Lock()
				codes = append(codes, code)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	s.drained(t)
	held, evicted := s.client.DBSize(ctx).Val(), info("evicted_keys")
	t.Logf("Redis holds %d of %d links; %d were evicted, %d creates had to wait", held, len(codes), evicted, full.Load())
	if evicted < int64(len(codes))/2 || held > int64(len(codes))/4 {
		t.Errorf("Redis holds %d of %d links and evicted %d", held, len(codes), evicted)
	}
	lost := 0
	for first := 0; first < len(codes); first += 500 {
		some := codes[first:min(first+500, len(codes))]
		links, errs := s.GetAll(ctx, some)
		for i, l := range links {
			if errs[i] != nil || l.Target != target(some[i]) {
				if lost++; lost < 5 {
					t.Errorf("%s leads to %q, %v", some[i], l.Target, errs[i])
				}
			}
		}
	}
	if lost > 0 {
		t.Errorf("%d links are lost", lost)
	}
	s.verify(t, 0)
}

// One database of three hangs. The links of the others are archived and restored as before.
func TestOneShardAway(t *testing.T) {
	t.Parallel()
	server := postgrestest.Own(t)
	urls := append(postgrestest.Databases(t, 2), server.Database(t))
	s := start(t, urls)
	s.archiving(t)
	away := s.shards.DBs()[2]
	var theirs, others []string
	for i := 0; len(theirs) < 20 || len(others) < 20; i++ {
		code := fmt.Sprint("spread-", i)
		s.create(t, code, one)
		if s.shards.Home(code) == away {
			theirs = append(theirs, code)
		} else {
			others = append(others, code)
		}
	}
	s.drained(t)
	for _, code := range append(theirs, others...) {
		s.evict(t, code)
	}
	if err := server.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// Many ask for the links that are away, as they may, and so wait for the database.
	ctx, stop := context.WithCancel(t.Context())
	var waiters sync.WaitGroup
	for _, code := range theirs {
		waiters.Go(func() {
			for ctx.Err() == nil {
				_, _ = s.Get(ctx, code)
			}
		})
	}
	for _, code := range others {
		began := time.Now()
		s.want(t, code, one)
		if took := time.Since(began); took > time.Second { // a query waits longer for a database that hangs
			t.Errorf("a link of another database was found after %s", took)
		}
	}
	stop()
	waiters.Wait()
	if _, err := s.Get(t.Context(), theirs[0]); !errors.Is(err, link.ErrUnavailable) {
		t.Errorf("Get of a link in the database that is away = %v", err)
	}
	mint := minter(t)
	var waiting, archived []string
	for len(waiting) < 20 || len(archived) < 20 {
		code := mint()
		s.create(t, code, two)
		if s.shards.Home(code) == away {
			waiting = append(waiting, code)
		} else {
			archived = append(archived, code)
		}
	}
	for _, code := range archived {
		fleettest.Eventually(t, 60*time.Second, "what the others have is archived", func() bool {
			return s.client.PTTL(t.Context(), "link:"+code).Val() > 0
		})
	}
	for _, code := range waiting {
		if ttl := s.client.PTTL(t.Context(), "link:"+code).Val(); ttl != -1 {
			t.Errorf("Redis may evict %s, which is not archived", code)
		}
	}
	if err := server.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.drained(t)
	s.verify(t, 0)
	for _, code := range theirs {
		s.want(t, code, one)
	}
}

// A sweep archives what no mark names: of writers that died, and from before there was an archive.
func TestSweep(t *testing.T) {
	t.Parallel()
	s := start(t, postgrestest.Databases(t, 3))
	old := redisstore.New(fleettest.Conn(t, s.url, quiet), redisstore.Options{})
	links := make([]link.Coded, 3000)
	for i := range links {
		links[i] = link.Coded{Code: fmt.Sprint("old-", i), Link: one}
	}
	limited := link.Link{Target: one.Target, Options: &link.Options{MaxVisits: 1}}
	links = append(links, link.Coded{Code: "limited", Link: limited})
	if err := errors.Join(old.CreateAll(t.Context(), link.DefaultOwner, links)...); err != nil {
		t.Fatal(err)
	}
	s.archiving(t)
	sweep := func() archived.Swept {
		var told archived.Swept
		swept, err := s.archiver(io.Discard).Sweep(t.Context(), func(s archived.Swept) { told = s })
		if err != nil || told != swept {
			t.Errorf("Sweep = %+v, %v, and it told of %+v", swept, err, told)
		}
		s.drained(t)
		return swept
	}
	if swept := sweep(); swept.Marked < int64(len(links)) {
		t.Errorf("it marked %+v of %d", swept, len(links))
	}
	s.verify(t, 0)
	if swept := sweep(); swept.Marked != 1 { // the one that has visits left
		t.Errorf("another sweep marked %+v", swept)
	}
	for _, l := range links[:100] {
		s.evict(t, l.Code)
		s.want(t, l.Code, l.Link)
	}
	if _, err := s.Visit(t.Context(), "limited"); err != nil {
		t.Errorf("Visit = %v", err)
	}
	sweep() // it is used up
	s.evict(t, "limited")
	if _, err := s.Visit(t.Context(), "limited"); !errors.Is(err, link.ErrGone) {
		t.Errorf("Visit of a link that is used up = %v, want ErrGone", err)
	}
}

// Redis comes back as it was a while ago. What the archive alone still has is kept, a link that was
// changed since stays as it was changed, and both agree again.
func TestRedisThatLostWrites(t *testing.T) {
	t.Parallel()
	s := start(t, postgrestest.Databases(t, 1))
	s.archiving(t)
	for _, code := range []string{"kept", "changed"} {
		s.create(t, code, one)
	}
	s.drained(t)
	before := make(map[string]string)
	for _, code := range []string{"kept", "changed"} {
		before[code] = s.client.Dump(t.Context(), "link:"+code).Val()
		s.change(t, code, two)
		s.change(t, code, link.Link{Target: two.Target + "again"})
	}
	s.drained(t)
	for code, dump := range before {
		if err := s.client.RestoreReplace(t.Context(), "link:"+code, time.Hour, dump).Err(); err != nil {
			t.Fatal(err)
		}
	}
	after := link.Link{Target: "https://example.com/since"}
	s.change(t, "changed", after)
	fleettest.Eventually(t, 20*time.Second, "both agree", func() bool {
		v, err := s.archiver(io.Discard).Verify(t.Context(), nil)
		return err == nil && v.Same == 2
	})
	s.drained(t)
	s.verify(t, 0)
	s.want(t, "kept", link.Link{Target: two.Target + "again"})
	s.want(t, "changed", after)

	if err := s.client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	s.want(t, "kept", link.Link{Target: two.Target + "again"})
	s.want(t, "changed", after)
	s.create(t, "new", one)
	fleettest.Eventually(t, 20*time.Second, "it is archived", func() bool { return s.client.PTTL(t.Context(), "link:new").Val() > 0 })
}

// Two links under one minted code are a fault that nobody can mend: both stay, and the log tells.
func TestCollision(t *testing.T) {
	s := start(t, postgrestest.Databases(t, 1))
	code := minter(t)()
	s.create(t, code, one)
	stop := s.archiving(t)
	s.drained(t)
	_ = stop()
	s.evict(t, code)
	s.create(t, code, two) // the archive is not asked
	var log fleettest.Output
	fleettest.Background(t, s.archiver(&log).Run)
	s.drained(t)
	if !strings.Contains(log.String(), "one minted code") {
		t.Errorf("the log does not tell of it:\n%s", &log)
	}
	if ttl := s.client.PTTL(t.Context(), "link:"+code).Val(); ttl != -1 {
		t.Errorf("Redis may evict the second: %s", ttl)
	}
	s.want(t, code, two)
}
