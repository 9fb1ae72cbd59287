package faults_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/loadtest/fleet"
)

// Experiment 10. Redis replicates what it has acknowledged already: a link that no
// replica has yet goes with the master. That is the window; whatever a replica had
// must be there afterwards.
func TestSentinelFailover(t *testing.T) {
	for _, tt := range []struct {
		fault string
		long  bool // run by `make faults` alone
		cause func(x *experiment, master *fleet.Redis)
		after func(x *experiment, was *fleet.Redis) // when another is master
	}{
		{
			fault: "kill -9 the master under Sentinel",
			cause: func(_ *experiment, master *fleet.Redis) { master.Kill() },
			after: func(x *experiment, was *fleet.Redis) { x.startAgain(was) },
		},
		{
			// Its connections stay open, and when it wakes it takes itself for the master.
			fault: "SIGSTOP the master under Sentinel, SIGCONT later", long: true,
			cause: func(_ *experiment, master *fleet.Redis) { master.Pause() },
			after: func(_ *experiment, was *fleet.Redis) { was.Resume() },
		},
		{
			// It lives on as a replica, to which the backends are still connected.
			fault: "a failover that an operator asks for",
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
			// The backends hear of a failover from the Sentinel they are connected to.
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
			before := x.ledger.last(everything)
			began := time.Now()
			tt.cause(x, was)
			had := x.replicated(was)
			x.master(was)
			x.awaitCreate()
			t.Logf("links could be made again after %s", time.Since(began).Round(10*time.Millisecond))
			x.wait(pick(time.Second, 20*time.Second))
			tt.after(x, was)
			x.wait(pick(time.Second, 30*time.Second))
			x.awaitCreate()
			o := x.finish()

			var replicated []entry
			for _, e := range before {
				if had["link:"+e.code] {
					replicated = append(replicated, e)
				}
			}
			if len(replicated) < hotLinks {
				t.Errorf("a replica had %d of %d links: this tested nothing", len(replicated), len(before))
			}
			lost, misled := readBack(t, x.fleet.Backends, replicated)
			if lost > 0 || misled > 0 {
				t.Errorf("of %d links that a replica had %d are lost and %d lead elsewhere", len(replicated), lost, misled)
			}
			t.Logf("%d of %d links were on no replica", len(before)-len(replicated), len(before))
			x.fault += fmt.Sprintf("; %d of %d links were on no replica yet", len(before)-len(replicated), len(before))
			o.noneFailed(t, hotGET)
			// A link that no replica had is asked for, and is gone.
			for failure, n := range o.failures() {
				if !strings.HasSuffix(failure, ": 503") && !(failure == "recent GET: 404" && o.lost > 0) {
					t.Errorf("%d × %s", n, failure)
				}
			}
		})
	}
}

// Experiment 10, the window: a master that no replica hears goes on for
// min-replicas-max-lag, and takes no more. What it acknowledged then is what a
// failover would lose.
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
	eventually(t, recovery, "creates are refused", func() bool { return x.tryCreate() == http.StatusServiceUnavailable })
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

// master waits until the Sentinels agree on a master that is not another.
func (x *experiment) master(another *fleet.Redis) (m *fleet.Redis) {
	x.t.Helper()
	eventually(x.t, recovery, "the Sentinels agree on a master", func() bool {
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
		db := redis.NewClient(&redis.Options{Addr: r.Addr})
		keys, err := linkKeys(x.t.Context(), db)
		db.Close()
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
