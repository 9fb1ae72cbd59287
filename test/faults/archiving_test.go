package faults_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/redisstore"
)

// Experiment 18. All three backends archive. One of them dies while marks are taken, again and
// again; links are made and changed meanwhile.
func TestKilledArchivers(t *testing.T) {
	kills := pick(5, 100)
	x := start(t, 18, fmt.Sprintf("kill -9 a backend while it archives, %d times", kills), fleet.Options{Archive: 3})
	a := x.archive()
	x.warm()
	ctx, end := context.WithCancel(t.Context())
	defer end()
	var writers sync.WaitGroup
	for range 4 { // more than the load makes, so that there is always something to archive
		writers.Go(func() {
			l := quietLoad(t, x.fleet.URL, x.fleet.APIKey, x.ledger)
			for ctx.Err() == nil {
				e, s := l.create() // it may be at a backend that dies
				if s.failure == "" {
					if err := x.ledger.add(e); err != nil {
						t.Error(err)
					}
					l.request(create, http.MethodPatch, "/links/"+e.code, `{"title":"changed"}`)
				}
				x.wait(10 * time.Millisecond)
			}
		})
	}
	left := 0
	for i := range kills {
		b := x.fleet.Backends[i%3]
		release := a.hold()
		left += a.taken()
		if i%2 == 0 { // PostgreSQL writes what nobody waits for any more
			b.Kill()
			release()
		} else { // or it dies between PostgreSQL and Redis
			release()
			x.wait(rand.N(10 * time.Millisecond))
			b.Kill()
		}
		x.expireLease(i%3 + 1)
		x.restart(b)
		x.wait(pick(100*time.Millisecond, 200*time.Millisecond))
	}
	end()
	writers.Wait()
	x.awaitCreate()
	v := a.verified()
	o := a.finish()

	o.nothingLost(t)
	o.noneFailed(t, GETs...)
	if v.Rows < o.acknowledged {
		t.Errorf("PostgreSQL has %d rows for %d links", v.Rows, o.acknowledged)
	}
	if left < kills {
		t.Errorf("%d marks were taken as a backend died, %d times: this tested nothing", left, kills)
	}
	x.fault += fmt.Sprintf(", with %d marks under way", left)
}

// hold keeps the archivers of all backends in the middle of writing to PostgreSQL, which can be read
// meanwhile, until release is called. It returns when all of them are there, with marks.
func (a *archive) hold() (release func()) {
	a.x.t.Helper()
	var held []*pgx.Conn
	for _, shard := range a.x.fleet.Archive {
		conn, err := pgx.Connect(a.x.t.Context(), shard.URL)
		if err == nil {
			held = append(held, conn)
			_, err = conn.Exec(a.x.t.Context(), "BEGIN; LOCK TABLE links IN EXCLUSIVE MODE")
		}
		if err != nil {
			a.x.t.Fatal(err)
		}
	}
	fleettest.Eventually(a.x.t, recovery, "all archivers have marks", func() bool {
		// One that had none would have taken a mark of a moment ago.
		groups, err := a.redis.XInfoGroups(a.x.t.Context(), redisstore.OutboxKey).Result()
		if err != nil || len(groups) == 0 {
			return false
		}
		left, err := a.redis.XRangeN(a.x.t.Context(), redisstore.OutboxKey, "("+groups[0].LastDeliveredID, "+", 1).Result()
		if err != nil || len(left) == 0 {
			return false
		}
		ms, _, _ := strings.Cut(left[0].ID, "-")
		made, err := strconv.ParseInt(ms, 10, 64)
		return err == nil && time.Since(time.UnixMilli(made)) > 3*rest
	})
	return func() {
		for _, conn := range held {
			_ = conn.Close(context.WithoutCancel(a.x.t.Context())) // which ends the transaction
		}
	}
}

// rest is how long an archiver rests when there is little: archived.idleFor.
const rest = 100 * time.Millisecond

// taken returns how many marks were taken that nobody is done with.
func (a *archive) taken() int {
	pending, err := a.redis.XPending(a.x.t.Context(), redisstore.OutboxKey, "archivers").Result()
	if err != nil {
		a.x.t.Error(err)
		return 0
	}
	return int(pending.Count)
}

// Experiment 22. The archive grows by one shard while all goes on, and what moves its links is
// killed on the way.
func TestArchiveGrows(t *testing.T) {
	x := start(t, 22, "shards from 3 to 4, `server archive move` killed half-way", fleet.Options{Archive: 3})
	a := x.archive()
	x.warm()
	cold := a.cold(pick(2000, 50_000))
	x.wait(pick(time.Second, 10*time.Second))
	p := x.probeAt([]string{x.fleet.URL}, 16, 100, each(cold)) // backends go and come

	// As "Adding databases" in docs/operating.md has it.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := x.fleet.GrowArchive(ctx); err != nil {
		t.Fatal(err)
	}
	x.rollingRestart(ctx, "WORK=off")
	x.rollingRestart(ctx, "WORK=on")
	killed := 0
	for range pick(2, 10) {
		move := x.fleet.Backends[0].Command(ctx, "archive", "move")
		var said fleettest.Output
		move.Stdout, move.Stderr = &said, &said
		if err := move.Start(); err != nil {
			t.Fatal(err)
		}
		before := x.rowsOf(3)
		fleettest.Eventually(t, recovery, "links move", func() bool { return x.rowsOf(3) > before || move.ProcessState != nil })
		_ = move.Process.Kill()
		if err := move.Wait(); err != nil && strings.Contains(err.Error(), "killed") {
			killed++
		} else {
			t.Logf("move ended before it was killed: %v, %s", err, &said)
		}
	}
	out, err := x.fleet.Backends[0].Command(ctx, "archive", "move").CombinedOutput()
	t.Logf("move: %v\n%s", err, out)
	if err != nil {
		t.Fatal(err)
	}
	probed := p.end()
	x.rollingRestart(ctx, "ARCHIVE_SHARDS_BEFORE=")
	a = x.archive()
	x.wait(pick(500*time.Millisecond, 10*time.Second))
	o := a.finish()

	o.nothingLost(t)
	o.noneFailed(t, GETs...)
	x.onlyFailedBy("cold links", probed)
	var rows []int
	for i := range x.fleet.Archive {
		rows = append(rows, x.rowsOf(i))
	}
	x.fault += fmt.Sprintf(", %d times; then they have %v links", killed, rows)
	t.Log(x.fault)
	if killed == 0 {
		t.Error("no move was killed: this tested nothing")
	}
	if fourth, all := rows[3], slices.Max(rows); fourth*2 < all {
		t.Errorf("the shards have %v links", rows)
	}
}

// rollingRestart restarts the backends one after another, with more environment.
func (x *experiment) rollingRestart(ctx context.Context, entry string) {
	x.t.Helper()
	for _, b := range x.fleet.Backends {
		b.Setenv(entry)
		if err := errors.Join(b.Stop(ctx), b.Start(ctx)); err != nil {
			x.t.Fatal(err)
		}
	}
}

// rowsOf counts the links of a shard.
func (x *experiment) rowsOf(shard int) (n int) {
	x.t.Helper()
	conn, err := pgx.Connect(x.t.Context(), x.fleet.Archive[shard].URL)
	if err != nil {
		x.t.Fatal(err)
	}
	defer conn.Close(x.t.Context())
	if err := conn.QueryRow(x.t.Context(), "SELECT count(*) FROM links").Scan(&n); err != nil {
		return 0 // it has no table yet
	}
	return n
}

// Experiment 23. Redis's new master may lack what the old one acknowledged last, also of what is
// archived: the archive has it then, and restores it.
func TestFailoverWhileArchiving(t *testing.T) {
	x := start(t, 23, "kill -9 the master under Sentinel while links are archived", fleet.Options{Sentinel: true, Archive: 3})
	a := x.archive()
	x.warm()
	failovers := pick(1, 5)
	window := map[entry]bool{}
	for range failovers {
		x.wait(pick(500*time.Millisecond, 5*time.Second))
		was := x.master(nil)
		ctx, end := context.WithTimeout(t.Context(), time.Second)
		x.createAt(ctx, x.fleet.Backends[0].URL, x.fleet.Backends[1].URL)
		end()
		release := a.hold()
		was.Kill()
		release()
		had := x.replicated(was)
		x.master(was)
		before := x.ledger.last(everything)
		x.awaitCreate()
		archived := a.archivedOf(before)
		for _, e := range before {
			if !had[redisstore.LinkKey(e.code)] && !archived[e] {
				window[e] = true
			}
		}
		x.startAgain(was)
		x.wait(pick(500*time.Millisecond, 5*time.Second))
		fleettest.Eventually(t, recovery, "both replicas are up to date", func() bool { return x.replicas() == 2 })
	}
	x.load.stop()
	a.drained()
	a.verify() // as a backend does in the minute after a failover
	o := a.finish()

	lost := 0
	for e := range o.gone {
		if !window[e] {
			t.Errorf("%s is lost, and a replica or the archive had it", e.code)
		}
		lost++
	}
	x.fault += fmt.Sprintf(", %d times: %d links were on no replica and not archived, %d lost", failovers, len(window), lost)
	t.Log(x.fault)
	o.noneFailed(t, hotGET)
	for _, s := range o.of(recentGET).samples {
		if s.failure != "" && s.failure != "503" && !(s.failure == "404" && lost > 0) {
			t.Errorf("a recent link: %s", s.failure)
		}
	}
}

// replicas counts the replicas that the master has.
func (x *experiment) replicas() int {
	master, err := x.fleet.Sentinel.Master(x.t.Context())
	if err != nil {
		return 0
	}
	db := master.Client()
	defer db.Close()
	text, err := db.Info(x.t.Context(), "replication").Result()
	if err != nil {
		return 0
	}
	return strings.Count(text, "state=online")
}
