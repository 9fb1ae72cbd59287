package faults_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/redisstore"
)

// Experiment 4. With everysec Redis syncs its file once a second, and writes nothing to it during
// the sync, for two seconds at most (its own limit). Killed just then, it loses what it
// acknowledged during the sync: milliseconds on a healthy disk.
//
// But it tells whether anything is unwritten. What it had acknowledged before it last said that
// nothing is must survive. The kill comes at a random moment, during a sync or not.
func TestKilledRedis(t *testing.T) {
	for _, fsync := range []string{"everysec", "always"} {
		t.Run(fsync, func(t *testing.T) {
			kills := pick(2, 20)
			x := start(t, 4, fmt.Sprintf("kill -9 Redis, %d times, appendfsync %s", kills, fsync),
				fleet.Options{RedisConfig: []string{"appendfsync " + fsync}})
			x.warm()
			db := x.redis()
			var late []entry // acknowledged since Redis last had nothing to write
			for range kills {
				var written int // of the ledger
				for kill := time.Now().Add(pick(time.Second, 5*time.Second)); time.Now().Before(kill); {
					acknowledged := len(x.ledger.last(everything))
					if info(t, db, "persistence", "aof_buffer_length") == 0 {
						written = acknowledged
					}
					x.wait(10 * time.Millisecond)
				}
				x.fleet.Redis.Kill()
				x.wait(pick(500*time.Millisecond, time.Second))
				since := x.ledger.last(everything)[written:]
				if most := 3 * plan[create].perSecond; len(since) > most {
					t.Errorf("Redis kept %d links from its file, %d at most are made in the 2 s that it may and one more", len(since), most)
				}
				late = append(late, since...)
				x.startRedis()
			}
			x.awaitCreate()
			o := x.finish()

			excused := 0
			if fsync == "everysec" {
				excused = o.lostOf(late)
				t.Logf("%d links were acknowledged since Redis last had nothing to write, %d of them are lost", len(late), excused)
				if excused > 0 {
					x.fault += fmt.Sprintf("; %d of %d were lost that it acknowledged during its last sync", excused, len(late))
				}
			}
			if lost := o.lost - excused; lost > 0 {
				t.Errorf("%d of %d acknowledged links are lost", lost, o.acknowledged)
			}
			o.noneFailed(t, hotGET)
			if o.lost == 0 { // else one that is lost may be asked for
				o.failedOnlyBy(t, "503")
			}
		})
	}
}

// Experiment 4. Redis hangs with its connections open, and many clients wait for it. Their wait is
// bounded in time and in memory. Each pause ends before the lease on the node ID does: without a
// lease a create fails at once, and nobody waits.
func TestPausedRedis(t *testing.T) {
	const impatient = 500
	pauses, pausedFor := pick(1, 4), pick(3*time.Second, 8*time.Second)
	x := start(t, 4, fmt.Sprintf("SIGSTOP Redis for %s, %d times, and %d more clients", pausedFor, pauses, impatient), fleet.Options{})
	x.warm()
	b := x.fleet.Backends[0]
	goroutines, memory := fleettest.Metric(t, b, "go_goroutines"), fleettest.Metric(t, b, "process_resident_memory_bytes")
	var slowest atomic.Int64 // of the crowd
	for range pauses {
		x.fleet.Redis.Pause()
		ctx, cancel := context.WithCancel(t.Context())
		client := newClient(t)
		var crowd sync.WaitGroup
		for range impatient {
			crowd.Go(func() {
				for ctx.Err() == nil {
					began := time.Now()
					resp, _, err := do(ctx, client, http.MethodPost, b.URL+"/generate_url", x.fleet.APIKey, `{"url":"https://example.com/"}`)
					if ctx.Err() != nil {
						return
					}
					if err != nil || resp.StatusCode != http.StatusServiceUnavailable {
						t.Errorf("a create while Redis is paused: %+v, %v", resp, err)
					}
					took := int64(time.Since(began))
					for last := slowest.Load(); took > last && !slowest.CompareAndSwap(last, took); last = slowest.Load() {
					}
				}
			})
		}
		for end := time.Now().Add(pausedFor); time.Now().Before(end); x.wait(500 * time.Millisecond) {
			// One goroutine serves a connection, and a few serve all. Commands that were given up
			// end with their batch.
			if n := fleettest.Metric(t, b, "go_goroutines"); n > goroutines+4*impatient {
				t.Errorf("%.0f goroutines; %.0f before, and %d connections since", n, goroutines, impatient)
			}
			if n := fleettest.Metric(t, b, "process_resident_memory_bytes"); n > memory+256<<20 {
				t.Errorf("%.0f MB of memory, %.0f before", n/(1<<20), memory/(1<<20))
			}
		}
		cancel()
		crowd.Wait()
		x.fleet.Redis.Resume()
		x.awaitCreate()
		x.awaitReady()
	}
	o := x.finish()

	o.nothingLost(t)
	o.noneFailed(t, hotGET)
	o.failedOnlyBy(t, "503")
	// A backend gives up after 1.7 s. After 2 s Nginx would take it for one that hangs, and the
	// load would see other answers than 503.
	took := time.Duration(slowest.Load())
	t.Logf("the slowest create of the crowd took %s", took)
	if took < 500*time.Millisecond || took > 3*time.Second {
		t.Errorf("the slowest create while Redis is paused took %s, want some 1.7 s", took)
	}
}

// Experiment 5.
func TestRedisConnection(t *testing.T) {
	cuts := pick(50, 1000)
	// Each connection is cut after so many bytes, in the middle of whatever it carries. A
	// reset_peer with a toxicity of 0 makes the cut a reset instead of an end.
	cut := func(stream string, bytes int) []toxic {
		return []toxic{
			{Type: "reset_peer", Stream: stream, Toxicity: 0},
			{Type: "limit_data", Stream: stream, Toxicity: 1, Attributes: map[string]int{"bytes": bytes}},
		}
	}
	both := func(kind, attribute string, value int) (toxics []toxic) {
		for _, stream := range []string{"upstream", "downstream"} {
			toxics = append(toxics, toxic{Type: kind, Stream: stream, Toxicity: 1, Attributes: map[string]int{attribute: value}})
		}
		return toxics
	}
	for _, tt := range []struct {
		name   string
		toxics []toxic
		cuts   int
	}{
		{"is a black hole", both("timeout", "timeout", 0), 0},
		{fmt.Sprintf("reset in mid-command, %d times", cuts), cut("upstream", 600), cuts},
		{fmt.Sprintf("reset in mid-answer, %d times", cuts), cut("downstream", 400), cuts},
		{"takes 500 ms longer", both("latency", "latency", 250), 0},
		{"carries 1 KB/s", both("bandwidth", "rate", 1), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &proxy{t: t}
			x := start(t, 5, "the way to Redis "+tt.name, fleet.Options{RedisVia: p.via})
			x.warm()
			db := x.redis()
			ended := func() int {
				return info(t, db, "stats", "total_connections_received") - info(t, db, "clients", "connected_clients")
			}
			before := ended()
			p.poison(tt.toxics...)
			if tt.cuts > 0 {
				fleettest.Eventually(t, 5*time.Minute, "so many resets", func() bool { return ended()-before >= tt.cuts })
			} else {
				x.wait(pick(4*time.Second, 60*time.Second))
			}
			p.cure()
			failed := x.awaitCreate()
			o := x.finish()

			o.nothingLost(t)
			o.noneFailed(t, hotGET)
			o.failedOnlyBy(t, "503")
			failed += o.of(create).failed()
			orphans := x.links() - o.acknowledged
			t.Logf("%d orphans of %d failed creates", orphans, failed)
			if orphans < 0 || orphans > failed {
				t.Errorf("Redis has %d links that nobody was told of, after %d failed creates", orphans, failed)
			}
		})
	}
}

// Experiment 6. With everysec Redis refuses writes until it can write down what it
// has; with always it ends itself, and a supervisor starts it again.
//
// With everysec Redis still acknowledges the writes of the moment in which the disk fills, and
// keeps them in memory until there is room. If it dies before, they are lost: a second fault, and
// the price of everysec.
func TestFullDisk(t *testing.T) {
	for _, tt := range []struct {
		fsync string
		die   bool // while the disk is full
	}{{"everysec", false}, {"everysec", true}, {"always", false}} {
		fault := "disk full for the AOF, appendfsync " + tt.fsync
		if tt.die {
			fault += ", and kill -9 Redis then"
		}
		t.Run(fault, func(t *testing.T) {
			disk := t.TempDir()
			if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=16m"); err != nil {
				addSkipped(6, fault, "no right to mount a small disk here")
				t.Skipf("mount tmpfs: %v", err)
			}
			t.Cleanup(func() {
				if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
					t.Error(err)
				}
			})
			x := start(t, 6, fault, fleet.Options{RedisConfig: []string{"dir " + disk, "appendfsync " + tt.fsync}})
			x.warm()

			filler := filepath.Join(disk, "filler")
			fillDisk(t, filler)
			fleettest.Eventually(t, recovery, "creates are refused", func() bool { return x.tryCreate() != http.StatusCreated })
			for range pick(6, 60) {
				x.wait(500 * time.Millisecond)
				if !x.fleet.Redis.Running() {
					ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
					_ = x.fleet.Redis.Start(ctx) // it may end at once, because the disk is full
					cancel()
				}
			}
			if tt.die {
				x.fleet.Redis.Kill()
			}
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			if !x.fleet.Redis.Running() {
				x.startRedis()
			}
			x.awaitCreate()
			// Once Redis says that it has written everything, nothing acknowledged is in memory
			// alone.
			x.load.stop()
			db := x.redis()
			fleettest.Eventually(t, recovery, "Redis has written what it has", func() bool { return info(t, db, "persistence", "aof_buffer_length") == 0 })
			x.fleet.Redis.Kill()
			x.startRedis()
			x.awaitCreate()
			o := x.finish()

			o.noneFailed(t, hotGET)
			if !tt.die {
				o.nothingLost(t)
				o.failedOnlyBy(t, "503")
				return
			}
			x.fault += ": lost are those of the moment it filled"
			if most := plan[create].connections; o.lost > most {
				t.Errorf("%d links are lost; %d at most were under way when the disk filled", o.lost, most)
			}
		})
	}
}

// fillDisk writes a file until there is no room for another byte.
func fillDisk(t *testing.T, name string) {
	t.Helper()
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for block := make([]byte, 64<<10); err == nil; {
		_, err = file.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// Experiment 7. A crash of the machine can cut the AOF anywhere in what was not
// synced yet. Here: in the middle of the last link.
func TestTornAOF(t *testing.T) {
	x := start(t, 7, "kill -9 Redis and cut its AOF off in the last link, which is lost", fleet.Options{})
	x.warm()
	x.wait(pick(time.Second, 10*time.Second))
	x.fleet.Redis.Kill()

	files, err := filepath.Glob(filepath.Join(x.fleet.Redis.Data, "appendonlydir", "*.incr.aof"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	aof, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	last := bytes.LastIndex(aof, []byte(redisstore.LinkKey("")))
	if last < 0 {
		t.Fatal("the AOF has no link")
	}
	if err := os.Truncate(files[0], int64(last)+8); err != nil { // link:8hF
		t.Fatal(err)
	}
	x.wait(pick(time.Second, 5*time.Second))
	x.startRedis()
	if log := x.fleet.Logs(1000); !strings.Contains(log, "loaded anyway because aof-load-truncated is enabled") {
		t.Error("Redis does not say that it cut its AOF off")
	}
	x.awaitCreate()
	o := x.finish()

	// What Redis had not written when it was killed is not lost by the tear: see TestKilledRedis.
	var whole []entry
	for _, e := range x.ledger.last(everything) {
		if bytes.Contains(aof[:last], []byte(redisstore.LinkKey(e.code)+"\r\n")) {
			whole = append(whole, e)
		}
	}
	if len(whole) < hotLinks {
		t.Errorf("the AOF has %d links before the tear: this tested nothing", len(whole))
	}
	if lost := o.lostOf(whole); lost > 0 {
		t.Errorf("of %d links before the tear %d are lost", len(whole), lost)
	}
	o.noneFailed(t, hotGET)
	// The lost link may be asked for. It is the only one that Redis does not know.
	for failure, n := range o.failures() {
		if !strings.HasSuffix(failure, ": 503") && !(failure == "recent GET: 404" && o.lost > 0) {
			t.Errorf("%d × %s", n, failure)
		}
	}
}

// Experiment 8: eviction.
func TestFillPastMaxmemory(t *testing.T) {
	// In a long run the near caches keep hot links young by reading them every 25 s. A brief run
	// has no near caches, so that Redis hears of every visit.
	o := fleet.Options{RedisConfig: []string{fmt.Sprintf("maxmemory %dmb", pick(4, 16))}}
	if !*long {
		o.Env = []string{"CACHE_BYTES=0"}
	}
	x := start(t, 8, "fill Redis past maxmemory, allkeys-lru: lost are the links evicted, none of them hot", o)
	x.warm()
	db := x.redis()
	x.fill(pick(2000, 1000), func() bool { return info(t, db, "stats", "evicted_keys") >= pick(1000, 50_000) })
	for _, b := range x.fleet.Backends {
		fleettest.Eventually(t, recovery, "the metric of evictions moves", func() bool { return fleettest.Metric(t, b, `snowlink_redis_evicted_keys{redis="links"}`) > 0 })
	}
	for i := range x.fleet.Backends {
		fleettest.Eventually(t, recovery, "the log says that links are evicted", func() bool {
			return strings.Contains(x.log(fmt.Sprintf("backend%d", i+1)), "redis evicts links")
		})
	}
	x.wantHealth("degraded")
	hot := x.load.hot
	out := x.finish()

	for _, e := range hot {
		if n, err := db.Exists(t.Context(), redisstore.LinkKey(e.code)).Result(); err != nil || n != 1 {
			t.Errorf("the hot link %s is gone: %v", e.code, err)
		}
	}
	out.noneFailed(t, hotGET)
	out.noneFailed(t, create)
}

// Experiment 8: no eviction.
func TestFillUnderNoeviction(t *testing.T) {
	x := start(t, 8, "fill Redis past maxmemory, noeviction",
		fleet.Options{RedisConfig: []string{"maxmemory 4mb", "maxmemory-policy noeviction"},
			Env: []string{"CLICKS=off"}}) // they would free room meanwhile that is enough for a link and not for its journal: 503
	x.warm()
	x.fill(5000, func() bool { return x.tryCreate() == http.StatusInsufficientStorage })
	x.wait(pick(2*time.Second, 30*time.Second)) // twice the lease
	// Redis counts its buffers too: now and then one link fits into what they have freed.
	fleettest.Eventually(t, recovery, "a create in a full Redis is answered 507", func() bool {
		return x.tryCreate() == http.StatusInsufficientStorage
	})
	x.wantHealth("degraded")
	if err := x.redis().ConfigSet(t.Context(), "maxmemory", "64mb").Err(); err != nil {
		t.Fatal(err)
	}
	x.awaitCreate()
	o := x.finish()

	o.nothingLost(t)
	o.noneFailed(t, GETs...)
	o.failedOnlyBy(t, "507")
}

// everything is more links than any ledger has.
const everything = 1 << 30

// warm follows every hot link once, so that the near caches have them.
func (x *experiment) warm() {
	x.t.Helper()
	for _, e := range x.load.hot {
		if s := x.load.follow(hotGET, []entry{e}); s.failure != "" || s.wrong {
			x.t.Fatalf("a hot link before the fault: %+v", s)
		}
	}
}

// startRedis starts Redis again and returns when it has its links.
func (x *experiment) startRedis() {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), recovery)
	defer cancel()
	if err := x.fleet.Redis.Start(ctx); err != nil {
		x.t.Fatal(err)
	}
}

// tryCreate makes a link beside the load and returns the status.
func (x *experiment) tryCreate() int {
	x.t.Helper()
	e, s := x.load.create()
	if s.failure == "" {
		if err := x.ledger.add(e); err != nil {
			x.t.Fatal(err)
		}
		return http.StatusCreated
	}
	var status int
	_, _ = fmt.Sscan(s.failure, &status) // 0 for what is no answer
	return status
}

// awaitCreate waits until links can be made again. It returns how many creates of
// its own failed before.
func (x *experiment) awaitCreate() (failed int) {
	x.t.Helper()
	fleettest.Eventually(x.t, recovery, "links can be made", func() bool {
		if x.tryCreate() == http.StatusCreated {
			return true
		}
		failed++
		return false
	})
	return failed
}

// redis returns a client of the fleet's Redis that bypasses any proxy.
func (x *experiment) redis() *redis.Client {
	x.t.Helper()
	return fleettest.RedisClient(x.t, x.fleet.Redis.Addr)
}

// info returns a number of Redis's INFO.
func info(t *testing.T, db *redis.Client, section, field string) int {
	t.Helper()
	n, err := fleet.Info(t.Context(), db, section, field)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// links returns how many links Redis has.
func (x *experiment) links() int {
	x.t.Helper()
	keys, err := linkKeys(x.t.Context(), x.redis())
	if err != nil {
		x.t.Fatal(err)
	}
	return len(keys)
}

// linkKeys lists the keys of links.
func linkKeys(ctx context.Context, db *redis.Client) (map[string]bool, error) {
	keys := map[string]bool{}
	scan := db.Scan(ctx, 0, redisstore.LinkKey("*"), 10_000).Iterator()
	for scan.Next(ctx) {
		keys[scan.Val()] = true
	}
	return keys, scan.Err()
}

// fill puts so many links a second into Redis until enough returns true. They are not in the
// ledger.
func (x *experiment) fill(perSecond int, enough func() bool) {
	x.t.Helper()
	db := x.redis()
	ctx, cancel := context.WithTimeout(x.t.Context(), 5*time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 0; !enough(); {
		select {
		case <-ctx.Done():
			x.t.Fatal("Redis never filled up")
		case <-tick.C:
		}
		pipe := db.Pipeline()
		for range perSecond / 10 {
			n++
			pipe.Set(ctx, redisstore.LinkKey(fmt.Sprintf("%010d", n)), "https://example.com/what/nobody/asks/for/and/was/made/to/fill", 0)
		}
		_, _ = pipe.Exec(ctx) // it may be full
	}
}

// log returns what a program of the fleet has printed.
func (x *experiment) log(name string) string {
	x.t.Helper()
	text, err := os.ReadFile(filepath.Join(x.fleet.Dir, name+".log"))
	if err != nil {
		x.t.Fatal(err)
	}
	return string(text)
}

// wantHealth waits until the /healthz of every backend is 200 with this status.
func (x *experiment) wantHealth(status string) {
	x.t.Helper()
	for _, b := range x.fleet.Backends {
		fleettest.Eventually(x.t, recovery, b.URL+"/healthz is "+status, func() bool {
			resp, body, err := do(x.t.Context(), x.load.client, http.MethodGet, b.URL+"/healthz", "", "")
			return err == nil && resp.StatusCode == http.StatusOK && strings.Contains(string(body), `"`+status+`"`)
		})
	}
}

// failedOnlyBy fails the test if a request failed by an answer other than these.
func (o *outcome) failedOnlyBy(t *testing.T, answers ...string) {
	t.Helper()
	for failure, n := range o.failures() {
		if _, answer, _ := strings.Cut(failure, ": "); !slices.Contains(answers, answer) {
			t.Errorf("%d × %s", n, failure)
		}
	}
}
