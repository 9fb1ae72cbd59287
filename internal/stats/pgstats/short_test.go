package pgstats_test

import (
	"context"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"snowlink/internal/clicks"
	"snowlink/internal/postgres/postgrestest"
	"snowlink/internal/stats"
	"snowlink/internal/stats/pgstats"
)

// What is kept beside counts is a short cut: every answer is the same without it.
func TestShortCutsChangeNoAnswer(t *testing.T) {
	urls := postgrestest.Databases(t, 1)
	store := pgstats.New(connect(t, urls), pgstats.Options{})
	const days = 3
	until := time.Now().UTC()
	g := pgstats.Generation{Clicks: 150_000, Links: 3, Days: days, Until: until, Seed: 1}
	if err := store.Generate(t.Context(), g, nil); err != nil {
		t.Fatal(err)
	}
	midnight := until.Truncate(24 * time.Hour)
	late := clicks.Batch{Producer: "late", Number: 1} // a past day and the present one have several rows
	for _, day := range []int{0, -1} {
		c := clicks.Count{Code: pgstats.GeneratedCode(0), Owner: pgstats.GeneratedOwner(0), Hour: midnight.AddDate(0, 0, day), Clicks: 300}
		for i := range uint64(300) {
			c.Visitors = append(c.Visitors, i<<52|i)
		}
		late.Counts = append(late.Counts, c)
	}
	if _, err := store.Apply(t.Context(), []clicks.Batch{late}); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), urls[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var hours, singles, wholes, visited int
	if err := conn.QueryRow(t.Context(), "SELECT count(hours), count(singles), count(whole), count(visited) FROM clicks_hours").Scan(&hours, &singles, &wholes, &visited); err != nil {
		t.Fatal(err)
	}
	if hours == 0 || singles == 0 || wholes == 0 || visited == 0 {
		t.Fatalf("there are %d, %d, %d and %d short cuts", hours, singles, wholes, visited)
	}

	var questions []stats.Question
	for _, zone := range []string{"UTC", "Asia/Kolkata"} {
		in, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		for _, unit := range []stats.Unit{stats.Whole, stats.Hour, stats.Day, stats.Week} {
			for _, by := range [][]clicks.Dimension{nil, {clicks.Bot}, {clicks.Country}, {clicks.Referrer, clicks.Browser}, {clicks.OS, clicks.Country, clicks.Bot}} {
				for _, where := range []map[clicks.Dimension][]string{nil, {clicks.Bot: {"crawler"}}, {clicks.Device: {"phone"}}} {
					for _, bots := range []stats.Bots{stats.People, stats.WithBots} {
						for _, shift := range []time.Duration{0, 7 * time.Hour} {
							to := midnight.AddDate(0, 0, 1).Add(-shift)
							questions = append(questions, stats.Question{
								From: to.AddDate(0, 0, -days), To: to, Unit: unit, Zone: in, By: by, Where: where, Bots: bots, Most: 30,
							})
						}
					}
				}
			}
		}
	}
	ask := func() (answers []stats.Answer) {
		for i, q := range questions {
			q.Scope = []stats.Scope{{}, {Code: pgstats.GeneratedCode(0)}, {Owner: pgstats.GeneratedOwner(0)}}[i%3]
			a, err := store.Ask(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			answers = append(answers, a)
		}
		return answers
	}
	with := ask()
	if _, err := conn.Exec(t.Context(), "UPDATE clicks_hours SET hours = NULL, singles = NULL, whole = NULL, visited = NULL"); err != nil {
		t.Fatal(err)
	}
	for i, without := range ask() {
		if with[i].Clicks == 0 && len(questions[i].Where) == 0 {
			t.Errorf("%+v: nothing", questions[i])
		}
		if !reflect.DeepEqual(with[i], without) {
			t.Errorf("%+v:\n%s\nwithout short cuts\n%s", questions[i], brief(with[i]), brief(without))
		}
	}
}

func brief(a stats.Answer) string {
	return fmt.Sprintf("%d clicks, %d visitors, %.300v", a.Clicks, a.Visitors, fmt.Sprint(a.Rows))
}
