package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"snowlink/internal/archived"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/postgres"
	"snowlink/internal/postgres/postgrestest"
	"snowlink/internal/redisstore"
	"snowlink/snowflake"
)

// An upkeepTest is a Redis in front of some databases, and the environment that says so.
type upkeepTest struct {
	redisURL string
	client   *redis.Client
	urls     []string
}

func newUpkeepTest(t *testing.T, databases int) *upkeepTest {
	t.Helper()
	r := fleettest.Redis(t, "maxmemory-policy volatile-lru")
	return &upkeepTest{"redis://" + r.Addr, fleettest.RedisClient(t, r.Addr), postgrestest.Databases(t, databases)}
}

func (u *upkeepTest) environ(more ...string) []string {
	return append([]string{"REDIS_URL=" + u.redisURL, "ARCHIVE_URL=" + strings.Join(u.urls, ",")}, more...)
}

// run runs server archive, and returns what it printed.
func (u *upkeepTest) run(t *testing.T, command string, more ...string) (stdout string, err error) {
	t.Helper()
	var out, progress fleettest.Output
	err = run(t.Context(), append([]string{"archive"}, strings.Fields(command)...), u.environ(more...), &out, &progress)
	t.Logf("server archive %s\n%sstderr:\n%s%v", command, &out, &progress, err)
	return out.String(), err
}

// must runs server archive with -json, and reads what it printed.
func (u *upkeepTest) must(t *testing.T, command string, more ...string) (found map[string]any) {
	t.Helper()
	out, err := u.run(t, command+" -json", more...)
	if err != nil {
		t.Fatalf("archive %s: %v", command, err)
	}
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatalf("archive %s printed %q: %v", command, out, err)
	}
	return found
}

// hot is the Store in front of the archive.
func (u *upkeepTest) hot(t *testing.T) *redisstore.Store {
	return redisstore.New(fleettest.Conn(t, u.redisURL, slog.New(slog.DiscardHandler)), redisstore.Options{Archived: true})
}

// shards opens the archive.
func (u *upkeepTest) shards(t *testing.T, before int, urls []string) *postgres.Shards {
	t.Helper()
	shards, err := postgres.Open(strings.Join(urls, ","), before, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shards.Close)
	return shards
}

// old makes links as a backend without an archive does.
func (u *upkeepTest) old(t *testing.T, n int) {
	t.Helper()
	store := redisstore.New(fleettest.Conn(t, u.redisURL, slog.New(slog.DiscardHandler)), redisstore.Options{})
	links := make([]link.Coded, n)
	for i := range links {
		links[i] = link.Coded{Code: fmt.Sprint("old-", i), Link: link.Link{Target: fmt.Sprint("https://example.com/", i)}}
	}
	if err := errors.Join(store.CreateAll(t.Context(), link.DefaultOwner, links)...); err != nil {
		t.Fatal(err)
	}
}

func TestArchiveHelpAndErrors(t *testing.T) {
	var out bytes.Buffer
	for _, args := range [][]string{{"archive"}, {"archive", "-h"}, {"archive", "status", "--help"}} {
		out.Reset()
		if err := run(t.Context(), args, nil, &out, io.Discard); err != nil {
			t.Errorf("%s: %v", args, err)
		}
		for _, c := range upkeeps {
			if !strings.Contains(out.String(), "\n  "+c.name+" ") {
				t.Errorf("%s does not tell of %s:\n%s", args, c.name, &out)
			}
		}
		for line := range strings.Lines(out.String()) {
			if len(line) > 81 {
				t.Errorf("too wide for 80 columns: %s", line)
			}
		}
	}
	archive := "ARCHIVE_URL=postgres://u:hidden@127.0.0.1:1/db"
	for _, tt := range []struct {
		name, command string
		environ       []string
		want          []string
	}{
		{"a wrong command", "verfy", nil, []string{"verfy", "\n  verify "}},
		{"a wrong flag", "verify -x", nil, []string{"-x", "\n  verify "}},
		{"too much", "verify all", nil, []string{"all", "\n  verify "}},
		{"no archive", "status", []string{"REDIS_URL=redis://localhost"}, []string{"ARCHIVE_URL is not set", "server help"}},
		{"no Redis", "verify", []string{archive}, []string{"REDIS_URL is not set"}},
		{"not an address", "status", []string{"REDIS_URL=redis://localhost", "ARCHIVE_URL=mysql://u:hidden@h"}, []string{"ARCHIVE_URL", "postgres://"}},
		{"a wrong number", "move", []string{"REDIS_URL=redis://localhost", archive, "ARCHIVE_SHARDS_BEFORE=x"}, []string{"ARCHIVE_SHARDS_BEFORE"}},
		{"nothing moves", "move", []string{"REDIS_URL=redis://localhost", archive}, []string{"ARCHIVE_SHARDS_BEFORE is not set"}},
		{"all away", "status", []string{"REDIS_URL=redis://:hidden@127.0.0.1:1", archive}, []string{"Redis does not answer", "archive shard 1"}},
		{"a database away", "migrate", []string{archive}, []string{"archive shard 1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, stderr bytes.Buffer
			err := run(t.Context(), append([]string{"archive"}, strings.Fields(tt.command)...), tt.environ, &out, &stderr)
			if err == nil {
				t.Fatal("it succeeded")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error lacks %q: %v", want, err)
				}
			}
			if all := err.Error() + out.String() + stderr.String(); strings.Contains(all, "hidden") {
				t.Errorf("it shows a secret:\n%s", all)
			}
		})
	}
}

func TestArchiveMigrate(t *testing.T) {
	t.Parallel()
	u := newUpkeepTest(t, 2)
	u.redisURL = "" // it needs none
	first, err := u.run(t, "migrate")
	if err != nil || strings.Count(first, "from version 0 to ") != 2 {
		t.Errorf("%v\n%s", err, first)
	}
	for _, s := range u.must(t, "migrate")["shards"].([]any) {
		if s := s.(map[string]any); s["from"] != s["to"] || s["to"] == 0. {
			t.Errorf("again: %v", s)
		}
	}
	u.urls = append(u.urls, "postgres://u:hidden@127.0.0.1:1/db")
	out, err := u.run(t, "migrate")
	if err == nil || strings.Count(out, "already") != 2 || !strings.Contains(err.Error(), "archive shard 3") {
		t.Errorf("one is away: %v\n%s", err, out)
	}
}

// Once pg_trgm is in all databases and migrate has run, searches find parts of words. Until then status
// says what that takes.
func TestArchiveMigrateIndexesForPartsOfWords(t *testing.T) {
	t.Parallel()
	u := newUpkeepTest(t, 2)
	migrate := func(want ...string) {
		t.Helper()
		for i, s := range u.must(t, "migrate")["shards"].([]any) {
			if got := s.(map[string]any)["search"]; got != want[i] {
				t.Errorf("shard %d: %v, want %s", i+1, got, want[i])
			}
		}
	}
	status := func(want string) {
		t.Helper()
		if out, err := u.run(t, "status"); err != nil || !strings.Contains(out, "\nSearch finds "+want+".\n") {
			t.Errorf("status does not say that it finds %s: %v", want, err)
		}
	}
	extend := func(url string) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		if _, err := conn.Exec(t.Context(), "CREATE EXTENSION pg_trgm"); err != nil {
			t.Fatal(err)
		}
	}
	migrate("words", "words")
	u.old(t, 10)
	u.must(t, "backfill")
	status("whole words")
	store := archived.New(u.hot(t), u.shards(t, 0, u.urls), prometheus.NewRegistry())
	finds := func(want int) {
		t.Helper()
		if page, err := store.List(t.Context(), link.Query{Words: "xampl", N: 100}); err != nil || len(page.Links) != want {
			t.Errorf("part of a word: %d links, %v, want %d", len(page.Links), err, want)
		}
	}

	extend(u.urls[0])
	status("whole words: for parts of words, pg_trgm is missing in shard 2")
	migrate("parts", "words")
	finds(0)
	extend(u.urls[1])
	status("whole words: for parts of words, run server archive migrate, which builds the index of shard 2")
	migrate("parts", "parts")
	status("parts of words")
	finds(10)
	if out, err := u.run(t, "migrate"); err != nil || strings.Count(out, "parts of words") != 2 {
		t.Errorf("again: %v\n%s", err, out)
	}
}

// Links from before there was an archive are archived by a backfill alone. What is wrong afterwards is
// found by verify, and mended by what it says.
func TestArchiveBackfillAndVerify(t *testing.T) {
	t.Parallel()
	u := newUpkeepTest(t, 3)
	const n = 3000
	u.old(t, n)
	if found := u.must(t, "verify"); found["pending"] != float64(n) || found["wrong"] != 0. || found["complete"] != true {
		t.Errorf("before the backfill: %v", found)
	}
	if found := u.must(t, "backfill"); found["links"].(float64) < n || found["pending_marks"] != 0. || found["complete"] != true {
		t.Errorf("backfill: %v", found)
	}
	if found := u.must(t, "backfill"); found["marked"] != 0. {
		t.Errorf("another backfill: %v", found)
	}
	found := u.must(t, "verify")
	rows := 0.
	for _, s := range found["shards"].([]any) {
		rows += s.(map[string]any)["rows_estimate"].(float64)
	}
	if found["same"] != float64(n) || found["rows"] != float64(n) || rows < n/2 {
		t.Errorf("after the backfill: %v", found)
	}

	if err := u.client.Set(t.Context(), "link:old-7", "https://example.com/wrong", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	out, err := u.run(t, "verify")
	if err == nil || !strings.Contains(err.Error(), "old-7") || !strings.Contains(err.Error(), "server archive backfill") ||
		!strings.Contains(out, "links in Redis") {
		t.Errorf("of a wrong link verify says %v\n%s", err, out)
	}
	u.must(t, "backfill")
	if found := u.must(t, "verify"); found["same"] != float64(n) {
		t.Errorf("once it is mended: %v", found)
	}
}

// A link that expires had a time to live before there was an archive. A backfill archives it, too.
func TestArchiveBackfillOfLinksThatExpire(t *testing.T) {
	t.Parallel()
	u := newUpkeepTest(t, 1)
	old := redisstore.New(fleettest.Conn(t, u.redisURL, slog.New(slog.DiscardHandler)), redisstore.Options{})
	l := link.Link{Target: "https://example.com/", Options: &link.Options{Expires: time.Now().Add(time.Hour)}}
	if err := old.Create(t.Context(), link.DefaultOwner, "expires", l); err != nil {
		t.Fatal(err)
	}
	if found := u.must(t, "backfill"); found["marked"] != 1. {
		t.Errorf("backfill: %v", found)
	}
	if found := u.must(t, "verify"); found["same"] != 1. {
		t.Errorf("verify: %v", found)
	}
}

// Nothing is archived while a database is away. Whoever breaks the backfill off learns how far it
// came, and the next one ends.
func TestArchiveBackfillIsBrokenOff(t *testing.T) {
	t.Parallel()
	u := newUpkeepTest(t, 0)
	server := postgrestest.Own(t)
	u.urls = []string{server.Database(t)}
	u.must(t, "migrate")
	u.old(t, 100)
	if err := archived.Prepare(t.Context(), u.hot(t), u.shards(t, 0, u.urls)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var out, stderr fleettest.Output
	done := make(chan error, 1)
	lock(t, u.urls[0])
	go func() { done <- run(ctx, []string{"archive", "backfill", "-json"}, u.environ(), &out, &stderr) }()
	fleettest.Eventually(t, 20*time.Second, "it waits", func() bool { return strings.Contains(stderr.String(), "waiting until they are archived") })
	cancel()
	err := <-done
	if err == nil || !strings.Contains(err.Error(), "broken off") || !strings.Contains(err.Error(), "looked at 100 links") ||
		!strings.Contains(err.Error(), "run again") || !strings.Contains(out.String(), `"complete": false`) {
		t.Errorf("broken off: %v\n%s", err, &out)
	}
}

// lock keeps the rows of a database from being written until the test ends.
func lock(t *testing.T, url string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE links IN SHARE MODE"); err != nil {
		t.Fatal(err)
	}
}

func TestArchiveStatus(t *testing.T) {
	t.Parallel()
	u := newUpkeepTest(t, 2)
	server := postgrestest.Own(t)
	u.urls = append(u.urls, server.Database(t))
	out, err := u.run(t, "status")
	if err == nil || strings.Count(err.Error(), "run server archive migrate") != 3 {
		t.Errorf("before it was migrated: %v\n%s", err, out)
	}
	u.old(t, 300)
	u.must(t, "backfill")
	found := u.must(t, "status")
	outbox, r := found["outbox"].(map[string]any), found["redis"].(map[string]any)
	if outbox["pending_marks"] != 0. || outbox["archivers"] != "working" || r["maxmemory_policy"] != "volatile-lru" ||
		r["keys"].(float64) < 300 || r["keys_without_ttl"].(float64) > 10 {
		t.Errorf("status = %v", found)
	}
	rows, share := 0., 0.
	for _, s := range found["shards"].([]any) {
		s := s.(map[string]any)
		rows, share = rows+s["rows_estimate"].(float64), share+s["share"].(float64)
		if s["answers"] != true || s["schema_version"] == 0. || s["bytes_per_row"].(float64) < 100 ||
			!strings.HasPrefix(s["address"].(string), "127.0.0.1:") || strings.Contains(s["address"].(string), "postgres") {
			t.Errorf("shard %v", s)
		}
	}
	if rows < 150 || share < 0.99 || share > 1.01 {
		t.Errorf("the shards have %v rows and shares of %v in all", rows, share)
	}

	if err := server.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	out, err = u.run(t, "status")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("with a frozen shard it took %s", took)
	}
	if err == nil || !strings.Contains(err.Error(), "archive shard 3") || strings.Contains(err.Error(), "archive shard 1") ||
		!strings.Contains(out, "away") || strings.Count(out, " %") != 3 {
		t.Errorf("with a frozen shard: %v\n%s", err, out)
	}
	if err := server.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}

	if err := u.client.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err = u.run(t, "status"); err == nil || !strings.Contains(err.Error(), "allkeys-lru") {
		t.Errorf("with another policy: %v", err)
	}
}

func TestArchiveStatusWithoutArchivers(t *testing.T) {
	t.Parallel()
	u := newUpkeepTest(t, 1)
	u.must(t, "migrate")
	old := fmt.Sprint(time.Now().Add(-2 * time.Minute).UnixMilli())
	if err := u.client.XAdd(t.Context(), &redis.XAddArgs{Stream: redisstore.OutboxKey, ID: old, Values: []string{"c", "a"}}).Err(); err != nil {
		t.Fatal(err)
	}
	if out, err := u.run(t, "status"); err == nil || !strings.Contains(err.Error(), "no archiver takes them") || !strings.Contains(err.Error(), "2m") {
		t.Errorf("%v\n%s", err, out)
	}
	u.must(t, "backfill") // which archives
	u.must(t, "status")
}

// An archive grows from two databases to three while links are made, changed and deleted. The move is
// broken off, and run again by two at once. Every link is found as it was written last, all the time.
func TestArchiveMove(t *testing.T) {
	t.Parallel()
	u := newUpkeepTest(t, 3)
	all := u.urls
	u.urls = all[:2]
	hot := u.hot(t)
	shards := u.shards(t, 0, u.urls)
	if err := archived.Prepare(t.Context(), hot, shards); err != nil {
		t.Fatal(err)
	}
	archiver := func(shards *postgres.Shards) *archived.Archiver {
		return archived.NewArchiver(hot, shards, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	}
	drained := func() {
		t.Helper()
		fleettest.Eventually(t, 60*time.Second, "everything is archived", func() bool {
			n, _, err := hot.Backlog(t.Context())
			return err == nil && n == 0
		})
	}
	generator, err := snowflake.NewGenerator(3)
	if err != nil {
		t.Fatal(err)
	}
	last := make(map[string]link.Link) // what each link is to be; of whoever writes
	mint := func(n int) (links []link.Coded) {
		for i := range n {
			c := link.Coded{Code: snowflake.Encode(generator.Next()), Link: link.Link{Target: fmt.Sprint("https://example.com/new/", i)}}
			links, last[c.Code] = append(links, c), c.Link
		}
		return links
	}
	stop := fleettest.Background(t, archiver(shards).Run)
	const n = 6000
	if err := errors.Join(archived.New(hot, shards, prometheus.NewRegistry()).CreateAll(t.Context(), link.DefaultOwner, mint(n))...); err != nil {
		t.Fatal(err)
	}
	drained()
	_ = stop() // it returns nil
	evictAll := func() {
		t.Helper()
		var keys []string
		for code := range last {
			keys = append(keys, "link:"+code)
		}
		if err := u.client.Del(t.Context(), keys...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	evictAll()

	u.urls = all
	grown := u.shards(t, 2, all)
	if err := archived.Prepare(t.Context(), hot, grown); err != nil {
		t.Fatal(err)
	}
	store := archived.New(hot, grown, prometheus.NewRegistry())
	fleettest.Background(t, archiver(grown).Run)
	ctx, quiet := context.WithCancel(t.Context())
	var load sync.WaitGroup
	load.Go(func() {
		var changed, deleted, made, evicted int
		defer func() {
			t.Logf("meanwhile %d links were made, %d changed, %d of these deleted, and %d evicted", made, changed, deleted, evicted)
		}()
		var recent []string // which were changed, so that they are archived, evicted and read again
		for round := 0; ctx.Err() == nil; round++ {
			if round%20 == 0 {
				made += 10
				if err := errors.Join(store.CreateAll(t.Context(), link.DefaultOwner, mint(10))...); err != nil {
					t.Errorf("CreateAll = %v", err)
					return
				}
			}
			var code string
			for code = range last { // any
				break
			}
			if round%2 == 0 && len(recent) > 10 {
				code, recent = recent[0], recent[1:]
			}
			n, _ := u.client.Eval(t.Context(), `if redis.call("PTTL", KEYS[1]) > 0 then return redis.call("DEL", KEYS[1]) end return 0`,
				[]string{"link:" + code}).Int()
			evicted += n
			want := last[code]
			got, err := store.Read(t.Context(), code)
			if err != nil || !got.Link.Equal(want) {
				t.Errorf("while links move, Read(%s) = %+v, %v, want %+v", code, got, err, want)
				return
			}
			if want.Options != nil {
				continue // deleted
			}
			next := link.Link{Target: fmt.Sprint("https://example.com/changed/", round)}
			if round%10 == 0 {
				next = link.Link{Options: &link.Options{Deleted: true}}
				deleted++
			}
			changed++
			if _, err := store.Update(t.Context(), code, got.Version, next); err != nil {
				t.Errorf("Update(%s) = %v", code, err)
				return
			}
			last[code], recent = next, append(recent, code)
		}
	})

	before := "ARCHIVE_SHARDS_BEFORE=2"
	broken, breakOff := context.WithCancel(t.Context())
	var out, stderr fleettest.Output
	done := make(chan error, 1)
	go func() { done <- run(broken, []string{"archive", "move"}, u.environ(before), &out, &stderr) }()
	newest := grown.DBs()[2]
	fleettest.Eventually(t, 60*time.Second, "a part has moved", func() bool {
		rows, err := newest.Count(t.Context())
		return err == nil && rows > n/12
	})
	breakOff()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "broken off") || !strings.Contains(err.Error(), "run again") {
		t.Errorf("broken off, move = %v\n%s", err, &out)
	} else {
		t.Log(err)
	}
	for _, command := range []string{"verify", "status"} {
		if _, err := u.run(t, command); err == nil || !strings.Contains(err.Error(), "ARCHIVE_SHARDS_BEFORE=2") {
			t.Errorf("without the number of before while links move, %s = %v", command, err)
		}
	}
	if out, err := u.run(t, "status", before); err != nil || !strings.Contains(out, "run server archive move") {
		t.Errorf("while links move, status = %v\n%s", err, out)
	}
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if out, err := u.run(t, "move", before); err != nil || !strings.Contains(out, "Unset ARCHIVE_SHARDS_BEFORE") || !strings.Contains(out, "links away from home   0") {
				t.Errorf("run again, move = %v\n%s", err, out)
			}
		})
	}
	both.Wait()
	quiet()
	load.Wait()
	drained()

	if found := u.must(t, "move", before); found["moved"] != 0. || found["complete"] != true {
		t.Errorf("with nothing left, move = %v", found)
	}
	if found := u.must(t, "status"); found["moving"] != false {
		t.Errorf("once all are home, status = %v", found)
	}
	found := u.must(t, "verify")
	if found["same"] != found["links"] || found["rows"] != float64(len(last)) {
		t.Errorf("there are %d links, and verify = %v", len(last), found)
	}
	evictAll()
	var codes []string
	for code := range last {
		codes = append(codes, code)
	}
	home := archived.New(hot, u.shards(t, 0, all), prometheus.NewRegistry())
	for some := range slices.Chunk(codes, 500) {
		got, errs := home.GetAll(t.Context(), some)
		for i, code := range some {
			if errs[i] != nil || !got[i].Equal(last[code]) {
				t.Fatalf("%s is %+v, %v, want %+v", code, got[i], errs[i], last[code])
			}
		}
	}
}

func TestTableOfAMove(t *testing.T) {
	var out bytes.Buffer
	if err := writeTable(&out, moved{Complete: true, Looked: 12_345, Moved: 2345}); err != nil {
		t.Fatal(err)
	}
	want := "links moved home       2,345\nlinks that stayed      10,000   in the databases from before\nlinks away from home   0\n"
	if !strings.HasPrefix(out.String(), want) {
		t.Errorf("it says\n%s", &out)
	}
}
