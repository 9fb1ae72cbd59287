package redisstore_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/redisstore"
)

// inFrontOfAnArchive is a Store of which an archiver hears.
func inFrontOfAnArchive(t *testing.T, config ...string) (testStore, *redis.Client) {
	r := fleettest.Redis(t, config...)
	store := openWith(t, "redis://"+r.Addr, quiet, redisstore.Options{JournalMax: 1000, Archived: true})
	return store, fleettest.RedisClient(t, r.Addr)
}

// taken takes all marks and returns their codes, in order.
func taken(t *testing.T, store testStore) (codes []string, marks []redisstore.Marked) {
	t.Helper()
	for {
		some, err := store.Take(t.Context(), 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(some) == 0 {
			slices.Sort(codes)
			return codes, marks
		}
		marks = append(marks, some...)
		for _, m := range some {
			codes = append(codes, m.Codes...)
		}
	}
}

func TestLastTake(t *testing.T) {
	store, _ := inFrontOfAnArchive(t)
	never := func(when string) {
		t.Helper()
		if ago, ok, err := store.LastTake(t.Context()); ok || err != nil {
			t.Errorf("%s, LastTake = %s, %t, %v", when, ago, ok, err)
		}
	}
	never("without an outbox")
	mustCreate(t, store, "a", nil)
	never("without an archiver")
	taken(t, store)
	if ago, ok, err := store.LastTake(t.Context()); !ok || ago > 10*time.Second || err != nil {
		t.Errorf("LastTake = %s, %t, %v", ago, ok, err)
	}
}

// In front of an archive, everything that is written is marked, has a number, and may not be
// evicted.
func TestWritesAreMarked(t *testing.T) {
	store, client := inFrontOfAnArchive(t)
	ctx := t.Context()
	mustCreate(t, store, "plain", nil)
	mustCreate(t, store, "expires", &link.Options{Expires: time.Now().Add(time.Hour), MaxVisits: 3})
	bulk := make([]link.Coded, 40)
	want := []string{"expires", "plain", "plain", "plain", "plain"}
	for i := range bulk {
		bulk[i] = link.Coded{Code: fmt.Sprint("bulk", i), Link: link.Link{Target: "https://example.com/"}}
		want = append(want, bulk[i].Code)
	}
	if err := errors.Join(store.CreateAll(ctx, "o", bulk)...); err != nil {
		t.Fatal(err)
	}
	record := func(want string) {
		t.Helper()
		if got := client.Get(ctx, "link:plain").Val(); got != want {
			t.Errorf("the record is %q, want %q", got, want)
		}
	}
	record("https://example.com/\n{\"o\":\"o\"}")
	first, err := store.Read(ctx, "plain")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"https://example.com/\n{\"o\":\"o\",\"v\":1}", "https://example.com/\n{\"o\":\"o\",\"v\":2}"} {
		if err := update(ctx, store, "plain", nil); err != nil {
			t.Fatal(err)
		}
		record(want)
		now, err := store.Read(ctx, "plain")
		if err != nil || now.Options != nil || now.Version == first.Version {
			t.Errorf("after change %d it is %+v, %v", i+1, now, err)
		}
	}
	mustCreate(t, store, "plain", nil) // an equal link: its number is no difference
	for _, key := range []string{"link:plain", "link:expires", "visits:{link:expires}", "link:bulk0"} {
		if ttl := client.PTTL(ctx, key).Val(); ttl != -1 {
			t.Errorf("%s has a time to live: %s", key, ttl)
		}
	}
	codes, marks := taken(t, store)
	slices.Sort(want)
	if !slices.Equal(codes, want) {
		t.Errorf("marked are %v, want %v", codes, want)
	}

	// What somebody took and left is taken again after a while.
	if codes, _ := taken(t, store); len(codes) != 0 {
		t.Errorf("%v were taken twice", codes)
	}
	for _, m := range marks {
		err := client.Do(ctx, "xclaim", "outbox", "archivers", "archivers", 0, m.ID, "idle", 60_000).Err()
		if err != nil {
			t.Fatal(err)
		}
	}
	if codes, _ := taken(t, store); !slices.Equal(codes, want) {
		t.Errorf("claimed are %v, want %v", codes, want)
	}
	if n, since, err := store.Backlog(ctx); n != int64(len(marks)) || time.Since(since) > time.Minute || err != nil {
		t.Errorf("Backlog = %d, %s, %v", n, since, err)
	}
	if err := store.Done(ctx, marks); err != nil {
		t.Fatal(err)
	}
	if n, since, err := store.Backlog(ctx); n != 0 || !since.IsZero() || err != nil {
		t.Errorf("Backlog = %d, %s, %v", n, since, err)
	}
}

// Whoever holds a pass restores or creates only if nobody wrote the link since.
func TestPass(t *testing.T) {
	store, client := inFrontOfAnArchive(t)
	ctx := t.Context()
	const code = "a"
	old, err := store.Record(code, "https://example.com/old")
	if err != nil {
		t.Fatal(err)
	}
	other := link.Link{Target: "https://example.com/other"}
	miss := func() string {
		t.Helper()
		m := store.Miss(ctx, []string{code})[0]
		if m.Found || m.Err != nil || m.Pass == "" {
			t.Fatalf("Miss = %+v", m)
		}
		return m.Pass
	}
	createWith := func(pass string) error {
		return store.CreateFenced(ctx, "o", []redisstore.Fenced{{Coded: link.Coded{Code: code, Link: other}, Number: 4, Pass: pass}})[0]
	}
	evict := func() { client.Del(ctx, "link:"+code) }

	pass := miss()
	if again := miss(); again != pass {
		t.Errorf("a second miss has another pass: %q and %q", pass, again)
	}
	store.Restore(ctx, []redisstore.Record{old}, []string{pass})
	if got, ttl := client.Get(ctx, "link:a").Val(), client.PTTL(ctx, "link:a").Val(); got != old.Text || ttl <= 0 || ttl > time.Hour {
		t.Errorf("restored is %q for %s", got, ttl)
	}
	if m := store.Miss(ctx, []string{code})[0]; !m.Found || m.Record.Text != old.Text {
		t.Errorf("Miss of what is there = %+v", m)
	}
	if err := createWith(pass); !errors.Is(err, link.ErrExists) {
		t.Errorf("CreateFenced over a link = %v", err)
	}

	// A change, which is then archived and evicted, ends the pass.
	if err := update(ctx, store, code, &link.Options{Deleted: true}); err != nil {
		t.Fatal(err)
	}
	if ttl := client.PTTL(ctx, "link:a").Val(); ttl != -1 {
		t.Errorf("what was restored and then changed has a time to live: %s", ttl)
	}
	evict()
	store.Restore(ctx, []redisstore.Record{old}, []string{pass})
	if n := client.Exists(ctx, "link:a").Val(); n != 0 {
		t.Error("a deleted link came back")
	}
	if err := createWith(pass); !errors.Is(err, redisstore.ErrPass) {
		t.Errorf("CreateFenced with a pass that ended = %v", err)
	}

	// So does a create.
	pass = miss()
	for range 2 { // it is safe to repeat
		if err := createWith(pass); err != nil {
			t.Fatal(err)
		}
	}
	if got := client.Get(ctx, "link:a").Val(); got != other.Target+"\n{\"o\":\"o\",\"v\":4}" {
		t.Errorf("created is %q", got)
	}
	evict()
	store.Restore(ctx, []redisstore.Record{old}, []string{pass})
	if err := createWith(pass); !errors.Is(err, redisstore.ErrPass) || client.Exists(ctx, "link:a").Val() != 0 {
		t.Errorf("CreateFenced with a pass that a create ended = %v", err)
	}
	if _, err := store.Update(ctx, code, "00", other); !errors.Is(err, link.ErrNotFound) {
		t.Errorf("Update of what is not there = %v", err)
	}
}

// Only a record that is still as it was archived may be evicted. One that was not written since, or
// cannot be older than the archive's, is settled.
func TestExpireAndSettle(t *testing.T) {
	store, client := inFrontOfAnArchive(t)
	ctx := t.Context()
	record := func(text string) redisstore.Record {
		r, err := store.Record("a", text)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	was, row := record("https://example.com/was\n{\"v\":2}"), record("https://example.com/row\n{\"v\":5}")
	for _, c := range []struct {
		name, is, want string
		ttl            time.Duration
		expires        bool
	}{
		{"as it was read, archived", was.Text, row.Text, time.Hour, true},
		{"as it was read, changed since", was.Text, "https://example.com/was\n{\"v\":6}", 0, true},
		{"another", "https://example.com/", "https://example.com/", 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			client.Set(ctx, "link:a", c.is, c.ttl)
			if err := errors.Join(store.Settle(ctx, []redisstore.Record{was}, []redisstore.Record{row})...); err != nil {
				t.Fatal(err)
			}
			if got := client.Get(ctx, "link:a").Val(); got != c.want {
				t.Errorf("settled is %q, want %q", got, c.want)
			}
			client.Set(ctx, "link:a", c.is, 0)
			until := time.Now().Add(time.Minute)
			if err := errors.Join(store.Expire(ctx, []redisstore.Archived{{Record: was, Until: until}})...); err != nil {
				t.Fatal(err)
			}
			if ttl := client.PTTL(ctx, "link:a").Val(); (ttl > 0) != c.expires || ttl > time.Minute {
				t.Errorf("its time to live is %s", ttl)
			}
		})
	}
	client.Set(ctx, "link:a", was.Text, 10*time.Second) // restored: its hour bounds how long it may be wrong
	err := errors.Join(store.Expire(ctx, []redisstore.Archived{{Record: was, Until: time.Now().Add(time.Minute)}})...)
	if ttl := client.PTTL(ctx, "link:a").Val(); ttl <= 0 || ttl > 10*time.Second || err != nil {
		t.Errorf("the time to live of a restored record became %s, %v", ttl, err)
	}
	created := record("https://example.com/created")
	client.Set(ctx, "link:a", created.Text, 0) // sent twice, and late
	if err := errors.Join(store.Settle(ctx, []redisstore.Record{created}, []redisstore.Record{row})...); err != nil {
		t.Fatal(err)
	}
	if got := client.Get(ctx, "link:a").Val(); got != row.Text {
		t.Errorf("settled is %q, want %q", got, row.Text)
	}
}

// Nothing may be evicted, and Redis is full: creates are refused, and deletes are made and marked.
func TestFullRedisInFrontOfAnArchive(t *testing.T) {
	store, client := inFrontOfAnArchive(t, "maxmemory-policy volatile-lru")
	ctx := t.Context()
	mustCreate(t, store, "a", nil)
	_, marks := taken(t, store)
	if err := errors.Join(store.Done(ctx, marks), client.ConfigSet(ctx, "maxmemory", "1").Err()); err != nil {
		t.Fatal(err)
	}
	if err := store.Create(ctx, "o", "b", link.Link{Target: "https://example.com/"}); !errors.Is(err, link.ErrFull) {
		t.Errorf("Create = %v, want ErrFull", err)
	}
	pass := store.Miss(ctx, []string{"c"})[0].Pass
	err := store.CreateFenced(ctx, "o", []redisstore.Fenced{{Coded: link.Coded{Code: "c", Link: link.Link{Target: "https://example.com/"}}, Pass: pass}})[0]
	if !errors.Is(err, link.ErrFull) { // although Redis evicts the pass
		t.Errorf("CreateFenced = %v, want ErrFull", err)
	}
	if err := update(ctx, store, "a", &link.Options{Deleted: true}); err != nil {
		t.Errorf("Update = %v", err)
	}
	if err := client.ConfigSet(ctx, "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if codes, _ := taken(t, store); !slices.Equal(codes, []string{"a"}) { // nothing for what was refused
		t.Errorf("marked are %v", codes)
	}
}

// Marks are deleted whole or not at all. One that the group no longer knows, and that is still in the
// stream, would stay for ever: the oldest that is not archived.
func TestMarksAreDeletedWhole(t *testing.T) {
	store, client := inFrontOfAnArchive(t)
	ctx := t.Context()
	mustCreate(t, store, "a", nil)
	_, marks := taken(t, store)
	if err := client.Do(ctx, "ACL", "SETUSER", "default", "-xdel").Err(); err != nil {
		t.Fatal(err)
	}
	if err := store.Done(ctx, marks); err == nil {
		t.Fatal("Done succeeded without XDEL")
	}
	if p := client.XPending(ctx, "outbox", "archivers").Val(); p == nil || p.Count != 1 {
		t.Errorf("nobody will take the mark again, which is still there: %+v", p)
	}
	if err := client.Do(ctx, "ACL", "SETUSER", "default", "+xdel").Err(); err != nil {
		t.Fatal(err)
	}
	if err := store.Done(ctx, marks); err != nil {
		t.Fatal(err)
	}
	if n, _, err := store.Backlog(ctx); n != 0 || err != nil {
		t.Errorf("Backlog = %d, %v", n, err)
	}
}
