package faults_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/nodelease"
)

var long = flag.Bool("long", false, "run each experiment for a minute and with repeats, and write loadtest/results/faults.md")

// pick returns how long an experiment does something, or how often.
func pick[T any](brief, lengthy T) T {
	if *long {
		return lengthy
	}
	return brief
}

func TestMain(m *testing.M) {
	flag.Parse()
	code := fleettest.Main(m)
	if *long {
		if err := report(os.Stdout, code == 0); err != nil {
			fmt.Fprintln(os.Stderr, "faults:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// experiment is a fleet under load, to which a fault is about to happen.
type experiment struct {
	t      *testing.T
	number int    // in the table
	fault  string // in the table; what was seen of it may be added
	fleet  *fleet.Fleet
	ledger *ledger
	load   *load
	// cutOff is how many requests may be sent again: none, unless a promise says so.
	cutOff  int
	outcome *outcome // nil until finish
}

// start starts a fleet and puts it under load through Nginx.
func start(t *testing.T, number int, fault string, o fleet.Options) *experiment {
	t.Helper()
	return begin(t, number, fault, func() *fleet.Fleet { return fleettest.Start(t, o) })
}

// begin puts a fleet under load through Nginx. From here on the experiment has a row in the table,
// whatever its outcome.
func begin(t *testing.T, number int, fault string, running func() *fleet.Fleet) *experiment {
	t.Helper()
	x := &experiment{t: t, number: number, fault: fault}
	t.Cleanup(func() { addRow(x) })
	x.fleet, x.ledger = running(), newLedger(t)
	x.load = newLoad(t, x.fleet.URL, x.fleet.APIKey, x.ledger)
	return x
}

// outcome is what an experiment saw.
type outcome struct {
	measured                    // the load, from its beginning to its end
	acknowledged int            // links in the ledger
	gone         map[entry]bool // of them, those that a backend does not have
	lost         int            // how many those are
	misled       int            // of the ledger, those that a backend leads elsewhere
}

// finish ends the load, waits until every backend is ready, and reads the ledger from each. What no
// fault excuses fails the test here: an answer that leads to another link's target, and a request
// that had to be sent again. The experiment judges everything else.
func (x *experiment) finish() *outcome {
	x.t.Helper()
	x.load.stop()
	entries, err := x.ledger.read()
	if err != nil {
		x.t.Fatal(err)
	}
	x.awaitReady()
	o := &outcome{measured: x.load.between(time.Time{}, time.Time{}), acknowledged: len(entries)}
	o.gone, o.misled = readBack(x.t, x.fleet.Backends, entries)
	o.lost = len(o.gone)

	for failure, n := range o.failures() {
		x.t.Logf("%d × %s", n, failure)
	}
	for k := range plan {
		of := o.of(kind(k))
		x.t.Logf("%s: %d requests, %d sent again, p99 %s, slowest %s, longest outage %s", plan[k].name, of.count(),
			of.sentAgain(), of.percentile(0.99), of.percentile(1), of.outage())
	}
	x.t.Logf("%d acknowledged, %d lost, %d lead elsewhere", o.acknowledged, o.lost, o.misled)
	if o.wrong() > 0 || o.misled > 0 {
		x.t.Errorf("%d answers under load and %d links afterwards lead to another target", o.wrong(), o.misled)
	}
	if n := o.sentAgain(); n > x.cutOff {
		x.t.Errorf("%d requests were cut off and sent again, want %d at most", n, x.cutOff)
	}
	if o.acknowledged <= hotLinks {
		x.t.Error("no create was acknowledged under load: this tested nothing")
	}
	x.outcome = o
	return o
}

// nothingLost fails the test unless every link of the ledger is there.
func (o *outcome) nothingLost(t *testing.T) {
	t.Helper()
	if o.lost > 0 {
		t.Errorf("%d of %d acknowledged links are lost", o.lost, o.acknowledged)
	}
}

// lostOf counts those of some entries that are lost.
func (o *outcome) lostOf(some []entry) (n int) {
	for _, e := range some {
		if o.gone[e] {
			n++
		}
	}
	return n
}

// noneFailed fails the test unless every request of some kinds succeeded.
func (o *outcome) noneFailed(t *testing.T, kinds ...kind) {
	t.Helper()
	if some := o.of(kinds...); some.failed() > 0 {
		t.Errorf("%d of %d requests failed: %v", some.failed(), some.count(), some.failures())
	}
}

// recovery is the longest that the fleet may take to be whole again after a
// fault: the 15 s of a dead backend's lease, and as much again for a slow machine.
const recovery = 40 * time.Second

// awaitReady waits until every backend says that it is.
func (x *experiment) awaitReady() {
	x.t.Helper()
	c := newClient(x.t)
	for _, b := range x.fleet.Backends {
		fleettest.Eventually(x.t, recovery, b.URL+"/healthz is 200", func() bool {
			resp, _, err := do(x.t.Context(), c, http.MethodGet, b.URL+"/healthz", "", "")
			return err == nil && resp.StatusCode == http.StatusOK
		})
	}
}

// restart starts a backend again as a supervisor does: until it stays up. After a kill it is
// refused while the lease of the dead process lasts, 15 s; a brief run does not wait for that.
func (x *experiment) restart(b *fleet.Backend) {
	x.t.Helper()
	if !*long && (x.fleet.Redis != nil || x.fleet.State != nil) {
		x.expireLease(slices.Index(x.fleet.Backends, b) + 1)
	}
	var err error
	for deadline := time.Now().Add(recovery); time.Now().Before(deadline); {
		ctx, cancel := context.WithDeadline(x.t.Context(), deadline)
		err = b.Start(ctx)
		cancel()
		if err == nil {
			return
		}
		x.wait(500 * time.Millisecond)
	}
	x.t.Fatal(err)
}

// expireLease makes Redis forget who holds a node ID and until when, as if the lease had run out.
func (x *experiment) expireLease(node int) {
	x.t.Helper()
	db := x.fleet.Redis
	if x.fleet.State != nil {
		db = x.fleet.State
	}
	lease, clock := nodelease.Keys(node)
	if err := fleettest.RedisClient(x.t, db.Addr).Del(x.t.Context(), lease, clock).Err(); err != nil {
		x.t.Fatal(err)
	}
}

// wait lets the load go on for a while. The load is what an experiment measures.
func (x *experiment) wait(d time.Duration) { time.Sleep(d) }

// collided counts the codes that a backend minted and found taken.
const collided = "snowlink_collisions_total"

// collisions returns how many codes the backends have minted that were taken, since each of them
// was started.
func (x *experiment) collisions() (n int) {
	x.t.Helper()
	for _, b := range x.fleet.Backends {
		n += int(fleettest.Metric(x.t, b, collided))
	}
	return n
}

// readBack reads every entry from every backend directly, without Nginx and its retries. A backend
// that has not recovered yet is asked again. An entry counts once, however many backends have lost
// it.
func readBack(t *testing.T, backends []*fleet.Backend, entries []entry) (gone map[entry]bool, misled int) {
	t.Helper()
	const readers = 16
	var (
		mu        sync.Mutex
		elsewhere = map[entry]bool{}
		unread    = map[string]int{} // by failure
		deadline  = time.Now().Add(recovery)
		work      = make(chan entry)
		reading   sync.WaitGroup
		direct    []*load
	)
	gone = map[entry]bool{}
	for _, b := range backends {
		direct = append(direct, quietLoad(t, b.URL, "", nil))
	}
	for range readers {
		reading.Go(func() {
			for e := range work {
				for _, l := range direct {
					s := l.follow(recentGET, []entry{e})
					for s.failure != "" && !isGone(s) && time.Now().Before(deadline) {
						time.Sleep(50 * time.Millisecond)
						s = l.follow(recentGET, []entry{e})
					}
					mu.Lock()
					switch {
					case s.wrong:
						elsewhere[e] = true
					case isGone(s):
						gone[e] = true
					case s.failure != "":
						unread[s.failure]++
					}
					mu.Unlock()
				}
			}
		})
	}
	for _, e := range entries {
		work <- e
	}
	close(work)
	reading.Wait()
	for _, failure := range slices.Sorted(maps.Keys(unread)) {
		t.Errorf("%d links could not be read back from a backend: %s", unread[failure], failure)
	}
	return gone, len(elsewhere)
}

func isGone(s sample) bool { return s.failure == "404" || s.failure == "410" }
