package pgstats_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"snowlink/internal/clicks"
	"snowlink/internal/postgres"
	"snowlink/internal/postgres/postgrestest"
	"snowlink/internal/stats"
	"snowlink/internal/stats/pgstats"
)

// TestQuestionsOf makes as many millions of clicks as PGSTATS_MILLIONS says, on 100,000 links over 90
// days, and says how large they are and how long questions take. PGSTATS_LINKS may be another number of
// links, and with PGSTATS_OLD it says how large they are once they are old:
//
//	PGSTATS_MILLIONS=100 go test ./internal/stats/pgstats -run QuestionsOf -v -timeout 1h
func TestQuestionsOf(t *testing.T) {
	millions, _ := strconv.Atoi(os.Getenv("PGSTATS_MILLIONS"))
	if millions == 0 {
		t.Skip("PGSTATS_MILLIONS is not set")
	}
	urls := postgrestest.Databases(t, 1)
	shards, err := postgres.Open(strings.Join(urls, ","), 0, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shards.Close)
	if err := shards.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	store := pgstats.New(shards, pgstats.Options{})
	links, _ := strconv.Atoi(os.Getenv("PGSTATS_LINKS"))
	if links == 0 {
		links = 100_000
	}
	until := time.Now().UTC()
	g := pgstats.Generation{Clicks: int64(millions) * 1e6, Links: links, Days: 90, Until: until, Seed: 1}
	began, last := time.Now(), time.Now()
	err = store.Generate(t.Context(), g, func(n int64) {
		if time.Since(last) > 20*time.Second {
			last = time.Now()
			t.Logf("%d clicks after %v", n, time.Since(began).Round(time.Second))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("made in %v", time.Since(began).Round(time.Second))
	conn, err := pgx.Connect(t.Context(), urls[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "VACUUM ANALYZE"); err != nil {
		t.Fatal(err)
	}
	tell := func(what string) {
		var names []string
		rows, _ := conn.Query(t.Context(), `
SELECT relname || ': ' || greatest(reltuples, 0)::bigint || ' rows, ' || pg_size_pretty(pg_relation_size(oid)) || ' rows, ' ||
	pg_size_pretty(pg_table_size(oid) - pg_relation_size(oid)) || ' large values, ' || pg_size_pretty(pg_indexes_size(oid)) || ' indexes'
FROM pg_class WHERE relname LIKE 'clicks%' AND relkind = 'r'`)
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s:\n%s", what, strings.Join(names, "\n"))
	}
	tell("after 90 days")
	var bytes int64
	if err := conn.QueryRow(t.Context(), `SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class WHERE relname LIKE 'clicks%' AND relkind = 'r'`).Scan(&bytes); err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f bytes a click", float64(bytes)/float64(g.Clicks))

	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	to := until.Truncate(24*time.Hour).AddDate(0, 0, 1)
	from := to.AddDate(0, 0, -90)
	r := rand.New(rand.NewPCG(7, 7))
	scopes := map[string]func() stats.Scope{
		"hot link":   func() stats.Scope { return stats.Scope{Code: pgstats.GeneratedCode(r.IntN(10))} },
		"any link":   func() stats.Scope { return stats.Scope{Code: pgstats.GeneratedCode(r.IntN(g.Links))} },
		"owner":      func() stats.Scope { return stats.Scope{Owner: pgstats.GeneratedOwner(r.IntN(20))} },
		"tag":        func() stats.Scope { return stats.Scope{Tag: pgstats.GeneratedTag(r.IntN(20))} },
		"everything": func() stats.Scope { return stats.Scope{} },
	}
	questions := map[string]stats.Question{
		"whole":                {},
		"by hour":              {Unit: stats.Hour},
		"by day in Berlin":     {Unit: stats.Day, Zone: berlin},
		"by country":           {By: []clicks.Dimension{clicks.Country}, Most: 20},
		"by two":               {By: []clicks.Dimension{clicks.Country, clicks.Browser}, Most: 20},
		"by referrer and week": {By: []clicks.Dimension{clicks.Referrer}, Unit: stats.Week, Most: 20, Bots: stats.WithBots},
		"filtered":             {By: []clicks.Dimension{clicks.Browser}, Where: map[clicks.Dimension][]string{clicks.Country: {"AA", "BA"}}, Unit: stats.Day},
		"three filters":        {Where: map[clicks.Dimension][]string{clicks.Country: {"AA"}, clicks.Browser: {"Browser 0"}, clicks.Device: {"phone"}}},
	}
	measure := func(what string, ask func() error) {
		var took []time.Duration
		selfBefore, serverBefore := cpu(t)
		for began := time.Now(); len(took) < 10 || len(took) < 100 && time.Since(began) < 3*time.Second; {
			began := time.Now()
			if err := ask(); err != nil {
				t.Errorf("%s: %v", what, err)
				return
			}
			took = append(took, time.Since(began))
		}
		self, server := cpu(t)
		each := func(d time.Duration) float64 { return d.Seconds() * 1e3 / float64(len(took)) }
		slices.Sort(took)
		t.Logf("%-36s n=%-4d processor %6.2f + %6.2f ms  p50 %7.2f ms  p99 %7.2f ms", what, len(took), each(self-selfBefore), each(server-serverBefore), took[len(took)/2].Seconds()*1e3, took[min(len(took)*99/100, len(took)-1)].Seconds()*1e3)
	}
	for _, name := range []string{"any link", "hot link", "owner", "tag", "everything"} {
		scope := scopes[name]
		for _, kind := range []string{"whole", "by hour", "by day in Berlin", "by country", "by two", "by referrer and week", "filtered", "three filters"} {
			measure(fmt.Sprint(name, ", ", kind), func() error {
				q := questions[kind]
				q.Scope, q.From, q.To = scope(), from, to
				_, err := store.Ask(t.Context(), q)
				return err
			})
		}
		if !strings.Contains(name, "link") {
			measure(name+", top 100", func() error {
				top, err := store.Top(t.Context(), scope(), from, to, stats.People, 100)
				if err == nil && len(top) != 100 {
					err = fmt.Errorf("%d links", len(top))
				}
				return err
			})
		}
	}
	measure("totals of 100 links", func() error {
		var codes []string
		for range 100 {
			codes = append(codes, pgstats.GeneratedCode(r.IntN(g.Links)))
		}
		_, err := store.Totals(t.Context(), codes)
		return err
	})
	if os.Getenv("PGSTATS_OLD") == "" {
		return
	}
	began = time.Now()
	later := pgstats.New(shards, pgstats.Options{}.At(func() time.Time { return until.AddDate(0, 0, 91) }))
	if err := later.TendOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("rolled up in %v", time.Since(began).Round(time.Second))
	if _, err := conn.Exec(t.Context(), "VACUUM FULL"); err != nil {
		t.Fatal(err)
	}
	tell("once old")
	if err := conn.QueryRow(t.Context(), `SELECT pg_total_relation_size('clicks_days')`).Scan(&bytes); err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f bytes a click", float64(bytes)/float64(g.Clicks))
}
