package faults_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/httpapi"
	"snowlink/internal/link"
	"snowlink/internal/postgres"
	"snowlink/internal/redisstore"
)

// archive looks into the archive of a fleet and the Redis before it, past the backends.
type archive struct {
	x      *experiment
	redis  redis.UniversalClient
	hot    *redisstore.Store
	shards *postgres.Shards
}

// archive waits until the archive is ready.
func (x *experiment) archive() *archive {
	x.t.Helper()
	silent := slog.New(slog.DiscardHandler)
	conn := fleettest.Conn(x.t, x.fleet.RedisURL(), silent)
	reg := prometheus.NewRegistry()
	shards, err := postgres.Open(x.fleet.ArchiveURL(), 0, silent, reg)
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(shards.Close)
	a := &archive{x: x, redis: conn.Aside, shards: shards}
	a.hot = redisstore.New(conn, redisstore.Options{Archived: true})
	fleettest.Eventually(x.t, recovery, "the archive is ready", func() bool {
		ok, err := a.hot.RemembersArchive(x.t.Context())
		return ok && err == nil
	})
	return a
}

// evict deletes those of some links from Redis that Redis may evict, and returns how many it did.
func (a *archive) evict(entries ...entry) (n int) {
	for some := range slices.Chunk(entries, 1000) {
		pipe := a.redis.Pipeline()
		cmds := make([]*redis.Cmd, len(some))
		for i, e := range some {
			cmds[i] = pipe.Eval(a.x.t.Context(), `if redis.call("PTTL", KEYS[1]) > 0 then return redis.call("DEL", KEYS[1]) end return 0`,
				[]string{redisstore.LinkKey(e.code)})
		}
		_, _ = pipe.Exec(a.x.t.Context()) // what failed is not evicted
		for _, cmd := range cmds {
			one, _ := cmd.Int()
			n += one
		}
	}
	return n
}

// inRedis reports whether Redis has a link.
func (a *archive) inRedis(e entry) bool {
	return a.redis.Exists(a.x.t.Context(), redisstore.LinkKey(e.code)).Val() == 1
}

// evictAll waits until Redis may evict each of some links, and has it done so. So they are cold,
// except to near caches.
func (a *archive) evictAll(entries []entry) {
	a.x.t.Helper()
	evicted := 0
	a.eventually("everything is archived and evicted", func() bool {
		evicted += a.evict(entries...)
		return evicted >= len(entries)
	})
}

// pending lists the codes that the outbox names, and since when the oldest is there.
func (a *archive) pending() (codes map[string]bool, since time.Time) {
	a.x.t.Helper()
	marks, err := a.redis.XRange(a.x.t.Context(), redisstore.OutboxKey, "-", "+").Result()
	if err != nil {
		a.x.t.Fatal(err)
	}
	return pendingOf(marks)
}

// waiting lists the codes of links that were to be archived a while ago, and are not yet.
func (a *archive) waiting(while time.Duration) map[string]bool {
	a.x.t.Helper()
	marks, err := a.redis.XRange(a.x.t.Context(), redisstore.OutboxKey, "-", fmt.Sprint(time.Now().Add(-while).UnixMilli())).Result()
	if err != nil {
		a.x.t.Fatal(err)
	}
	codes, _ := pendingOf(marks)
	for code := range codes { // a mark has links of several shards, and stays for the last
		if a.redis.PTTL(a.x.t.Context(), redisstore.LinkKey(code)).Val() != -1 {
			delete(codes, code)
		}
	}
	return codes
}

// lately is longer than archiving takes while a shard hangs, which every archiver has to find out: a
// write waits for 10 s.
const lately = 15 * time.Second

func pendingOf(marks []redis.XMessage) (codes map[string]bool, since time.Time) {
	codes = map[string]bool{}
	for i, m := range marks {
		if i == 0 {
			var ms int64
			_, _ = fmt.Sscanf(m.ID, "%d-", &ms)
			since = time.UnixMilli(ms)
		}
		for code := range strings.FieldsSeq(m.Values["c"].(string)) {
			codes[code] = true
		}
	}
	return codes, since
}

// catchUp is the longest that archiving may take once everything is there again: a mark that was
// taken by somebody who died is left alone for 10 s.
const catchUp = 60 * time.Second

// drained waits until nothing waits to be archived.
func (a *archive) drained() {
	a.x.t.Helper()
	began := time.Now()
	a.eventually("everything is archived", func() bool {
		n, _, err := a.hot.Backlog(a.x.t.Context())
		return err == nil && n == 0
	})
	a.x.t.Logf("everything was archived after %s", time.Since(began).Round(10*time.Millisecond))
}

// eventually waits until archivers have caught up. A brief run does not wait until marks that
// somebody has taken are taken again.
func (a *archive) eventually(what string, ok func() bool) {
	a.x.t.Helper()
	left := time.Now()
	fleettest.Eventually(a.x.t, catchUp, what, func() bool {
		if !*long && time.Since(left) > time.Second {
			a.leave()
			left = time.Now()
		}
		return ok()
	})
}

// leave makes marks that somebody has taken look as if that were long ago.
func (a *archive) leave() {
	ctx := a.x.t.Context()
	taken, err := a.redis.XPendingExt(ctx, &redis.XPendingExtArgs{Stream: redisstore.OutboxKey, Group: "archivers", Start: "-", End: "+", Count: 100_000}).Result()
	if err != nil || len(taken) == 0 {
		return
	}
	args := []any{"xclaim", redisstore.OutboxKey, "archivers", "archivers", 0}
	for _, m := range taken {
		args = append(args, m.ID)
	}
	_ = a.redis.Do(ctx, append(args, "idle", 60_000, "justid")...).Err() // if it fails, the run takes longer
}

// verified is what `server archive verify` says.
type verified struct{ Links, Same, Pending, Wrong, Unreadable, Rows int }

func (a *archive) verify() (v verified) {
	a.x.t.Helper()
	out, err := a.x.fleet.Backends[0].Command(a.x.t.Context(), "archive", "verify", "-json").Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		a.x.t.Logf("server archive verify: %s", exit.Stderr)
	}
	if err := json.Unmarshal(out, &v); err != nil {
		a.x.t.Fatalf("server archive verify: %v, %s", err, out)
	}
	a.x.t.Logf("verified: %+v", v)
	return v
}

// verified ends the load, waits until everything is archived, and fails the test unless Redis and
// PostgreSQL agree. What was written and neither marked nor acknowledged, verify marks itself.
func (a *archive) verified() verified {
	a.x.t.Helper()
	a.x.load.stop()
	a.drained()
	v := a.verify()
	if v.Pending > 0 {
		marked, _ := a.pending()
		for _, e := range a.x.all() {
			if marked[e.code] {
				a.x.t.Errorf("%s was acknowledged, and no mark named it", e.code)
			}
		}
		a.drained()
		v = a.verify()
	}
	if v.Same != v.Links {
		a.x.t.Errorf("Redis and PostgreSQL differ: %+v", v)
	}
	return v
}

// all returns the whole ledger.
func (x *experiment) all() []entry {
	x.t.Helper()
	all, err := x.ledger.read()
	if err != nil {
		x.t.Fatal(err)
	}
	return all
}

// finish is experiment.finish of links that Redis has forgotten as far as it may: what is read back
// comes from the archive.
func (a *archive) finish() *outcome {
	a.x.t.Helper()
	a.verified()
	a.evict(a.x.all()...)
	return a.x.finish()
}

// bulk makes n links of some length at a backend directly, in one request. What was acknowledged is
// in the ledger; the statuses of what was not are counted.
func (x *experiment) bulk(n, length int) (made []entry, failed map[int]int) {
	x.t.Helper()
	var body strings.Builder
	targets := make([]string, n)
	for i := range targets {
		targets[i] = fmt.Sprintf("%sbulk/%d/", x.load.prefix, x.load.made.Add(1))
		targets[i] += strings.Repeat("a", max(0, length-len(targets[i])))
		fmt.Fprintf(&body, `{"url":%q}`+"\n", targets[i])
	}
	b := x.fleet.Backends[rand.IntN(len(x.fleet.Backends))]
	resp, answer, err := do(x.t.Context(), x.load.client, http.MethodPost, b.URL+"/links/bulk", x.fleet.APIKey, body.String())
	if err != nil || resp.StatusCode != http.StatusOK {
		x.t.Fatalf("a bulk: %+v, %v, %s", resp, err, answer)
	}
	failed = map[int]int{}
	lines := bufio.NewScanner(strings.NewReader(string(answer)))
	for i := 0; lines.Scan(); i++ {
		var item struct {
			Code, URL string
			Status    int
		}
		if err := json.Unmarshal(lines.Bytes(), &item); err != nil {
			x.t.Fatal(err)
		}
		if item.URL == targets[i] {
			made = append(made, entry{item.Code, item.URL})
		} else {
			failed[item.Status]++
		}
	}
	if err := x.ledger.addAside(made); err != nil {
		x.t.Fatal(err)
	}
	return made, failed
}

// cold makes n links that the archive alone has.
func (a *archive) cold(n int) []entry {
	a.x.t.Helper()
	var made []entry
	for len(made) < n {
		some, failed := a.x.bulk(min(httpapi.MaxItems, n-len(made)), 0)
		if len(failed) > 0 {
			a.x.t.Fatalf("a bulk before the fault failed: %v", failed)
		}
		made = append(made, some...)
	}
	a.evictAll(made)
	return made
}

// probes are requests beside the load.
type probes struct {
	mu      sync.Mutex
	samples []sample
	cancel  context.CancelFunc
	working sync.WaitGroup
}

// probe is probeAt the backends directly.
func (x *experiment) probe(clients, perSecond int, next func() entry) *probes {
	var urls []string
	for _, b := range x.fleet.Backends {
		urls = append(urls, b.URL)
	}
	return x.probeAt(urls, clients, perSecond, next)
}

// probeAt has some clients follow links until end is called, at most so many a second: next gives
// the links and may be called concurrently.
func (x *experiment) probeAt(urls []string, clients, perSecond int, next func() entry) *probes {
	ctx, cancel := context.WithCancel(x.t.Context())
	p := &probes{cancel: cancel}
	x.t.Cleanup(func() { p.end() })
	var direct []*load
	for _, url := range urls {
		direct = append(direct, quietLoad(x.t, url, "", nil))
	}
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	for i := range clients {
		p.working.Go(func() {
			for n := i; ; n++ {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				s := direct[n%len(direct)].follow(recentGET, []entry{next()})
				p.mu.Lock()
				p.samples = append(p.samples, s)
				p.mu.Unlock()
			}
		})
	}
	return p
}

// end stops the probes and returns them.
func (p *probes) end() measured {
	p.cancel()
	p.working.Wait()
	return measured{samples: p.samples}
}

// each returns entries in turn, from the first again after the last.
func each(entries []entry) func() entry {
	var n atomic.Int64
	return func() entry { return entries[int(n.Add(1)-1)%len(entries)] }
}

// onlyFailedBy fails the test if a probe failed by another answer than these, and returns how many
// failed and how many were answered.
func (x *experiment) onlyFailedBy(what string, m measured, answers ...string) (failed, answered int) {
	x.t.Helper()
	for _, s := range m.samples {
		switch {
		case s.wrong:
			x.t.Errorf("%s: %s leads elsewhere", what, s.code)
		case s.failure == "":
			answered++
		case slices.Contains(answers, s.failure):
			failed++
		default:
			x.t.Errorf("%s: %s", what, s.failure)
		}
	}
	x.t.Logf("%s: %d answered, %d refused, p99 %s, slowest %s", what, answered, failed, m.percentile(0.99), m.percentile(1))
	return failed, answered
}

// archivedOf returns those of some links that PostgreSQL has.
func (a *archive) archivedOf(entries []entry) map[entry]bool {
	a.x.t.Helper()
	has := map[entry]bool{}
	for some := range slices.Chunk(entries, 1000) {
		codes := make([]string, len(some))
		for i, e := range some {
			codes[i] = e.code
		}
		_, errs := a.shards.Get(a.x.t.Context(), codes)
		for i, err := range errs {
			if err != nil && !errors.Is(err, link.ErrNotFound) {
				a.x.t.Fatal(err)
			}
			has[some[i]] = err == nil
		}
	}
	return has
}

// tryChosen asks a backend for a code of our own and returns the status.
func (x *experiment) tryChosen(url, code, target string) int {
	resp, _, err := do(x.t.Context(), x.load.client, http.MethodPost, url+"/links", x.fleet.APIKey, fmt.Sprintf(`{"code":%q,"url":%q}`, code, target))
	if err != nil {
		return 0
	}
	return resp.StatusCode
}

// startPostgres starts every PostgreSQL that does not run.
func (x *experiment) startPostgres() {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), recovery)
	defer cancel()
	for _, db := range x.fleet.Archive {
		if !db.Running() {
			if err := db.Start(ctx); err != nil {
				x.t.Fatal(err)
			}
		}
	}
}
