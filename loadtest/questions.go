package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"snowlink/internal/clicks"
	"snowlink/internal/fleet"
	"snowlink/internal/postgres"
	"snowlink/internal/progress"
	"snowlink/internal/stats"
	"snowlink/internal/stats/pgstats"
)

const (
	questionBar = 200 * time.Millisecond // for the 99th percentile
	clickedDays = 90                     // CLICKS_KEEP
	// Each question is asked until both are reached, but for no longer than askFor.
	asksLeast = 200
	askFor    = 20 * time.Second
)

// questions fills a PostgreSQL with clicks, and asks it every kind of question.
type questions struct {
	output   output
	archive  string // URLs of databases that are empty, or filled by an earlier run; "" for one of our own
	millions int
	links    int
}

// asked is what came of a question.
type asked struct {
	Scope, Name string
	N           int
	P50, P99    time.Duration
}

// Holds reports whether the bar is reached.
func (a asked) Holds() bool { return a.P99 <= questionBar }

func (q *questions) define(flags *flag.FlagSet, to console) {
	q.output = output{command: to.typed, progress: to.progress}
	flags.StringVar(&q.output.dir, "o", "", "`folder` to write results to")
	flags.StringVar(&q.archive, "archive", "", "`addresses` of PostgreSQL databases, as in ARCHIVE_URL, which are empty or from an earlier run; they keep the clicks (default: a new one, which does not)")
	numberVar(flags, &q.millions, 1, "millions", 100, "`millions` of clicks")
	numberVar(flags, &q.links, 1, "links", 100_000, "`number` of links")
}

func (q *questions) run(ctx context.Context, stdout io.Writer) (err error) {
	env, err := fleet.ReadEnvironment(ctx)
	if err != nil {
		return err
	}
	if q.archive == "" {
		f, err := fleet.Start(ctx, fleet.Options{Archive: 1, NoRedis: true, NoBackends: true, NoNginx: true})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		q.archive = f.ArchiveURL()
	}
	shards, err := openClicks(ctx, q.archive)
	if err != nil {
		return err
	}
	defer shards.Close()
	store := pgstats.New(shards, pgstats.Options{})
	until := time.Now().UTC()
	g := pgstats.Generation{Clicks: int64(q.millions) * 1e6, Links: q.links, Days: clickedDays, Until: until, Seed: 1}
	bar := progress.New(q.output.progress)
	bar.Begin("making clicks")
	if err := store.Generate(ctx, g, func(n int64) { bar.Tell(n, g.Clicks) }); err != nil {
		bar.End()
		return err
	}
	bar.End()
	bytes, err := clicksSize(ctx, q.archive)
	if err != nil {
		return err
	}
	all, err := ask(ctx, store, g.Links, until, bar)
	if err != nil {
		return err
	}
	markdown, err := q.output.write(env.Root, "clicks.md", "clicks.md.tmpl", map[string]any{
		"Env": env, "Command": q.output.command, "Clicks": int(g.Clicks), "Links": g.Links, "Days": clickedDays, "Databases": len(shards.DBs()),
		"Bytes": bytes / float64(g.Clicks), "Asked": all, "Bar": questionBar.Milliseconds(), "Least": asksLeast, "For": askFor,
	})
	if err != nil {
		return err
	}
	if _, err := stdout.Write(markdown); err != nil {
		return err
	}
	for _, a := range all {
		if !a.Holds() {
			err = errors.Join(err, fmt.Errorf("missed: %s, %s: %.0f ms", a.Scope, a.Name, a.P99.Seconds()*1000))
		}
	}
	return err
}

// openClicks opens the databases for clicks.
func openClicks(ctx context.Context, urls string) (*postgres.Shards, error) {
	shards, err := postgres.Open(urls, 0, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		return nil, err
	}
	if err := shards.Migrate(ctx); err != nil {
		shards.Close()
		return nil, err
	}
	return shards, nil
}

// clicksSize vacuums the databases and returns the bytes of all that they keep of clicks, with indexes.
func clicksSize(ctx context.Context, urls string) (bytes float64, err error) {
	err = eachDatabase(ctx, urls, func(conn *pgx.Conn) error {
		var size float64
		_, err1 := conn.Exec(ctx, "VACUUM ANALYZE clicks_new, clicks_hours, clicks_days")
		err2 := conn.QueryRow(ctx, `
SELECT pg_total_relation_size('clicks_new') + pg_total_relation_size('clicks_hours') + pg_total_relation_size('clicks_days')`).Scan(&size)
		bytes += size
		return errors.Join(err1, err2)
	})
	return bytes, err
}

// oldSize returns the bytes of clicks that are old.
func oldSize(ctx context.Context, urls string) (bytes float64, err error) {
	err = eachDatabase(ctx, urls, func(conn *pgx.Conn) error {
		var size float64
		_, err1 := conn.Exec(ctx, "VACUUM FULL clicks_days") // each step of rolling up leaves dead rows, which later ones take
		err2 := conn.QueryRow(ctx, "SELECT pg_total_relation_size('clicks_days')").Scan(&size)
		bytes += size
		return errors.Join(err1, err2)
	})
	return bytes, err
}

// clicksRows returns how many rows of days before that of a time are not old yet.
func clicksRows(ctx context.Context, urls string, before time.Time) (rows int, err error) {
	err = eachDatabase(ctx, urls, func(conn *pgx.Conn) error {
		var n int
		err := conn.QueryRow(ctx, "SELECT count(*) FROM clicks_hours WHERE day < $1", before.Unix()/(24*60*60)).Scan(&n)
		rows += n
		return err
	})
	return rows, err
}

func eachDatabase(ctx context.Context, urls string, do func(*pgx.Conn) error) error {
	for url := range strings.SplitSeq(urls, ",") {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		if err := errors.Join(do(conn), conn.Close(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// kinds are questions, each of its kind, to be asked of each scope.
func kinds(berlin *time.Location) []struct {
	name string
	stats.Question
} {
	by := func(d ...clicks.Dimension) []clicks.Dimension { return d }
	where := func(d clicks.Dimension, values ...string) map[clicks.Dimension][]string {
		return map[clicks.Dimension][]string{d: values}
	}
	return []struct {
		name string
		stats.Question
	}{
		{"in all", stats.Question{}},
		{"by day", stats.Question{Unit: stats.Day}},
		{"by day in Berlin", stats.Question{Unit: stats.Day, Zone: berlin}},
		{"by hour, with bots", stats.Question{Unit: stats.Hour, Bots: stats.WithBots}},
		{"by country", stats.Question{By: by(clicks.Country), Most: 100}},
		{"by country, each day in Berlin", stats.Question{By: by(clicks.Country), Unit: stats.Day, Zone: berlin, Most: 100}},
		{"by referrer, each week", stats.Question{By: by(clicks.Referrer), Unit: stats.Week, Most: 100}},
		{"by country and browser", stats.Question{By: by(clicks.Country, clicks.Browser), Most: 1000}},
		{"by three, each hour", stats.Question{By: by(clicks.Country, clicks.Browser, clicks.OS), Unit: stats.Hour, Most: 9}},
		{"by browser from two countries, each day", stats.Question{By: by(clicks.Browser), Where: where(clicks.Country, "AA", "BA"), Unit: stats.Day, Most: 100}},
		{"three filters, each hour", stats.Question{
			Where: map[clicks.Dimension][]string{clicks.Country: {"AA"}, clicks.Browser: {"Browser 0"}, clicks.Device: {"phone"}}, Unit: stats.Hour,
		}},
	}
}

// ask asks every kind of question of every kind of scope, over all days that are kept by the hour. Links,
// owners and tags are drawn.
func ask(ctx context.Context, store stats.Store, links int, until time.Time, log io.Writer) (all []asked, err error) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		return nil, err
	}
	to := until.Truncate(24*time.Hour).AddDate(0, 0, 1)
	from := to.AddDate(0, 0, -clickedDays)
	r := rand.New(rand.NewPCG(7, 7))
	measure := func(scope, name string, question func() error) error {
		var took []time.Duration
		for began := time.Now(); len(took) < asksLeast && time.Since(began) < askFor; {
			began := time.Now()
			if err := question(); err != nil {
				return fmt.Errorf("%s, %s: %w", scope, name, err)
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		a := asked{Scope: scope, Name: name, N: len(took), P50: took[len(took)/2], P99: took[len(took)*99/100]}
		all = append(all, a)
		fmt.Fprintf(log, "%-14s %-40s %4d times  p50 %6.1f ms  p99 %6.1f ms\n", scope, name, a.N, a.P50.Seconds()*1000, a.P99.Seconds()*1000)
		return nil
	}
	for _, scope := range []struct {
		name string
		draw func() stats.Scope
	}{
		{"any link", func() stats.Scope { return stats.Scope{Code: pgstats.GeneratedCode(r.IntN(links))} }},
		{"a hot link", func() stats.Scope { return stats.Scope{Code: pgstats.GeneratedCode(r.IntN(10))} }},
		{"an owner", func() stats.Scope { return stats.Scope{Owner: pgstats.GeneratedOwner(r.IntN(20))} }},
		{"a tag", func() stats.Scope { return stats.Scope{Tag: pgstats.GeneratedTag(r.IntN(20))} }},
		{"everything", func() stats.Scope { return stats.Scope{} }},
	} {
		for _, kind := range kinds(berlin) {
			if err := measure(scope.name, kind.name, func() error {
				kind.Scope, kind.From, kind.To = scope.draw(), from, to
				_, err := store.Ask(ctx, kind.Question)
				return err
			}); err != nil {
				return nil, err
			}
		}
		if strings.HasSuffix(scope.name, "link") {
			continue
		}
		if err := measure(scope.name, "the 100 links clicked most", func() error {
			top, err := store.Top(ctx, scope.draw(), from, to, stats.People, 100)
			if err == nil && len(top) != min(100, links) {
				err = fmt.Errorf("%d links", len(top))
			}
			return err
		}); err != nil {
			return nil, err
		}
	}
	return all, measure("100 links", "the clicks of each", func() error {
		codes := make([]string, 100)
		for i := range codes {
			codes[i] = pgstats.GeneratedCode(r.IntN(links))
		}
		_, err := store.Totals(ctx, codes)
		return err
	})
}
