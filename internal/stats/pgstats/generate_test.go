package pgstats_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"snowlink/internal/clicks"
	"snowlink/internal/postgres/postgrestest"
	"snowlink/internal/stats"
	"snowlink/internal/stats/pgstats"
)

// A generation that was broken off, wherever, and is called again makes what one in a piece makes.
func TestGenerateGoesOn(t *testing.T) {
	until := time.Now().UTC()
	g := pgstats.Generation{Clicks: 60_000, Links: 200, Days: 3, Until: until, Seed: 3}
	made := func(times int) (stats.Answer, stats.Answer) {
		store := pgstats.New(connect(t, postgrestest.Databases(t, 3)), pgstats.Options{})
		for i := range times {
			ctx, cancel := context.WithCancel(t.Context())
			steps := 0
			err := store.Generate(ctx, g, func(int64) {
				if steps++; steps > i && i < times-1 {
					cancel()
				}
			})
			cancel()
			if broken := i < times-1; (err != nil) != broken {
				t.Fatalf("call %d: %v", i, err)
			}
		}
		to := until.Truncate(24*time.Hour).AddDate(0, 0, 1)
		q := stats.Question{From: to.AddDate(0, 0, -3), To: to, Unit: stats.Day, Bots: stats.WithBots}
		all, err := store.Ask(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		q.Scope = stats.Scope{Code: pgstats.GeneratedCode(0)}
		one, err := store.Ask(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return all, one
	}
	all, one := made(1)
	if all.Clicks < 50_000 || one.Clicks == 0 || len(all.Rows) != 3 {
		t.Fatalf("made %+v, of which %+v are of a link", all, one)
	}
	brokenAll, brokenOne := made(5)
	for _, pair := range [][2]stats.Answer{{all, brokenAll}, {one, brokenOne}} {
		for i, want := range pair[0].Rows {
			if got := pair[1].Rows[i]; got.Clicks != want.Clicks || got.Visitors != want.Visitors {
				t.Errorf("day %d was broken off: %+v, want %+v", i, got, want)
			}
		}
	}
}

// A generation touches no database that others use, or that was generated otherwise.
func TestGenerateLeavesOthersAlone(t *testing.T) {
	g := pgstats.Generation{Clicks: 100, Links: 10, Days: 2, Until: time.Now().UTC(), Seed: 1}
	store := pgstats.New(connect(t, postgrestest.Databases(t, 1)), pgstats.Options{})
	c := clicks.Count{Code: "a", Hour: time.Now().Truncate(time.Hour), Clicks: 1}
	if _, err := store.Apply(t.Context(), []clicks.Batch{{Producer: "p", Number: 1, Counts: []clicks.Count{c}}}); err != nil {
		t.Fatal(err)
	}
	if err := store.Generate(t.Context(), g, nil); !errors.Is(err, pgstats.ErrInUse) {
		t.Errorf("into clicks of others: %v", err)
	}
	store = pgstats.New(connect(t, postgrestest.Databases(t, 1)), pgstats.Options{})
	if err := store.Generate(t.Context(), g, nil); err != nil {
		t.Fatal(err)
	}
	g.Links++
	if err := store.Generate(t.Context(), g, nil); !errors.Is(err, pgstats.ErrInUse) {
		t.Errorf("into another generation: %v", err)
	}
}
