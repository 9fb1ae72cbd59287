package faults_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/redisstore"
)

// Experiment 10. Redis acknowledges first and replicates then: a link that no replica has when the
// master dies is lost. This window is much less than a second of links, and it closes when there is
// another master. Everything else must survive. When an operator asks for the failover there is no
// window.
func TestSentinelFailover(t *testing.T) {
	for _, tt := range []struct {
		fault string
		long  bool // run by `make faults` alone
		calm  bool // nothing may be lost
		cause func(x *experiment, master *fleet.Redis)
		after func(x *experiment, was *fleet.Redis) // when another is master
	}{
		{
			fault: "kill -9 the master under Sentinel",
			cause: func(_ *experiment, master *fleet.Redis) { master.Kill() },
			after: func(x *experiment, was *fleet.Redis) { x.startAgain(was) },
		},
		{
			// Its connections stay open, and when it wakes it believes that it is the master.
			fault: "SIGSTOP the master under Sentinel, SIGCONT later", long: true,
			cause: func(_ *experiment, master *fleet.Redis) { master.Pause() },
			after: func(_ *experiment, was *fleet.Redis) { was.Resume() },
		},
		{
			// It lives on as a replica, to which the backends are still connected.
			fault: "a failover that an operator asks for", calm: true,
			cause: func(x *experiment, _ *fleet.Redis) {
				ctx, cancel := context.WithTimeout(x.t.Context(), recovery)
				defer cancel()
				if err := x.fleet.Sentinel.Failover(ctx); err != nil {
					x.t.Fatal(err)
				}
			},
			after: func(*experiment, *fleet.Redis) {},
		},
		{
			// Backends learn of a failover from the Sentinel that they are connected to.
			fault: "kill -9 the master and a Sentinel", long: true,
			cause: func(x *experiment, master *fleet.Redis) {
				x.fleet.Sentinel.Sentinels[0].Kill()
				master.Kill()
			},
			after: func(x *experiment, was *fleet.Redis) { x.startAgain(was) },
		},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			if tt.long && !*long {
				t.Skip("with -long")
			}
			x := start(t, 10, tt.fault, fleet.Options{Sentinel: true})
			x.warm()
			x.wait(pick(time.Second, 10*time.Second))
			was := x.master(nil)
			began := time.Now()
			tt.cause(x, was)
			var had map[string]bool
			if !tt.calm { // it takes two seconds until a replica is promoted
				had = x.replicated(was)
			}
			x.master(was)
			before := x.ledger.last(everything) // some of them by the new master already
			x.awaitCreate()
			t.Logf("links could be made again after %s", time.Since(began).Round(10*time.Millisecond))
			x.wait(pick(time.Second, 20*time.Second))
			tt.after(x, was)
			x.wait(pick(time.Second, 30*time.Second))
			x.awaitCreate()
			o := x.finish()

			window := 0 // of what is lost
			if !tt.calm {
				if len(had) < hotLinks {
					t.Errorf("the replicas had %d links: this tested nothing", len(had))
				}
				alone := slices.DeleteFunc(slices.Clone(before), func(e entry) bool { return had[redisstore.LinkKey(e.code)] })
				window = o.lostOf(alone)
				x.fault += fmt.Sprintf("; %d links were on no replica yet", window)
				if most := plan[create].perSecond; window > most {
					t.Errorf("%d links were on no replica, more than a second's", window)
				}
			}
			if lost := o.lost - window; lost > 0 {
				t.Errorf("%d links are lost that a replica had, or that were made after the failover", lost)
			}
			o.noneFailed(t, hotGET)
			// A link that no replica had may be asked for, and is gone.
			for failure, n := range o.failures() {
				if !strings.HasSuffix(failure, ": 503") && !(failure == "recent GET: 404" && o.lost > 0) {
					t.Errorf("%d × %s", n, failure)
				}
			}
		})
	}
}

// Experiment 10, the window: a master without replicas goes on for min-replicas-max-lag, then
// refuses writes. What it acknowledged in that time is what a failover would lose.
func TestMasterAlone(t *testing.T) {
	lag := pick(3, 10) // 10 is Redis's default
	x := start(t, 10, "SIGSTOP both replicas under Sentinel", fleet.Options{
		Sentinel: true, RedisConfig: []string{fmt.Sprintf("min-replicas-max-lag %d", lag)}})
	x.warm()
	x.wait(pick(time.Second, 10*time.Second))
	master := x.master(nil)
	began := time.Now()
	for _, r := range x.fleet.Sentinel.Redis {
		if r != master {
			r.Pause()
			defer r.Resume()
		}
	}
	fleettest.Eventually(t, recovery, "creates are refused", func() bool { return x.tryCreate() == http.StatusServiceUnavailable })
	took := time.Since(began)
	t.Logf("the master acknowledged creates for another %s", took.Round(10*time.Millisecond))
	x.fault += fmt.Sprintf(": creates are refused after %.1f s", took.Seconds())
	if most := time.Duration(lag)*time.Second + 5*time.Second; took > most {
		t.Errorf("the master alone acknowledged creates for %s, want %s at most", took, most)
	}
	x.wait(pick(time.Second, 20*time.Second))
	for _, r := range x.fleet.Sentinel.Redis {
		r.Resume()
	}
	x.awaitCreate()
	o := x.finish()

	o.nothingLost(t)
	o.noneFailed(t, GETs...)
	o.failedOnlyBy(t, "503")
}

// master waits until the Sentinels agree on a master other than another, which may be nil.
func (x *experiment) master(another *fleet.Redis) (m *fleet.Redis) {
	x.t.Helper()
	fleettest.Eventually(x.t, recovery, "the Sentinels agree on a master", func() bool {
		var err error
		m, err = x.fleet.Sentinel.Master(x.t.Context())
		return err == nil && m != another
	})
	return m
}

// replicated lists the keys of the links that any replica has now.
func (x *experiment) replicated(master *fleet.Redis) map[string]bool {
	x.t.Helper()
	all := map[string]bool{}
	for _, r := range x.fleet.Sentinel.Redis {
		if r == master {
			continue
		}
		keys, err := linkKeys(x.t.Context(), fleettest.RedisClient(x.t, r.Addr))
		if err != nil {
			x.t.Fatal(err)
		}
		for key := range keys {
			all[key] = true
		}
	}
	return all
}

// startAgain starts a Redis that was killed and waits until it is a replica.
func (x *experiment) startAgain(r *fleet.Redis) {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), recovery)
	defer cancel()
	if err := r.Start(ctx); err != nil {
		x.t.Fatal(err)
	}
}
