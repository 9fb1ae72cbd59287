package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"snowlink/internal/fleet"
	"snowlink/internal/redisstore"
)

// shards is how many PostgreSQL an archive has here.
const shards = 3

// archiveLinks are enough for archiving to last some seconds, and for the runs of a backend that
// reads 20,000 cold links a second.
const archiveLinks = 500_000

// A fact is a figure with a bar that is no ratio of throughputs.
type fact struct {
	Name    string
	AtLeast float64 // 0 for no bar
	AtMost  float64 // 0 for no bar
	Unit    string
	Value   float64
	Note    string
}

// Holds reports whether the bar is reached.
func (f fact) Holds() bool { return f.Value >= f.AtLeast && (f.AtMost == 0 || f.Value <= f.AtMost) }

// Bar is the bar in words, or "" if there is none.
func (f fact) Bar() string {
	switch {
	case f.AtMost > 0:
		return figure(f.AtMost) + " " + f.Unit + " at most"
	case f.AtLeast > 0:
		return figure(f.AtLeast) + " " + f.Unit
	}
	return ""
}

// Figure is the value for people.
func (f fact) Figure() string { return figure(f.Value) }

// figure writes small numbers with a fraction.
func figure(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.2f", v)
	}
	return thousands(v)
}

// archiveName is what the names of the facts have in common, for -only.
const archiveName = "archive"

// startArchived starts a fleet with an archive. Its backends do not archive yet unless work is set.
func startArchived(ctx context.Context, o fleet.Options, work bool) (*fleet.Fleet, error) {
	o.Archive = shards
	o.RedisConfig = append(o.RedisConfig, "maxmemory 0", "maxmemory-policy volatile-lru")
	if !work {
		o.Env = append(o.Env, "WORK=off")
	}
	return fleet.Start(ctx, o)
}

// paused returns the fleet with an archive whose archivers are paused. It starts it the first time.
func (b *bench) paused(ctx context.Context) (*fleet.Fleet, string, error) {
	codes := filepath.Join(b.dir, "archived.txt")
	if b.archived != nil {
		return b.archived, codes, nil
	}
	f, err := startArchived(ctx, fleet.Options{}, false)
	if err != nil {
		return nil, "", err
	}
	b.archived = f
	_, err = fill(ctx, f, b.codes, 64, codes)
	return f, codes, err
}

// archivedSide is one backend with an archive, or three behind Nginx.
func (b *bench) archivedSide(ctx context.Context, nginx bool) (side, error) {
	f, codes, err := b.paused(ctx)
	if err != nil {
		return side{}, err
	}
	url := f.URL
	if !nginx {
		url = f.Backends[0].URL
	}
	return side{name: "with an archive", url: url, fleets: []*fleet.Fleet{f}, env: []string{"API_KEY=" + f.APIKey, "CODES=" + codes}}, nil
}

// archivedDirect and archivedNginx are direct and nginx for a fleet with an archive.
func (b *bench) archivedDirect(ctx context.Context) (*pair, error) {
	return b.withArchive(ctx, b.direct, false)
}
func (b *bench) archivedNginx(ctx context.Context) (*pair, error) {
	return b.withArchive(ctx, b.nginx, true)
}

func (b *bench) withArchive(ctx context.Context, of func(context.Context) (*pair, error), nginx bool) (*pair, error) {
	p, err := of(ctx)
	if err != nil {
		return nil, err
	}
	p.measured, err = b.archivedSide(ctx, nginx)
	return p, err
}

// archivePaused compares a backend with an archive, whose archivers are paused, with one without.
func (b *bench) archivePaused(ctx context.Context) (*pair, error) {
	with, err := b.archivedSide(ctx, false)
	return &pair{measured: with, against: b.without()}, err
}

// without is one backend without an archive.
func (b *bench) without() side {
	return side{name: "the same without an archive", url: b.real.Backends[0].URL, fleets: []*fleet.Fleet{b.real}, env: b.env()}
}

// archiving compares a backend that archives with one without an archive. What it creates counts
// over the time until all of it is archived.
func (b *bench) archiving(ctx context.Context) (*pair, error) {
	f, err := startArchived(ctx, fleet.Options{Backends: 1, NoNginx: true}, true)
	if err != nil {
		return nil, err
	}
	client := f.Redis.Client()
	return &pair{
		close: func() error { return errors.Join(client.Close(), f.Close()) },
		measured: side{
			name: "with an archive", url: f.URL, fleets: []*fleet.Fleet{f}, env: []string{"API_KEY=" + f.APIKey},
			settle: func(ctx context.Context) error { return drained(ctx, client) },
		},
		against: b.without(),
	}, nil
}

// drained waits until everything that is marked is archived.
func drained(ctx context.Context, client *redis.Client) error {
	for {
		if n, err := client.XLen(ctx, redisstore.OutboxKey).Result(); err != nil || n == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// archiveFacts measures what archiving alone does, what a link takes in both places, and how fast
// links are that Redis has forgotten.
func (b *bench) archiveFacts(ctx context.Context) (facts []fact, err error) {
	dir, err := os.MkdirTemp("", "snowlink-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	f, err := startArchived(ctx, fleet.Options{Backends: 1, NoNginx: true}, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	client := f.Redis.Client().WithTimeout(time.Minute)
	defer client.Close()
	say := func(f fact) {
		facts = append(facts, f)
		fmt.Fprintf(b.output.progress, "%-27s %s %s\n", f.Name, f.Figure(), f.Unit)
	}

	empty, err := fleet.Info(ctx, client, "memory", "used_memory")
	if err != nil {
		return nil, err
	}
	codes := filepath.Join(dir, "cold.txt")
	links, err := fill(ctx, f, archiveLinks, 64, codes)
	if err != nil {
		return nil, err
	}
	backend := f.Backends[0]
	if err := backend.Stop(ctx); err != nil {
		return nil, err
	}
	backend.Setenv("WORK=on")
	if err := backend.Start(ctx); err != nil {
		return nil, err
	}
	began := time.Now()
	if err := drained(ctx, client); err != nil {
		return nil, err
	}
	say(fact{Name: "archiving alone", AtLeast: 20_000, Unit: "links a second", Value: archiveLinks / time.Since(began).Seconds(),
		Note: fmt.Sprintf("%s links into %d databases", thousands(archiveLinks), shards)})

	full, err := fleet.Info(ctx, client, "memory", "used_memory")
	if err != nil {
		return nil, err
	}
	perLink := float64(full-empty) / archiveLinks
	say(fact{Name: "links for each GB of Redis, archived", Unit: "links", Value: 1e9 / perLink, Note: fmt.Sprintf("%.0f bytes each, targets of 60, with the journal", perLink)})
	var bytes float64
	for _, db := range f.Archive {
		size, err := linksSize(ctx, db.URL)
		if err != nil {
			return nil, err
		}
		bytes += size
	}
	say(fact{Name: "bytes of a link in PostgreSQL, archived", Unit: "bytes", Value: bytes / archiveLinks, Note: "indexes included, targets of 60"})

	// Redis forgets every link, as if it were full of others.
	for rest := links; len(rest) > 0; {
		n := min(1000, len(rest))
		keys := make([]string, n)
		for i, l := range rest[:n] {
			keys[i] = redisstore.LinkKey(l.code)
		}
		if err := client.Unlink(ctx, keys...).Err(); err != nil {
			return nil, err
		}
		rest = rest[n:]
	}
	if err := writeCodes(codes, links); err != nil {
		return nil, err
	}
	s := side{url: f.URL, fleets: []*fleet.Fleet{f}, env: []string{"CODES=" + codes}, slice: archiveLinks / (b.rounds + 1)}
	asked := 0
	var rates []float64
	for range b.rounds {
		r, _, err := s.run(ctx, load{script: "cold.lua", threads: b.threads, connections: 64, duration: min(b.duration, 2*time.Second)})
		if err != nil {
			return nil, err
		}
		asked += r.total()
		rates = append(rates, r.PerSecond)
	}
	queries, err := backend.Metric(ctx, `snowlink_archive_query_seconds_count{query="get"}`)
	if err != nil {
		return nil, err
	}
	say(fact{Name: "cold redirect, archive only", AtLeast: 8000, Unit: "a second", Value: median(rates),
		Note: fmt.Sprintf("%.3f queries for each code", queries/float64(asked))})
	if queries > float64(asked+64*b.rounds) { // wrk leaves with a request open on each connection
		return nil, fmt.Errorf("%.0f queries were made for %d codes", queries, asked)
	}
	return facts, resolve(f.URL, links[:10_000])
}

// linksSize returns the bytes of the links in a database, with their indexes.
func linksSize(ctx context.Context, url string) (bytes float64, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, "SELECT pg_total_relation_size('links')").Scan(&bytes)
	return bytes, err
}
