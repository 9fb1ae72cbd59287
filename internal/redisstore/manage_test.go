package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
)

// withRedis is a store and, beside it, a client of its Redis.
func withRedis(t *testing.T, config ...string) (testStore, *redis.Client) {
	t.Helper()
	addr := fleettest.Redis(t, config...).Addr
	client := fleettest.RedisClient(t, addr)
	return open(t, "redis://"+addr, quiet), client
}

func mustCreate(t *testing.T, store testStore, code string, o *link.Options) {
	t.Helper()
	if err := store.Create(t.Context(), "o", code, link.Link{Target: "https://example.com/", Options: o}); err != nil {
		t.Fatalf("Create(%s) = %v", code, err)
	}
}

func update(ctx context.Context, store testStore, code string, o *link.Options) error {
	state, err := store.Read(ctx, code)
	if err != nil {
		return err
	}
	_, err = store.Update(ctx, code, state.Version, link.Link{Target: "https://example.com/", Options: o})
	return err
}

// Redis itself forgets a link and its count when the grace is over. It never forgets a link that
// has no end.
func TestRedisForgetsAfterTheGrace(t *testing.T) {
	store, client := withRedis(t)
	expires := time.UnixMilli(time.Now().Add(time.Hour).UnixMilli()).UTC()
	limited := &link.Options{Expires: expires, MaxVisits: 3}
	mustCreate(t, store, "plain", nil)
	mustCreate(t, store, "expires", &link.Options{Expires: expires})
	mustCreate(t, store, "limited", limited)
	mustCreate(t, store, "becomes", nil)
	mustCreate(t, store, "endless", limited)
	mustCreate(t, store, "deleted", &link.Options{MaxVisits: 3})
	for code, o := range map[string]*link.Options{"becomes": limited, "endless": {MaxVisits: 3}, "deleted": {Deleted: true}} {
		if err := update(t.Context(), store, code, o); err != nil {
			t.Fatal(err)
		}
	}
	const (
		none  = -2 // no such key, as PTTL has it
		never = -1
	)
	for _, tt := range []struct {
		code         string
		link, visits time.Duration // until they are forgotten
	}{
		{"plain", never, none},
		{"expires", time.Hour + link.Grace, none},
		{"limited", time.Hour + link.Grace, time.Hour + link.Grace},
		{"becomes", time.Hour + link.Grace, time.Hour + link.Grace},
		{"endless", never, never},
		{"deleted", link.Grace, none},
	} {
		for key, want := range map[string]time.Duration{"link:" + tt.code: tt.link, "visits:{link:" + tt.code + "}": tt.visits} {
			got, err := client.PTTL(t.Context(), key).Result()
			if err != nil || got > want || got < want-time.Minute && want > 0 || got < want && want < 0 {
				t.Errorf("%s is forgotten after %s, %v, want %s", key, got, err, want)
			}
		}
	}
}

// A count that was evicted closes its link, and only another limit opens it.
func TestLostCountClosesTheLink(t *testing.T) {
	store, client := withRedis(t)
	ctx := t.Context()
	mustCreate(t, store, "a", &link.Options{MaxVisits: 3})
	gone := func(when string) {
		t.Helper()
		if _, err := store.Visit(ctx, "a"); !errors.Is(err, link.ErrGone) {
			t.Errorf("Visit %s = %v, want ErrGone", when, err)
		}
	}
	if n, err := client.Del(ctx, "visits:{link:a}").Result(); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	gone("after the loss")
	mustCreate(t, store, "a", &link.Options{MaxVisits: 3})
	gone("after the same create again")
	if err := update(ctx, store, "a", &link.Options{MaxVisits: 3, Title: "x"}); err != nil {
		t.Fatal(err)
	}
	gone("after a change of something else")
	if err := update(ctx, store, "a", &link.Options{MaxVisits: 2}); err != nil {
		t.Fatal(err)
	}
	if state, err := store.Read(ctx, "a"); state.VisitsLeft != 2 || err != nil {
		t.Errorf("after a change of the limit: %+v, %v, want 2 visits left", state, err)
	}
}

// A link loses its limit while it is visited. The visit is not refused, and it leaves no count
// behind, which would stay in Redis for good.
func TestVisitsWhileTheLimitComesAndGoes(t *testing.T) {
	store, client := withRedis(t)
	ctx := t.Context()
	mustCreate(t, store, "a", nil)
	done := make(chan struct{})
	var visitors sync.WaitGroup
	for range 8 {
		visitors.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := store.Visit(ctx, "a"); err != nil {
					t.Errorf("Visit = %v", err)
					return
				}
			}
		})
	}
	for i := range 201 { // the last one takes the limit away
		var o *link.Options
		if i%2 == 1 {
			o = &link.Options{MaxVisits: 1_000_000}
		}
		if err := update(ctx, store, "a", o); err != nil {
			t.Error(err)
		}
		if n, err := client.Exists(ctx, "visits:{link:a}").Result(); n != int64(i%2) || err != nil {
			t.Errorf("after change %d there are %d counts, %v", i, n, err)
		}
	}
	close(done)
	visitors.Wait()
	if n, err := client.Exists(ctx, "visits:{link:a}").Result(); n != 0 || err != nil {
		t.Errorf("%d counts were left behind, %v", n, err)
	}
}

// A count that outlived its link says nothing of the next one under its code.
func TestCountThatWasLeftOverIsNotRead(t *testing.T) {
	store, client := withRedis(t)
	ctx := t.Context()
	for _, code := range []string{"a", "b"} {
		client.Set(ctx, "visits:{link:"+code+"}", 99, 0)
	}
	mustCreate(t, store, "a", &link.Options{MaxVisits: 3})
	mustCreate(t, store, "b", nil)
	if state, err := store.Read(ctx, "b"); state.VisitsLeft != 0 || err != nil {
		t.Errorf("a link without a limit: %+v, %v", state, err)
	}
	if err := update(ctx, store, "b", &link.Options{MaxVisits: 3}); err != nil {
		t.Fatal(err)
	}
	for _, code := range []string{"a", "b"} {
		if state, err := store.Read(ctx, code); state.VisitsLeft != 3 || err != nil {
			t.Errorf("%s: %+v, %v, want 3 visits left", code, state, err)
		}
	}
}

func TestScriptsAreLoadedAgain(t *testing.T) {
	store, client := withRedis(t)
	ctx := t.Context()
	limited := link.Link{Target: "https://example.com/", Options: &link.Options{MaxVisits: 3}}
	for name, op := range map[string]func() error{
		"Create": func() error { return store.Create(ctx, "o", "new", limited) },
		"Visit":  func() error { _, err := store.Visit(ctx, "old"); return err },
		"Update": func() error { return update(ctx, store, "old", nil) },
		"CreateAll": func() error {
			return errors.Join(store.CreateAll(ctx, "o", []link.Coded{{Code: "many", Link: limited}})...)
		},
	} {
		mustCreate(t, store, "old", nil)
		if err := client.ScriptFlush(ctx).Err(); err != nil {
			t.Fatal(err)
		}
		if err := op(); err != nil {
			t.Errorf("%s after SCRIPT FLUSH = %v", name, err)
		}
	}
}

// A master that took over after the script was loaded does not know it.
func TestBulkWithoutItsScript(t *testing.T) {
	store, client := withRedis(t)
	ctx := t.Context()
	if err := client.Do(ctx, "acl", "setuser", "default", "-script|load").Err(); err != nil {
		t.Fatal(err)
	}
	links := make([]link.Coded, 700)
	for i := range links {
		links[i] = link.Coded{Code: fmt.Sprint(i), Link: link.Link{Target: "https://example.com/", Options: &link.Options{MaxVisits: int64(i % 2)}}}
	}
	for i, err := range store.CreateAll(ctx, "o", links) {
		if err != nil {
			t.Fatal(i, err)
		}
	}
	for i, l := range links {
		if state, err := store.Read(ctx, l.Code); err != nil || state.VisitsLeft != int64(i%2) {
			t.Fatalf("%d is %+v, %v", i, state, err)
		}
	}
}

// While one master of a Cluster is dead, the links of the others are created, in whatever order
// they come.
func TestBulkWithADeadMaster(t *testing.T) {
	t.Parallel()
	cluster := fleettest.Start(t, fleet.Options{NoBackends: true, NoNginx: true, Cluster: true}).Cluster
	store := open(t, cluster.URL(), quiet)
	ctx := t.Context()
	onDead := onFirst(t, cluster)
	owner := "o"
	for onDead("journal:" + owner) {
		owner += "o"
	}
	var dead, alive []link.Coded
	for i := 0; len(dead) < 600 || len(alive) < 600; i++ {
		l := link.Coded{Code: fmt.Sprint("c", i), Link: link.Link{Target: "https://example.com/"}}
		if onDead("link:" + l.Code) {
			dead = append(dead, l)
		} else {
			alive = append(alive, l)
		}
	}
	dead, alive = dead[:600], alive[:600]
	var links []link.Coded
	for i := range dead {
		links = append(links, alive[i], dead[i]) // so that a round trip ends with a dead one
	}
	if err := store.Ping(ctx); err != nil { // it knows the Cluster before
		t.Fatal(err)
	}
	cluster[0].Kill()
	for i, err := range store.CreateAll(ctx, owner, links) {
		if i%2 == 0 && err != nil {
			t.Fatalf("link %d, of a living master: %v", i, err)
		}
		if i%2 == 1 && err != nil && !errors.Is(err, link.ErrUnavailable) { // nil when its replica took over
			t.Fatalf("link %d, of the dead one: %v, want ErrUnavailable", i, err)
		}
	}
}

// A full Redis that evicts nothing refuses links, and nothing else.
func TestFullRedisServesAndDeletes(t *testing.T) {
	store, client := withRedis(t, "maxmemory-policy noeviction")
	ctx := t.Context()
	mustCreate(t, store, "a", &link.Options{MaxVisits: 1})
	mustCreate(t, store, "b", nil)
	if err := client.ConfigSet(ctx, "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	l := link.Link{Target: "https://example.com/", Options: &link.Options{MaxVisits: 3}}
	create := store.Create(ctx, "o", "new", l)
	all := store.CreateAll(ctx, "o", []link.Coded{{Code: "new", Link: l}, {Code: "new", Link: link.Link{Target: l.Target}}})
	_, promise := store.Promise(ctx, "k", "v", time.Minute)
	for i, err := range append(all, create, promise) {
		if !errors.Is(err, link.ErrFull) {
			t.Errorf("write %d = %v, want ErrFull", i, err)
		}
	}
	if _, err := store.Visit(ctx, "a"); err != nil {
		t.Errorf("Visit = %v", err)
	}
	if _, err := store.Visit(ctx, "a"); !errors.Is(err, link.ErrGone) {
		t.Errorf("Visit = %v, want ErrGone", err)
	}
	if err := update(ctx, store, "b", &link.Options{Deleted: true}); err != nil {
		t.Errorf("deleting = %v", err)
	}
}

// A link whose options cannot be read is not followed, and the log says so.
func TestUnreadableRecord(t *testing.T) {
	r := fleettest.Redis(t)
	client := fleettest.RedisClient(t, r.Addr)
	var log fleettest.Output
	store := open(t, "redis://"+r.Addr, slog.New(slog.NewTextHandler(&log, nil)))
	ctx := t.Context()
	mustCreate(t, store, "good", nil)
	mustCreate(t, store, "bad", nil)
	client.Set(ctx, "link:bad", "https://example.com/\n{", 0)
	_, get := store.Get(ctx, "bad")
	_, read := store.Read(ctx, "bad")
	_, visit := store.Visit(ctx, "bad")
	for i, err := range []error{get, read, visit} {
		if !errors.Is(err, link.ErrUnreadable) || errors.Is(err, link.ErrUnavailable) || errors.Is(err, link.ErrNotFound) {
			t.Errorf("read %d = %v, want ErrUnreadable alone", i, err)
		}
	}
	if page, err := store.List(ctx, link.Query{Owner: "o", N: 10}); len(page.Links) != 1 || page.Links[0].Code != "good" || err != nil {
		t.Errorf("List = %v, %v, want the good one", page, err)
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "link:bad") {
		t.Errorf("want one line that names the key, got:\n%s", got)
	}
}

func TestOutageOfWhatManagesLinks(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	store := open(t, "redis://"+r.Addr, quiet)
	ctx := t.Context()
	r.Kill()
	links := make([]link.Coded, 10_000)
	for i := range links {
		links[i] = link.Coded{Code: fmt.Sprint(i), Link: link.Link{Target: "https://example.com/", Options: &link.Options{MaxVisits: int64(i % 2)}}}
	}
	for name, op := range map[string]func() error{
		"Read":    func() error { _, err := store.Read(ctx, "a"); return err },
		"Visit":   func() error { _, err := store.Visit(ctx, "a"); return err },
		"Update":  func() error { _, err := store.Update(ctx, "a", "00", link.Link{}); return err },
		"List":    func() error { _, err := store.List(ctx, link.Query{Owner: "o", N: 10}); return err },
		"Promise": func() error { _, err := store.Promise(ctx, "k", "v", time.Minute); return err },
		"Retract": func() error { return store.Retract(ctx, "k", "v") },
		"Create":  func() error { return store.Create(ctx, "o", "a", links[1].Link) },
		"CreateAll": func() error {
			errs := store.CreateAll(ctx, "o", links)
			if len(errs) != len(links) || slices.ContainsFunc(errs, func(err error) bool { return !errors.Is(err, link.ErrUnavailable) }) {
				return fmt.Errorf("%d errors, some not ErrUnavailable", len(errs))
			}
			return errs[0]
		},
	} {
		started := time.Now()
		if err := op(); !errors.Is(err, link.ErrUnavailable) || errors.Is(err, link.ErrNotFound) {
			t.Errorf("%s with Redis away = %v, want ErrUnavailable alone", name, err)
		}
		if took := time.Since(started); took > 5*time.Second {
			t.Errorf("%s with Redis away took %s", name, took)
		}
	}
}

func TestPromise(t *testing.T) {
	store, client := withRedis(t)
	ctx := t.Context()
	want := func(value, want string) {
		t.Helper()
		if got, err := store.Promise(ctx, "k", value, time.Minute); got != want || err != nil {
			t.Errorf("Promise(%q) = %q, %v, want %q", value, got, err, want)
		}
	}
	want("one", "")
	want("two", "one")
	want("one", "one")
	if ttl, err := client.PTTL(ctx, "idem:k").Result(); err != nil || ttl > time.Minute || ttl < 30*time.Second {
		t.Errorf("it is kept for %s, %v", ttl, err)
	}
	forget := func(value string) {
		t.Helper()
		if err := store.Retract(ctx, "k", value); err != nil {
			t.Errorf("Retract(%q) = %v", value, err)
		}
	}
	forget("two")
	want("two", "one") // it was another one's
	for range 2 {      // forgetting what is not there is fine
		forget("one")
	}
	want("two", "")
	client.ConfigSet(ctx, "maxmemory-policy", "noeviction")
	client.ConfigSet(ctx, "maxmemory", "1")
	forget("two")
	if n := client.Exists(ctx, "idem:k").Val(); n != 0 {
		t.Error("a full Redis did not forget")
	}
}
