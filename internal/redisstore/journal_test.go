package redisstore_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/redisstore"
)

// A journal is bounded, in entries and in bytes, and forgets the oldest.
func TestJournalIsBounded(t *testing.T) {
	store, client := withRedis(t) // JournalMax is 1000
	ctx := t.Context()
	const made, most = 12000, 4 * 1000
	links := make([]link.Coded, made)
	for i := range links {
		links[i] = link.Coded{Code: fmt.Sprintf("8h4LR%05d", i), Link: link.Link{Target: "https://example.com/"}}
	}
	for i, err := range store.CreateAll(ctx, "o", links) {
		if err != nil {
			t.Fatal(i, err)
		}
	}
	listed, last := 0, ""
	for cursor := ""; ; {
		page, next, err := store.List(ctx, "o", cursor, 300, nil)
		if err != nil {
			t.Fatal(err)
		}
		if listed == 0 && page[0].Code != links[made-1].Code {
			t.Errorf("the first is %s, want %s", page[0].Code, links[made-1].Code)
		}
		for _, l := range page {
			listed, last = listed+1, l.Code
		}
		if cursor = next; cursor == "" {
			break
		}
	}
	// Redis cuts whole nodes of 100 entries.
	if listed < most || listed > most+4*100 || last != links[made-listed].Code {
		t.Errorf("%d links are listed, the last of them %s", listed, last)
	}
	bytes, err := client.MemoryUsage(ctx, "journal:o", 0).Result()
	if err != nil || bytes > int64(25*listed) {
		t.Errorf("a journal of %d links takes %d bytes, %v", listed, bytes, err)
	}
	t.Logf("%.1f bytes a link", float64(bytes)/float64(listed))
}

func TestNoJournal(t *testing.T) {
	r := fleettest.Redis(t)
	store := openWith(t, "redis://"+r.Addr, quiet, redisstore.Options{})
	mustCreate(t, store, "a", nil)
	if links, next, err := store.List(t.Context(), "o", "", 10, nil); len(links) != 0 || next != "" || err != nil {
		t.Errorf("List = %v, %q, %v", links, next, err)
	}
}

// The journal of an owner who does nothing would be evicted first, and whole, while its links are
// in use.
func TestIdleJournalsAreKept(t *testing.T) {
	t.Parallel()
	cluster := fleettest.Start(t, fleet.Options{NoBackends: true, NoNginx: true, Cluster: true}).Cluster
	store := open(t, cluster.URL(), quiet)
	addrs := strings.Split(strings.TrimPrefix(cluster.URL(), "redis://"), ",")
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs})
	defer client.Close()
	ctx := t.Context()
	owners := []string{"a", "b", "c", "d"}
	for _, owner := range append(owners, "idle") {
		if err := store.Create(ctx, owner, owner, link.Link{Target: "https://example.com/"}); err != nil {
			t.Fatal(err)
		}
		key := "journal:" + owner
		journal, err := client.Dump(ctx, key).Result()
		if err == nil {
			err = client.Do(ctx, "restore", key, 0, journal, "replace", "idletime", 3600).Err()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	idle := func(owner string) bool {
		idle, err := client.ObjectIdleTime(ctx, "journal:"+owner).Result()
		if err != nil {
			t.Fatal(err)
		}
		return idle >= time.Hour
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan error, 1)
	watcher := store.NewWatcher(func() []string { return owners }, quiet, prometheus.NewRegistry())
	go func() { watched <- watcher.Watch(ctx) }()
	fleettest.Eventually(t, 20*time.Second, "all journals look used", func() bool { return !slices.ContainsFunc(owners, idle) })
	if !idle("idle") {
		t.Error("so does one without an owner")
	}
	cancel()
	if err := <-watched; err != nil {
		t.Error(err)
	}
}

// Links that are created at the same moment share entries, and a list may end and go on in the
// middle of one.
func TestLinksOfAMomentShareAnEntry(t *testing.T) {
	store, client := withRedis(t)
	const made = 200
	var wg sync.WaitGroup
	for i := range made {
		wg.Go(func() { mustCreate(t, store, fmt.Sprintf("8h4LRT%04d", i), nil) })
	}
	wg.Wait()
	entries, err := client.XLen(t.Context(), "journal:o").Result()
	if err != nil || entries < made/4 || entries > made*3/4 {
		t.Errorf("%d links have %d entries, %v", made, entries, err)
	}
	for _, n := range []int{1, 3, 64} {
		listed := make(map[string]int)
		for cursor := ""; ; {
			page, next, err := store.List(t.Context(), "o", cursor, n, nil)
			if err != nil || len(page) > n {
				t.Fatal(len(page), err)
			}
			for _, l := range page {
				listed[l.Code]++
			}
			if cursor = next; cursor == "" {
				break
			}
		}
		if len(listed) != made {
			t.Errorf("by %d: %d links are listed, want %d", n, len(listed), made)
		}
		for code, times := range listed {
			if times != 1 {
				t.Errorf("by %d: %s is listed %d times", n, code, times)
			}
		}
	}
}

// Creates give up while Redis hangs. Afterwards the journal goes on as before, also with links on
// an entry that nobody waits for any more.
func TestJournalOutlivesCreatesThatGaveUp(t *testing.T) {
	r := fleettest.Redis(t)
	store := open(t, "redis://"+r.Addr, quiet)
	l := link.Link{Target: "https://example.com/"}
	for round := range 3 {
		r.Pause()
		var creates sync.WaitGroup
		for i := range 3 { // an entry under way, and the next one
			creates.Go(func() {
				if err := store.Create(context.Background(), "o", fmt.Sprintf("hung%d%d", round, i), l); err == nil {
					t.Error("a create succeeded while Redis hung")
				}
			})
			time.Sleep(20 * time.Millisecond)
		}
		creates.Wait()
		r.Resume()
		fleettest.Eventually(t, 20*time.Second, "Redis is back", func() bool { return store.Ping(t.Context()) == nil })
		for i := range 3 {
			if err := store.Create(context.Background(), "o", fmt.Sprintf("after%d%d", round, i), l); err != nil {
				t.Fatalf("create %d after hang %d: %v", i, round, err)
			}
		}
	}
	links, _, err := store.List(t.Context(), "o", "", 100, func(l link.Coded) bool { return strings.HasPrefix(l.Code, "after") })
	if err != nil || len(links) != 9 {
		t.Errorf("%d of 9 links are listed, %v", len(links), err)
	}
}
