package faults_test

import (
	"testing"
	"time"

	"snowlink/loadtest/fleet"
)

// Experiment 1. A create may fail that was in flight; Nginx tries it elsewhere,
// though, so that none need to.
func TestKilledBackend(t *testing.T) {
	x := start(t, 1, "kill -9 a backend", fleet.Options{})
	x.wait(pick(time.Second, 5*time.Second))
	var kills []time.Time
	for i := range pick(1, 3) {
		b := x.fleet.Backends[i]
		kills = append(kills, time.Now())
		b.Kill()
		x.wait(pick(2*time.Second, 7*time.Second))
		x.restart(b)
	}
	o := x.finish()

	o.nothingLost(t)
	o.noneFailed(t, GETs...)
	if failed, most := o.of(create).failed(), len(kills)*plan[create].connections; failed > most {
		t.Errorf("%d creates failed; at most %d were in flight when a backend died", failed, most)
	}
	if !*long {
		return
	}
	normal := x.load.between(time.Time{}, kills[0]).percentile(0.99)
	for i, at := range kills {
		after := x.load.between(at.Add(2*time.Second), at.Add(7*time.Second)).percentile(0.99)
		t.Logf("p99 from 2 s after kill %d on: %s; before the first: %s", i+1, after, normal)
		if after > max(5*normal, 50*time.Millisecond) {
			t.Errorf("2 s after kill %d p99 is %s, normal was %s", i+1, after, normal)
		}
	}
}
