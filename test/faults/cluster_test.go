package faults_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

// Experiment 10, in a Cluster: one of three masters of a Cluster hangs. The links that the others
// have are read and created meanwhile, as fast as ever; nothing that was acknowledged
// is lost. The set-up keeps everything else out: no replica takes over, for nodes wait
// a minute, and the Cluster serves what it has of its slots. The master that hangs has
// neither the journal of the load's key nor a lease on a node ID, of which each stops
// creates: all of that key's, or those at one backend once its lease has run out.
func TestHungClusterMaster(t *testing.T) {
	x := start(t, 10, "SIGSTOP one of three masters of a Cluster, without a failover: what fails is of its links",
		fleet.Options{Cluster: true, RedisConfig: []string{"cluster-node-timeout 60000", "cluster-require-full-coverage no"}})
	const hangs = 1 // the second
	db := fleettest.RedisClient(t, x.fleet.Cluster[0].Addr)
	onHung := func(key string) bool {
		slot, err := db.ClusterKeySlot(t.Context(), key).Result()
		if err != nil {
			t.Fatal(err)
		}
		return slot*3/16384 == hangs
	}
	for _, key := range []string{"journal:default", "node:1", "node:2", "node:3"} {
		if onHung(key) {
			t.Fatalf("the master that hangs has %s", key)
		}
	}
	x.warm()
	x.wait(pick(time.Second, 10*time.Second))
	hung := x.fleet.Cluster[hangs]
	hung.Pause()
	defer hung.Resume()
	from := time.Now()
	x.wait(pick(5*time.Second, 30*time.Second))
	to := time.Now()
	hung.Resume()
	x.awaitCreate()
	x.wait(pick(time.Second, 20*time.Second))
	o := x.finish()

	o.nothingLost(t)
	o.noneFailed(t, hotGET)
	var reads, creates measured // while it hung, of the links that it has not
	failedCreates := 0
	for _, s := range o.samples {
		if s.failure != "" && s.failure != "503" {
			t.Errorf("%s: %s", plan[s.kind].name, s.failure)
		}
		if s.began.Before(from) || s.ended().After(to) {
			continue
		}
		switch {
		case s.kind == create && s.failure != "": // of which link nobody knows
			failedCreates++
		case s.kind == create:
			creates.samples = append(creates.samples, s)
		case !onHung("link:" + s.code):
			reads.samples = append(reads.samples, s)
		}
	}
	t.Logf("while it hung: %d reads of the other masters' links, p99 %s; %d creates, p99 %s, and %d that failed",
		reads.count(), reads.percentile(0.99), creates.count(), creates.percentile(0.99), failedCreates)
	if n := reads.failed(); n > 0 {
		t.Errorf("%d of %d reads of the other masters' links failed: %v", n, reads.count(), reads.failures())
	}
	// A third of the codes are of slots that the hung master has.
	if all := creates.count() + failedCreates; failedCreates > all/2 {
		t.Errorf("%d of %d creates failed, for a third of the links", failedCreates, all)
	}
	if *long {
		for _, some := range []measured{reads, creates} {
			if p99 := some.percentile(0.99); p99 > abnormal {
				t.Errorf("%d requests of the other masters' links took %s at the 99th percentile", some.count(), p99)
			}
		}
	}
	for i := range x.fleet.Backends {
		if name := fmt.Sprintf("backend%d", i+1); strings.Contains(x.log(name), "node ID lost") {
			t.Errorf("%s lost its lease", name)
		}
	}
}
