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
	for q := (link.Query{Owner: "o", N: 300}); ; {
		page, err := store.List(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		if listed == 0 && page.Links[0].Code != links[made-1].Code {
			t.Errorf("the first is %s, want %s", page.Links[0].Code, links[made-1].Code)
		}
		if page.Newest == nil || *page.Newest != 1000 {
			t.Errorf("the list says that it reaches back to %v", page.Newest)
		}
		for _, l := range page.Links {
			listed, last = listed+1, l.Code
		}
		if q.Cursor = page.Next; q.Cursor == "" {
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
	page, err := store.List(t.Context(), link.Query{Owner: "o", N: 10})
	if len(page.Links) != 0 || page.Next != "" || page.Newest == nil || *page.Newest != 0 || err != nil {
		t.Errorf("List = %+v, %v", page, err)
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
	var newest []string // first
	for _, q := range []link.Query{{N: 1}, {N: 3}, {N: 64}, {N: 1, Oldest: true}, {N: 3, Oldest: true}, {N: 64, Oldest: true}} {
		var listed []string
		for q.Owner = "o"; ; {
			page, err := store.List(t.Context(), q)
			if err != nil || len(page.Links) > q.N {
				t.Fatal(len(page.Links), err)
			}
			for _, l := range page.Links {
				listed = append(listed, l.Code)
			}
			if q.Cursor = page.Next; q.Cursor == "" {
				break
			}
		}
		if q.Oldest {
			slices.Reverse(listed)
		}
		if newest == nil {
			newest = slices.Clone(listed)
		}
		if !slices.Equal(listed, newest) {
			t.Errorf("by %d, oldest first %v: listed %q, want %q", q.N, q.Oldest, listed, newest)
		}
		slices.Sort(listed)
		if n := len(slices.Compact(listed)); n != made {
			t.Errorf("by %d: %d links are listed, want %d", q.N, n, made)
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
	page, err := store.List(t.Context(), link.Query{Owner: "o", N: 100})
	after := 0
	for _, l := range page.Links {
		if strings.HasPrefix(l.Code, "after") {
			after++
		}
	}
	if err != nil || after != 9 {
		t.Errorf("%d of 9 links are listed, %v", after, err)
	}
}
