package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"snowlink/internal/clicks"
	"snowlink/internal/fleet"
	"snowlink/internal/postgres"
	"snowlink/internal/redisconn"
	"snowlink/internal/stats"
	"snowlink/internal/stats/pgstats"
	"snowlink/internal/stats/redisstats"
)

// clicksName is what the names of the facts have in common, for -only.
const clicksName = "clicks"

const (
	applyEach   = 50_000 // clicks, of distinct links, by applyBy producers
	applyBy     = 5
	applyTimes  = 10 // after one that does not count
	manyPeople  = 1_000_000
	keptClicks  = 100_000
	keptLinks   = 300 // with as many clicks a day each as of 100 M on 100,000 links in 90 days
	keptDays    = 30
	edgeVisits  = 5 * time.Second
	edgeSettles = 20 * time.Second
)

// countingFacts measures the stores of clicks by themselves, and what the edge cache reports.
func (b *bench) countingFacts(ctx context.Context) (facts []fact, err error) {
	f, err := fleet.Start(ctx, fleet.Options{Archive: 1, NoBackends: true, NoNginx: true, RedisConfig: []string{"maxmemory 0"}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	say := func(f fact) {
		facts = append(facts, f)
		fmt.Fprintf(b.output.progress, "%-27s %s %s\n", f.Name, f.Figure(), f.Unit)
	}
	shards, err := openClicks(ctx, f.ArchiveURL())
	if err != nil {
		return nil, err
	}
	defer shards.Close()
	ninety, ever, err := clickBytes(ctx, shards, f.ArchiveURL())
	if err != nil {
		return nil, err
	}
	note := fmt.Sprintf("%s clicks on %s links in %d days, with their owners and tags; more clicks on more links share those", thousands(keptClicks), thousands(keptLinks), keptDays)
	say(fact{Name: "clicks: bytes of one in PostgreSQL, 90 days", Unit: "bytes", Value: ninety, Note: note})
	say(fact{Name: "clicks: bytes of one in PostgreSQL, for ever", Unit: "bytes", Value: ever, Note: "the same once they are old"})

	log := slog.New(slog.DiscardHandler)
	conn, err := redisconn.Open("redis://"+f.Redis.Addr, log, prometheus.NewRegistry())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	for _, of := range []struct {
		name  string
		bar   float64
		store stats.Store
	}{
		{"PostgreSQL", 50_000, pgstats.New(shards, pgstats.Options{})},
		{"Redis", 100_000, redisstats.New(conn, log, prometheus.NewRegistry(), redisstats.Options{Keep: clickedDays * 24 * time.Hour, Most: math.MaxInt64})},
	} {
		rate, err := applied(ctx, of.store)
		if err != nil {
			return facts, fmt.Errorf("%s: %w", of.name, err)
		}
		say(fact{Name: "clicks: applied to " + of.name, AtLeast: of.bar, Unit: "a second", Value: rate, Note: "one worker, each click of another link"})
		wrong, err := unique(ctx, of.store)
		if err != nil {
			return facts, fmt.Errorf("%s: %w", of.name, err)
		}
		say(fact{Name: "clicks: visitors in " + of.name, AtMost: 3, Unit: "% off", Value: wrong, Note: thousands(manyPeople) + " of one link"})
	}
	edge, err := b.edgeClicks(ctx)
	if err == nil {
		say(edge)
	}
	return facts, err
}

// clickBytes returns the bytes of a click while it is kept by the hour, and once it is old.
func clickBytes(ctx context.Context, shards *postgres.Shards, url string) (ninety, ever float64, err error) {
	g := pgstats.Generation{Clicks: keptClicks, Links: keptLinks, Days: keptDays, Until: time.Now().UTC(), Seed: 1}
	if err := pgstats.New(shards, pgstats.Options{}).Generate(ctx, g, nil); err != nil {
		return 0, 0, err
	}
	if ninety, err = clicksSize(ctx, url); err != nil {
		return 0, 0, err
	}
	tending, stop := context.WithCancel(ctx)
	tended := make(chan error, 1)
	go func() { tended <- pgstats.New(shards, pgstats.Options{Keep: time.Hour}).Tend(tending) }() // all days but this one are old
	err = until(ctx, time.Minute, "clicks are old", func() (bool, error) {
		rows, err := clicksRows(ctx, url, g.Until)
		return rows == 0, err
	})
	stop()
	if err := errors.Join(err, <-tended); err != nil {
		return 0, 0, err
	}
	ever, err = oldSize(ctx, url)
	return ninety / keptClicks, ever / keptClicks, err
}

// applied returns how many clicks of distinct links a second a store adds up, while it is tended.
func applied(ctx context.Context, store stats.Store) (perSecond float64, err error) {
	tending, stop := context.WithCancel(ctx)
	tended := make(chan error, 1)
	go func() { tended <- store.Tend(tending) }()
	defer func() { stop(); err = errors.Join(err, <-tended) }()
	r := rand.New(rand.NewPCG(1, 1))
	var took time.Duration
	link := 0
	for number := range uint64(applyTimes + 1) {
		batches := make([]clicks.Batch, applyBy)
		for i := range batches {
			batches[i] = clicks.Batch{Producer: fmt.Sprint("bench", i), Number: number + 1}
			for range applyEach / applyBy {
				link++
				batches[i].Counts = append(batches[i].Counts, clicks.Count{
					Code: fmt.Sprintf("apply%07d", link), Owner: fmt.Sprint("owner", link%100), Tags: []string{fmt.Sprint("tag", link%20)},
					Hour: time.Now().Truncate(time.Hour), Clicks: 1, Visitors: []uint64{r.Uint64()},
					Facts: []clicks.FactCount{{Clicks: 1, Facts: clicks.Facts{
						clicks.Country: fmt.Sprintf("%c%c", 'A'+r.IntN(10), 'A'+r.IntN(10)), clicks.Referrer: fmt.Sprintf("site%d.example", r.IntN(300)),
						clicks.Browser: fmt.Sprint("Browser ", r.IntN(10)), clicks.OS: fmt.Sprint("System ", r.IntN(6)), clicks.Device: "phone",
					}}},
				})
			}
		}
		began := time.Now()
		a, err := store.Apply(ctx, batches)
		if err != nil {
			return 0, err
		}
		if a.Clicks != applyEach {
			return 0, fmt.Errorf("of %d clicks %d were applied", applyEach, a.Clicks)
		}
		if number > 0 {
			took += time.Since(began)
		}
	}
	return applyTimes * applyEach / took.Seconds(), nil
}

// unique returns by how many percent a store is wrong about the visitors of a link.
func unique(ctx context.Context, store stats.Store) (percent float64, err error) {
	r := rand.New(rand.NewPCG(2, 2))
	now := time.Now().UTC()
	const each = 20_000
	for n := range uint64(manyPeople / each) {
		c := clicks.Count{Code: "popular", Hour: now.Truncate(time.Hour), Clicks: each}
		for range each {
			c.Visitors = append(c.Visitors, r.Uint64())
		}
		if _, err := store.Apply(ctx, []clicks.Batch{{Producer: "people", Number: n + 1, Counts: []clicks.Count{c}}}); err != nil {
			return 0, err
		}
	}
	today := now.Truncate(24 * time.Hour)
	a, err := store.Ask(ctx, stats.Question{Scope: stats.Scope{Code: "popular"}, From: today, To: today.AddDate(0, 0, 1)})
	if err == nil && a.Clicks != manyPeople {
		err = fmt.Errorf("of %d clicks %d are there", manyPeople, a.Clicks)
	}
	return math.Abs(float64(a.Visitors)/manyPeople-1) * 100, err
}

// edgeClicks follows links through an Nginx with the edge cache, and compares what was answered with what
// was counted.
func (b *bench) edgeClicks(ctx context.Context) (_ fact, err error) {
	dir, err := os.MkdirTemp("", "snowlink-bench-")
	if err != nil {
		return fact{}, err
	}
	defer os.RemoveAll(dir)
	f, err := fleet.Start(ctx, fleet.Options{State: true, RedisConfig: []string{"maxmemory 0"}})
	if err != nil {
		return fact{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	err = errors.Join(f.Nginx.Edit("conf.d/server.conf", "# include snippets/edge-cache.conf;", "include snippets/edge-cache.conf;"), f.Nginx.Reload(ctx))
	if err != nil {
		return fact{}, err
	}
	codes := filepath.Join(dir, "codes.txt")
	if _, err := fill(ctx, f, 1000, 64, codes); err != nil {
		return fact{}, err
	}
	r, err := load{script: "visit.lua", url: f.URL, threads: b.threads, connections: 64, duration: edgeVisits, env: []string{"CODES=" + codes}}.run(ctx)
	if err != nil {
		return fact{}, err
	}
	answered := float64(r.answers[302])
	var counted, before float64
	still := 0
	err = until(ctx, edgeSettles, "no more clicks are counted", func() (bool, error) {
		counted = 0
		for _, backend := range f.Backends {
			n, err := backend.Metric(ctx, "snowlink_clicks_recorded_total")
			if err != nil {
				return false, err
			}
			counted += n
		}
		if still++; counted != before {
			still, before = 0, counted
		}
		return still == 20, nil // two seconds
	})
	return fact{
		Name: "clicks: miscounted with the edge cache", AtMost: 1, Unit: "of 1,000 redirects", Value: 1000 * math.Abs(counted/answered-1),
		Note: fmt.Sprintf("%s redirects answered at %s a second, %s counted", thousands(answered), thousands(r.PerSecond), thousands(counted)),
	}, err
}

// until waits for a condition.
func until(ctx context.Context, most time.Duration, what string, holds func() (bool, error)) error {
	for deadline := time.Now().Add(most); ; {
		if ok, err := holds(); ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %s it is not so that %s", most, what)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
