package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/postgres"
	"snowlink/internal/postgres/postgrestest"
)

// execute executes statements in a database, one after another.
func execute(t testing.TB, db *postgres.DB, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if err := db.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// index builds the index for parts of words wherever pg_trgm is.
func index(t testing.TB, s *postgres.Shards) (found string) {
	t.Helper()
	for _, db := range s.DBs() {
		search, err := db.IndexParts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found += string(search) + " "
	}
	return found
}

// wantSearch fails the test unless the databases find words as they should.
func wantSearch(t testing.TB, s *postgres.Shards, want ...postgres.Search) {
	t.Helper()
	all := true
	for i, db := range s.DBs() {
		found, err := db.Search(t.Context())
		if found != want[i] || err != nil {
			t.Errorf("database %d finds %q, %v, want %q", i+1, found, err, want[i])
		}
		all = all && want[i] == postgres.Parts
	}
	if parts, err := s.FindsParts(t.Context()); parts != all || err != nil {
		t.Errorf("FindsParts = %v, %v, want %v", parts, err, all)
	}
}

// Whoever creates pg_trgm, and whenever, has an index of it once server archive migrate has run. A start
// builds none.
func TestPartsTakeTheExtensionInAllDatabases(t *testing.T) {
	s := archive(t, 2)
	first, second := s.DBs()[0], s.DBs()[1]
	put(t, s, row("a", 0), row("b", 0))
	words, unindexed, parts := postgres.WholeWords, postgres.Unindexed, postgres.Parts
	wantSearch(t, s, words, words)
	if got := index(t, s); got != "words words " {
		t.Error(got)
	}
	execute(t, first, "CREATE EXTENSION pg_trgm")
	ready(t, s)
	wantSearch(t, s, unindexed, words)
	if got := index(t, s); got != "parts words " {
		t.Error(got)
	}
	wantSearch(t, s, parts, words)
	execute(t, second, `CREATE SCHEMA "an other"`, `CREATE EXTENSION pg_trgm SCHEMA "an other"`)
	for range 2 {
		if got := index(t, s); got != "parts parts " {
			t.Error(got)
		}
		wantSearch(t, s, parts, parts)
	}
	execute(t, first, "DROP EXTENSION pg_trgm CASCADE")
	wantSearch(t, s, words, parts)
}

// In a locale that knows ASCII alone, letters would be missed, and searches of them slow.
func TestPartsTakeALocale(t *testing.T) {
	s := archive(t, 1)
	const name = "ascii"
	execute(t, s.DBs()[0], "CREATE DATABASE "+name+" TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
	t.Cleanup(func() { _ = s.DBs()[0].Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)") })
	config, err := pgx.ParseConfig(s.DBs()[0].URL())
	if err != nil {
		t.Fatal(err)
	}
	ascii := open(t, 0, io.Discard, fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", config.Port, name))
	ready(t, ascii)
	execute(t, ascii.DBs()[0], "CREATE EXTENSION pg_trgm")
	if got := index(t, ascii); got != "words " {
		t.Error(got)
	}
	wantSearch(t, ascii, postgres.WholeWords)
}

func TestPartsOfWords(t *testing.T) {
	s := archive(t, 3)
	for _, db := range s.DBs() {
		execute(t, db, "CREATE EXTENSION pg_trgm")
	}
	index(t, s)
	var links []link.Coded
	for i, l := range []struct{ code, target, title, tags string }{
		{"plain", "https://a.example/pricing-2026/EU_plan.html?utm=News%20letter", "", ""},
		{"A-code_7", "http://b.example/?u=https://deep.example/x", "Plans, for You: GRÖßE e\u0301te\u0301 50%_off\\now", "summer sale,Neuigkeiten"},
		{"under", "https://a.example/percents", "50xoffynow 5 0% 日本語です", ""},
	} {
		r := postgres.Row{Code: l.code, Record: l.target + "\n{}", Title: l.title, Created: created.Add(time.Duration(i) * time.Minute)}
		o := link.Options{Title: l.title}
		if l.tags != "" {
			o.Tags = strings.Split(l.tags, ",")
		}
		r.Tags = o.Tags
		put(t, s, r)
		links = append(links, link.Coded{Code: l.code, Link: link.Link{Target: l.target, Options: &o}})
	}
	for words, want := range map[string]string{
		"pric": "plain", "RICING": "plain", "exam": "under A-code_7 plain", "lan htm": "plain", "026": "plain",
		"plans": "A-code_7", "größe": "A-code_7", "RÖß": "A-code_7", "röss": "", "uigk": "A-code_7", "ummer ale": "A-code_7",
		"code": "A-code_7", "a-code_7": "A-code_7", "ode_7": "A-code_7", "cod 7": "A-code_7",
		"http": "A-code_7", "off%": "under A-code_7", "%": "", "50%_off": "A-code_7", "_%_": "", `\`: "", `off\now`: "under A-code_7",
		"off_now": "under A-code_7", "cent%s": "", "p_rcents": "", "percent": "under", "e\u0301te\u0301": "A-code_7", "te\u0301": "",
		"eu": "plain", "26": "", "20": "", "a": "under A-code_7 plain", "x": "A-code_7", "本語で": "under", "本語": "",
		"plan' OR true --": "", "lan or": "", "'||'": "", "none": "", "example none": "", "\x00xam": "under A-code_7 plain", "exam\xff": "under A-code_7 plain",
	} {
		q := link.Query{Words: words, Parts: true, N: 10}
		page, _, err := s.List(t.Context(), q)
		if got := codes(page); got != want || err != nil {
			t.Errorf("%q: got %q, %v, want %q", words, got, err, want)
		}
		if total, exact, err := s.Total(t.Context(), q); int(total) != len(page) || !exact || err != nil {
			t.Errorf("%q: total %d, %v, %v", words, total, exact, err)
		}
		var taken []string
		for i := len(links) - 1; i >= 0; i-- {
			if q.Takes(links[i], created, created) {
				taken = append(taken, links[i].Code)
			}
		}
		if got := strings.Join(taken, " "); got != want {
			t.Errorf("%q: Takes takes %q, want %q", words, got, want)
		}
	}
}

// While the index is built, links are archived, and starts do not wait. A build that is broken off
// leaves whole words, and the next one begins anew.
func TestABuildOfPartsIsBrokenOff(t *testing.T) {
	url := postgrestest.Databases(t, 1)[0]
	s := open(t, 0, io.Discard, url+"&statement_timeout=1000") // which does not hold for a build
	ready(t, s)
	db := s.DBs()[0]
	put(t, s, row("before", 0))
	execute(t, db, "CREATE EXTENSION pg_trgm")
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())

	// build builds while a transaction that wrote lasts, for which it waits, and returns when it does.
	const builder = `FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE NOT granted AND locktype = 'virtualxid'
		AND datname = current_database() AND query LIKE '% INDEX CONCURRENTLY links_by_part%'`
	build := func() (outcome chan error, writer pgx.Tx) {
		t.Helper()
		writer, err := conn.Begin(t.Context())
		if err == nil {
			_, err = writer.Exec(t.Context(), "UPDATE links SET disabled = false")
		}
		if err != nil {
			t.Fatal(err)
		}
		outcome = make(chan error, 1)
		go func() {
			found, err := db.IndexParts(t.Context())
			if err == nil && found != postgres.Parts {
				err = fmt.Errorf("it finds %q", found)
			}
			outcome <- err
		}()
		fleettest.Eventually(t, 20*time.Second, "the build waits for the writer", func() bool {
			var n int
			err := db.QueryRow(t.Context(), &n, "SELECT count(*) "+builder)
			return err == nil && n > 0
		})
		return outcome, writer
	}
	search := func(want string) {
		t.Helper()
		for _, parts := range []bool{false, true} {
			page, _, err := s.List(t.Context(), link.Query{Words: "example", Parts: parts, N: 10})
			if got := codes(page); got != want || err != nil {
				t.Errorf("found %q, %v, want %q", got, err, want)
			}
		}
	}

	outcome, writer := build()
	wantSearch(t, s, postgres.Unindexed)
	put(t, s, row("meanwhile", 0))
	ready(t, s)
	search("meanwhile before")
	execute(t, db, "SELECT pg_terminate_backend(pid) "+builder)
	if err := <-outcome; !errors.Is(err, link.ErrUnavailable) {
		t.Error(err)
	}
	if err := writer.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantSearch(t, s, postgres.Unindexed)
	put(t, s, row("after", 0))
	search("meanwhile before after")

	outcome, writer = build()
	another := make(chan error, 1)
	go func() { _, err := db.IndexParts(t.Context()); another <- err }()
	put(t, s, row("meanwhile2", 0))
	if err := writer.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(<-outcome, <-another); err != nil {
		t.Error(err)
	}
	wantSearch(t, s, postgres.Parts)
	search("meanwhile2 meanwhile before after")
}
