package redisstats_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"snowlink/internal/clicks"
	"snowlink/internal/embedded"
	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/stats"
	"snowlink/internal/stats/redisstats"
	"snowlink/internal/stats/statstest"
)

// quiet is the log of tests that do not look at it.
var quiet = slog.New(slog.DiscardHandler)

const (
	day   = 24 * time.Hour
	years = 11 * 366 * day // what the contract needs
)

func open(t testing.TB, url string, log *slog.Logger, o redisstats.Options) *redisstats.Store {
	t.Helper()
	return redisstats.New(fleettest.Conn(t, url, log), log, prometheus.NewRegistry(), o)
}

// contract runs the contract test over the Redis at a URL, which flush empties.
func contract(t *testing.T, url string, flush func(ctx context.Context) error) {
	another := func(t *testing.T) stats.Store { return open(t, url, quiet, redisstats.Options{Keep: years}) }
	statstest.Run(t, func(t *testing.T) stats.Store {
		if err := flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		return another(t)
	}, statstest.Traits{Another: another})
}

func TestContract(t *testing.T) {
	t.Run("redis-server", func(t *testing.T) {
		addr := fleettest.Redis(t).Addr
		contract(t, "redis://"+addr, func(ctx context.Context) error { return fleettest.RedisClient(t, addr).FlushAll(ctx).Err() })
	})
	t.Run("Redis Cluster", func(t *testing.T) {
		cluster := fleettest.Start(t, fleet.Options{NoBackends: true, NoNginx: true, Cluster: true}).Cluster
		conn := fleettest.Conn(t, cluster.URL(), quiet)
		contract(t, cluster.URL(), func(ctx context.Context) error {
			return conn.Client.(*redis.ClusterClient).ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
				return c.FlushAll(ctx).Err()
			})
		})
	})
	t.Run("embedded", func(t *testing.T) {
		r, err := embedded.Start()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		conn := fleettest.Conn(t, r.URL(), quiet)
		contract(t, r.URL(), func(ctx context.Context) error { return conn.Client.FlushAll(ctx).Err() })
	})
}

// today is a batch of clicks today, of links each clicked once.
func today(producer string, number uint64, links int) clicks.Batch {
	b := clicks.Batch{Producer: producer, Number: number}
	hour := time.Now().UTC().Truncate(time.Hour)
	for i := range links {
		n := number*uint64(links) + uint64(i)
		b.Counts = append(b.Counts, clicks.Count{
			Code: fmt.Sprintf("8h4L%06x", n), Owner: "owner", Hour: hour, Clicks: 1, Visitors: []uint64{n * 0x9e3779b97f4a7c15},
			Facts: []clicks.FactCount{{Facts: realistic(n), Clicks: 1}},
		})
	}
	return b
}

// realistic makes facts of which some hundred combinations are frequent.
func realistic(n uint64) clicks.Facts {
	n *= 0x9e3779b97f4a7c15
	pick := func(values ...string) string {
		n ^= n >> 29
		n *= 0xbf58476d1ce4e5b9
		a, b := n>>33%uint64(len(values)), n>>13%uint64(len(values))
		return values[min(a, b)] // the first ones are more frequent
	}
	return clicks.Facts{
		clicks.Country:  pick("DE", "US", "FR", "GB", "ES", "IT", "PL", "NL"),
		clicks.Referrer: pick("", "news.example.com", "google.com", "t.co", "example.org"),
		clicks.Browser:  pick("Chrome", "Safari", "Firefox", "Edge"),
		clicks.OS:       pick("Windows", "iOS", "Android", "macOS", "Linux"),
		clicks.Device:   pick("desktop", "phone", "tablet"),
		clicks.Source:   pick("", "", "newsletter"),
	}
}

func apply(t testing.TB, store stats.Store, batches ...clicks.Batch) {
	t.Helper()
	if _, err := store.Apply(context.WithoutCancel(t.Context()), batches); err != nil {
		t.Fatal(err)
	}
}

// ofTwoDays is a question about yesterday and today.
func ofTwoDays(s stats.Scope) stats.Question {
	now := time.Now().UTC().Truncate(day)
	return stats.Question{Scope: s, From: now.Add(-day), To: now.Add(day), Bots: stats.WithBots}
}

func ask(t testing.TB, store stats.Store, q stats.Question) stats.Answer {
	t.Helper()
	a, err := store.Ask(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Everything that is written has a time to live. What is of a day is gone when that is not kept
// anymore.
func TestEverythingExpires(t *testing.T) {
	addr := fleettest.Redis(t).Addr
	const keep = 90 * day
	store := open(t, "redis://"+addr, quiet, redisstats.Options{Keep: keep})
	b := today("p", 1, 100)
	b.Counts[0].Tags = []string{"tag"}
	b.Misses = []clicks.Miss{{Hour: b.Counts[0].Hour, Code: "none", Clicks: 1}}
	ordered := today("kafka:t/0", 2, 100)
	ordered.Ordered = true
	for i := range ordered.Counts {
		ordered.Counts[i].Number = uint64(i)
	}
	apply(t, store, b, ordered)
	if err := store.Forget(t.Context(), b.Counts[1].Code); err != nil {
		t.Fatal(err)
	}
	fleettest.Background(t, store.Tend)
	client := fleettest.RedisClient(t, addr)
	fleettest.Eventually(t, 10*time.Second, "somebody tended", func() bool {
		return client.Exists(t.Context(), "clicks:tended").Val() == 1 && client.Exists(t.Context(), "clicks:settled:"+time.Now().UTC().AddDate(0, 0, -7).Format(time.DateOnly)).Val() == 1
	})
	keys := client.Keys(t.Context(), "*").Val()
	if len(keys) < 200 {
		t.Fatalf("there are only %d keys", len(keys))
	}
	for _, key := range keys {
		if ttl := client.TTL(t.Context(), key).Val(); ttl <= 0 || ttl > keep+5*day {
			t.Errorf("%s lives for %s", key, ttl)
		}
		if !strings.HasPrefix(key, "clicks:") {
			t.Errorf("there is a key %s", key)
		}
	}
	// Clicks of a day that is not kept are not kept.
	old := today("p", 3, 1)
	old.Counts[0].Hour = old.Counts[0].Hour.Add(-keep - 3*day)
	apply(t, store, old)
	if n := len(client.Keys(t.Context(), "clicks:"+old.Counts[0].Hour.Format(time.DateOnly)+"*").Val()); n != 0 {
		t.Errorf("%d keys are of a day that is not kept", n)
	}
}

// A forgotten link is in no key.
func TestForgottenLinkIsInNoKey(t *testing.T) {
	addr := fleettest.Redis(t).Addr
	store := open(t, "redis://"+addr, quiet, redisstats.Options{Keep: 90 * day})
	b := today("p", 1, 10)
	for n := range 30 { // of many days
		b := today("p", uint64(n+2), 10)
		for i := range b.Counts {
			b.Counts[i].Code = fmt.Sprint("code", i)
			b.Counts[i].Hour = b.Counts[i].Hour.AddDate(0, 0, -n)
			b.Counts[i].Tags = nil
		}
		apply(t, store, b)
	}
	apply(t, store, b)
	client := fleettest.RedisClient(t, addr)
	has := func() (keys []string) {
		for _, key := range client.Keys(t.Context(), "*").Val() {
			if text, err := client.Get(t.Context(), key).Result(); err == nil && strings.Contains(text, "lcode3") {
				keys = append(keys, key)
			}
		}
		return keys
	}
	if n := len(has()); n != 30 {
		t.Fatalf("the link is in %d keys, want 30", n)
	}
	if err := store.Forget(t.Context(), "code3"); err != nil {
		t.Fatal(err)
	}
	if keys := has(); len(keys) != 0 {
		t.Errorf("the link is still in %q", keys)
	}
	if totals, err := store.Totals(t.Context(), []string{"code3", "code4"}); err != nil || totals[0] != 0 || totals[1] != 30 {
		t.Errorf("Totals = %v, %v", totals, err)
	}
}

// A million links that are clicked once each take no more memory than clicks may, and the days before
// are forgotten first. What all of them were clicked stays exact.
func TestMemoryIsBounded(t *testing.T) {
	const each, most = 20_000, 12 << 20
	batches := 50
	if testing.Short() {
		batches = 5
	}
	// The buffer of the append-only file grows as long as the disk is busy. It is no memory of clicks.
	r := fleettest.Redis(t, "maxmemory "+fmt.Sprint(10*most), "maxmemory-policy noeviction", "appendonly no")
	conn := fleettest.Conn(t, "redis://"+r.Addr, quiet)
	used := func() int64 {
		info, err := conn.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return int64(info.Used)
	}
	var log fleettest.Output
	store := open(t, "redis://"+r.Addr, slog.New(slog.NewTextHandler(&log, nil)), redisstats.Options{Keep: 90 * day})
	empty := used()
	old := func(days int) stats.Question {
		at := time.Now().UTC().Truncate(day).AddDate(0, 0, -days)
		return stats.Question{From: at, To: at.Add(day)}
	}
	for n := range 3 {
		b := today("old", uint64(n+1), 1000)
		for i := range b.Counts {
			b.Counts[i].Hour = b.Counts[i].Hour.AddDate(0, 0, -n-1)
		}
		apply(t, store, b)
		if a := ask(t, store, old(n+1)); a.Clicks != 1000 {
			t.Fatalf("%d clicks, want 1000", a.Clicks)
		}
	}
	highest := int64(0)
	for n := range batches {
		apply(t, store, today("p", uint64(n+1), each))
		highest = max(highest, used()-empty)
	}
	t.Logf("%d links, each clicked once: at most %d KiB were used, of %d KiB", batches*each, highest>>10, most>>10)
	if highest > most+most/10 { // a second's clicks may be above it
		t.Errorf("%d bytes were used, of %d", highest, most)
	}
	if a := ask(t, store, ofTwoDays(stats.Scope{Owner: "owner"})); !testing.Short() && a.Clicks != int64(batches*each) {
		t.Errorf("%d clicks, want %d", a.Clicks, batches*each)
	}
	if testing.Short() {
		return
	}
	for n := range 3 {
		if a := ask(t, store, old(n+1)); a.Clicks != 0 {
			t.Errorf("%d clicks of an old day are there", a.Clicks)
		}
	}
	for _, line := range []string{"clicks of the oldest day were forgotten", "are left out until tomorrow"} {
		if !strings.Contains(log.String(), line) {
			t.Errorf("the log does not say %q:\n%s", line, &log)
		}
	}
	if since, _ := store.Since(time.Now()); since.Before(time.Now().UTC().Truncate(day)) {
		t.Errorf("clicks are said to be kept since %s", since)
	}
}

// Days are forgotten the oldest first, and as many as there must be.
func TestOldestDaysAreForgotten(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) string{
		"redis-server": func(t *testing.T) string { return "redis://" + fleettest.Redis(t).Addr },
		"Redis Cluster": func(t *testing.T) string {
			return fleettest.Start(t, fleet.Options{NoBackends: true, NoNginx: true, Cluster: true}).Cluster.URL()
		},
	} {
		t.Run(name, func(t *testing.T) {
			var log fleettest.Output
			const days = 20
			const links, most = 4000, 8 << 20
			store := open(t, start(t), slog.New(slog.NewTextHandler(&log, nil)), redisstats.Options{Keep: 90 * day, Most: most})
			at := func(ago int) time.Time { return time.Now().UTC().Truncate(day).AddDate(0, 0, -ago) }
			for ago := days - 1; ago >= 0; ago-- {
				b := today("p", uint64(days-ago), links)
				for i := range b.Counts {
					b.Counts[i].Hour = at(ago)
				}
				apply(t, store, b)
			}
			fleettest.Background(t, store.Tend) // which counts anew, and comes to the same
			kept := 0
			for ago := range days {
				switch a := ask(t, store, stats.Question{From: at(ago), To: at(ago).Add(day)}); {
				case a.Clicks == links && kept == ago:
					kept++
				case a.Clicks != 0 || kept == 0:
					t.Errorf("%d days ago there were %d clicks, and %d days are kept", ago, a.Clicks, kept)
				}
			}
			if kept < 4 || kept > 16 {
				t.Errorf("%d days are kept", kept)
			}
			if since, _ := store.Since(time.Now()); !since.Equal(at(kept - 1)) {
				t.Errorf("clicks are said to be kept since %s, want %s", since, at(kept-1))
			}
			if n := strings.Count(log.String(), "clicks of the oldest day were forgotten"); n != days-kept {
				t.Errorf("the log tells of %d days, want %d:\n%s", n, days-kept, &log)
			}
		})
	}
}

// Redis evicts pages after what is used less. A page that it lost is counted, and the log says so.
func TestEvictedPages(t *testing.T) {
	r := fleettest.Redis(t)
	client, reg := fleettest.RedisClient(t, r.Addr), prometheus.NewRegistry()
	var log fleettest.Output
	to := slog.New(slog.NewTextHandler(&log, nil))
	store := redisstats.New(fleettest.Conn(t, "redis://"+r.Addr, to), to, reg, redisstats.Options{Keep: 90 * day})
	gone := func() (n float64) {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "snowlink_clicks_redis_gone_pages_total" {
				n = f.GetMetric()[0].GetCounter().GetValue()
			}
		}
		return n
	}
	for n := range 2 {
		apply(t, store, today("p", uint64(n+1), 3))
	}
	if gone() != 0 {
		t.Errorf("%v pages are gone, of none", gone())
	}
	if err := client.Del(t.Context(), client.Keys(t.Context(), "clicks:2*:*").Val()...).Err(); err != nil {
		t.Fatal(err)
	}
	apply(t, store, today("p", 3, 3))
	if gone() == 0 || !strings.Contains(log.String(), " is gone") { // those of everything and of the owner
		t.Errorf("%v pages are gone. The log:\n%s", gone(), &log)
	}
	once := gone()
	if apply(t, store, today("p", 4, 3)); gone() != once {
		t.Errorf("%v pages are gone, %v before", gone(), once)
	}
}

// A Redis that is full refuses batches, which are added once there is room, each once.
func TestFullRedisRefusesAndIsRepeated(t *testing.T) {
	r := fleettest.Redis(t, "maxmemory-policy noeviction")
	store := open(t, "redis://"+r.Addr, quiet, redisstats.Options{Keep: 90 * day, Most: 64 << 20})
	client := fleettest.RedisClient(t, r.Addr)
	apply(t, store, today("p", 1, 100))
	if err := client.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := store.Apply(t.Context(), []clicks.Batch{today("p", 2, 100)}); !errors.Is(err, link.ErrUnavailable) {
			t.Fatalf("Apply to a full Redis = %v, want ErrUnavailable", err)
		}
	}
	if a := ask(t, store, ofTwoDays(stats.Scope{})); a.Clicks != 100 {
		t.Errorf("%d clicks, want 100", a.Clicks)
	}
	// What a link has can be deleted all the same.
	forgotten := today("p", 1, 100).Counts[7].Code
	if err := store.Forget(t.Context(), forgotten); err != nil {
		t.Error(err)
	}
	if a := ask(t, store, ofTwoDays(stats.Scope{Code: forgotten})); a.Clicks != 0 {
		t.Errorf("a forgotten link has %d clicks", a.Clicks)
	}
	if err := client.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	apply(t, store, today("p", 2, 100))
	apply(t, store, today("p", 2, 100))
	if a := ask(t, store, ofTwoDays(stats.Scope{})); a.Clicks != 200 || a.Visitors != 200 {
		t.Errorf("%d clicks of %d visitors, want 200", a.Clicks, a.Visitors)
	}
}

// What was applied is there after Redis and the process were restarted, and counts once.
func TestRestart(t *testing.T) {
	r := fleettest.Redis(t, "appendonly yes", "appendfsync always")
	store := open(t, "redis://"+r.Addr, quiet, redisstats.Options{Keep: 90 * day})
	for n := range uint64(20) {
		apply(t, store, today("p", n+1, 100))
	}
	r.Kill()
	if _, err := store.Apply(t.Context(), []clicks.Batch{today("p", 21, 100)}); !errors.Is(err, link.ErrUnavailable) {
		t.Errorf("Apply with Redis away = %v, want ErrUnavailable", err)
	}
	if _, err := store.Ask(t.Context(), ofTwoDays(stats.Scope{})); !errors.Is(err, link.ErrUnavailable) {
		t.Errorf("Ask with Redis away = %v, want ErrUnavailable", err)
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, store := range []*redisstats.Store{store, open(t, "redis://"+r.Addr, quiet, redisstats.Options{Keep: 90 * day})} {
		fleettest.Eventually(t, 20*time.Second, "batches are applied again", func() bool {
			for n := range uint64(25) {
				if _, err := store.Apply(t.Context(), []clicks.Batch{today("p", n+1, 100)}); err != nil {
					return false
				}
			}
			return true
		})
		if a := ask(t, store, ofTwoDays(stats.Scope{})); a.Clicks != 2500 {
			t.Errorf("%d clicks, want 2500", a.Clicks)
		}
	}
}

// A day that is long over keeps the number of its visitors, and not who they were.
func TestSettledDaysKeepNoVisitors(t *testing.T) {
	r := fleettest.Redis(t)
	store := open(t, "redis://"+r.Addr, quiet, redisstats.Options{Keep: 90 * day})
	const ago = 5
	for n := range uint64(10) {
		b := today("p", n+1, 1000)
		for i := range b.Counts {
			b.Counts[i].Hour = b.Counts[i].Hour.AddDate(0, 0, -ago)
			b.Counts[i].Visitors = []uint64{uint64(i) * 0x9e3779b97f4a7c15}
		}
		apply(t, store, b)
	}
	at := time.Now().UTC().Truncate(day).AddDate(0, 0, -ago)
	q := stats.Question{From: at, To: at.Add(day), Unit: stats.Day}
	before := ask(t, store, q)
	if before.Visitors < 970 || before.Visitors > 1030 {
		t.Errorf("%d visitors, want 1000", before.Visitors)
	}
	bytes := func() (n int64) {
		client := fleettest.RedisClient(t, r.Addr)
		for _, key := range client.Keys(t.Context(), "clicks:"+at.Format(time.DateOnly)+":*").Val() {
			n += client.StrLen(t.Context(), key).Val()
		}
		return n
	}
	was := bytes()
	fleettest.Background(t, store.Tend)
	fleettest.Eventually(t, 10*time.Second, "the day is settled", func() bool { return bytes() < was*3/4 })
	after := ask(t, store, q)
	if after.Visitors != before.Visitors || after.Clicks != before.Clicks {
		t.Errorf("%d clicks of %d visitors became %d of %d", before.Clicks, before.Visitors, after.Clicks, after.Visitors)
	}
	t.Logf("10,000 clicks of 10,000 links took %d bytes, and take %d", was, bytes())
}

// Pages are rewritten while others append to them and rewrite them, too. No click is lost, and none
// counts twice.
func TestRewritesLoseNothing(t *testing.T) {
	addr := fleettest.Redis(t).Addr
	var stores []*redisstats.Store
	for range 4 {
		stores = append(stores, open(t, "redis://"+addr, quiet, redisstats.Options{Keep: 90 * day}))
	}
	const batches, links = 60, 40
	var wg sync.WaitGroup
	for p, store := range stores {
		wg.Go(func() {
			for n := range uint64(batches) {
				b := today(fmt.Sprint("p", p), n+1, links)
				for i := range b.Counts {
					b.Counts[i].Code = fmt.Sprint("code", i)
					for f := range 40 { // so that each page is soon long
						facts := realistic(n*40 + uint64(f))
						facts[clicks.Campaign] = fmt.Sprint(f)
						b.Counts[i].Facts = append(b.Counts[i].Facts, clicks.FactCount{Facts: facts, Clicks: 1})
					}
					b.Counts[i].Clicks += 40
				}
				if _, err := store.Apply(t.Context(), []clicks.Batch{b}); err != nil {
					t.Error(err)
				}
				if err := store.Forget(t.Context(), "code0"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	const each = 4 * batches * 41
	for i := range links {
		scope := stats.Scope{Code: fmt.Sprint("code", i)}
		want := int64(each)
		if i == 0 {
			want = 0
		}
		q := ofTwoDays(scope)
		if a := ask(t, stores[0], q); a.Clicks != want {
			t.Errorf("%s has %d clicks, want %d", scope.Code, a.Clicks, want)
		}
		q.By = []clicks.Dimension{clicks.Campaign}
		if a := ask(t, stores[0], q); a.Clicks != want {
			t.Errorf("%s has %d clicks by campaign, want %d", scope.Code, a.Clicks, want)
		}
		if totals, err := stores[0].Totals(t.Context(), []string{scope.Code}); err != nil || totals[0] != want {
			t.Errorf("the total of %s is %v, %v, want %d", scope.Code, totals, err, want)
		}
	}
	if a := ask(t, stores[0], ofTwoDays(stats.Scope{Owner: "owner"})); a.Clicks != each*links {
		t.Errorf("%d clicks, want %d", a.Clicks, each*links)
	}
}
