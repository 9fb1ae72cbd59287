package faults_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

// Experiment 14. Without PostgreSQL nothing is archived and nothing is restored. What Redis has is
// there as ever, minted codes are created, and for the rest nobody can tell: 503, never 404. A brief
// run does it all to one fleet.
func TestPostgresAway(t *testing.T) {
	all := []outage{
		{
			fault: "kill -9 PostgreSQL",
			begin: func(x *experiment, _ string) { x.fleet.Archive[0].Kill() },
			end:   func(x *experiment, _ string) { x.startPostgres() },
		},
		{
			fault: "SIGSTOP PostgreSQL",
			begin: func(x *experiment, _ string) { x.fleet.Archive[0].Pause() },
			end:   func(x *experiment, _ string) { x.fleet.Archive[0].Resume() },
		},
		{
			fault: "disk full for PostgreSQL", full: true,
			begin: func(x *experiment, disk string) {
				fillDisk(x.t, filepath.Join(disk, "filler"))
				x.switchWAL() // for which there is no room either, so PostgreSQL panics
			},
			end: func(x *experiment, disk string) {
				if err := os.Remove(filepath.Join(disk, "filler")); err != nil {
					x.t.Fatal(err)
				}
				x.startPostgres()
			},
		},
	}
	for outages := range slices.Chunk(all, pick(len(all), 1)) {
		fault := outages[0].fault
		for _, o := range outages[1:] {
			fault += ", " + o.fault
		}
		t.Run(fault, func(t *testing.T) {
			var disk string
			if slices.ContainsFunc(outages, func(o outage) bool { return o.full }) {
				disk = smallDisk(t, 14, fault, "96m")
			}
			x := start(t, 14, fault, fleet.Options{Archive: 1, ArchiveDir: disk})
			a := x.archive()
			x.warm()
			x.wait(pick(500*time.Millisecond, 10*time.Second))
			for _, o := range outages {
				a.endure(o, disk)
			}
			x.wait(pick(500*time.Millisecond, 20*time.Second))
			o := a.finish()

			o.nothingLost(t)
			o.noneFailed(t, create)
			o.noneFailed(t, GETs...)
		})
	}
}

// outage is how PostgreSQL goes away and comes back.
type outage struct {
	fault      string
	full       bool // its disk
	begin, end func(x *experiment, disk string)
}

// endure has PostgreSQL go away and come back, and judges what is asked meanwhile.
func (a *archive) endure(o outage, disk string) {
	x, t := a.x, a.x.t
	t.Helper()
	away := pick(2*time.Second, 30*time.Second)
	cold := a.cold(200)
	o.begin(x, disk)
	p := x.probe(16, 100, each(cold))
	chosen := map[int]int{}
	for end := time.Now().Add(away); time.Now().Before(end); {
		chosen[x.tryChosen(x.fleet.URL, fmt.Sprintf("own-%d", x.load.made.Add(1)), "https://example.com/own")]++
		if o.full {
			x.supervise()
		}
		x.wait(200 * time.Millisecond)
	}
	coldGETs := p.end()
	waiting, _ := a.pending()
	o.end(x, disk)
	back := time.Now()
	fleettest.Eventually(t, catchUp, "cold links resolve", func() bool {
		return x.load.follow(recentGET, cold[:1]).failure == ""
	})
	t.Logf("%s: cold links resolve %s after it is there again; chosen codes were answered %v", o.fault, time.Since(back).Round(10*time.Millisecond), chosen)

	refused, found := x.onlyFailedBy(o.fault+": cold links", coldGETs, "503")
	x.fault += fmt.Sprintf(" for %s: of %d cold GETs %d were 503", away, refused+found, refused)
	if slowest := coldGETs.percentile(1); *long && slowest > 2500*time.Millisecond {
		t.Errorf("a cold link was refused after %s", slowest)
	}
	if len(waiting) < plan[create].perSecond/2 {
		t.Errorf("%d links waited to be archived: this tested nothing", len(waiting))
	}
	if o.full { // PostgreSQL answers questions until it has to write
		found = 0
		delete(chosen, http.StatusCreated)
	}
	if refused == 0 || found > 0 || chosen[http.StatusServiceUnavailable] == 0 || len(chosen) > 1 {
		t.Errorf("without PostgreSQL %d cold links were refused and %d found, and chosen codes answered %v", refused, found, chosen)
	}
}

// smallDisk mounts a disk for PostgreSQL that ends with the test. Where that is not allowed, the
// test is skipped.
func smallDisk(t *testing.T, number int, fault, size string) string {
	t.Helper()
	disk, err := os.MkdirTemp("", "snowlink-disk-") // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(disk) })
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "mode=755,size="+size); err != nil {
		addSkipped(number, fault, "no right to mount a small disk here")
		t.Skipf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return disk
}

// supervise starts every PostgreSQL again that has ended by itself, as far as it will.
func (x *experiment) supervise() {
	for _, db := range x.fleet.Archive {
		if !db.Running() {
			ctx, cancel := context.WithTimeout(x.t.Context(), 400*time.Millisecond)
			_ = db.Start(ctx) // it may end at once, because the disk is full
			cancel()
		}
	}
}

// switchWAL has PostgreSQL write what comes next to another file.
func (x *experiment) switchWAL() {
	x.t.Helper()
	for _, db := range x.fleet.Archive {
		conn, err := pgconn.Connect(x.t.Context(), db.URL)
		if err != nil {
			x.t.Fatal(err)
		}
		_, _ = conn.Exec(x.t.Context(), "SELECT pg_switch_wal()").ReadAll() // it may not survive that
		_ = conn.Close(x.t.Context())
	}
}

// Experiment 15. A shard that hangs is the worse of those that are away: it says nothing.
func TestOneShardAway(t *testing.T) {
	x := start(t, 15, "SIGSTOP one PostgreSQL of three", fleet.Options{Archive: 3})
	a := x.archive()
	x.warm()
	var theirs, others []entry
	hung := a.shards.DBs()[1]
	for _, e := range a.cold(pick(1000, 6000)) {
		if a.shards.Home(e.code) == hung {
			theirs = append(theirs, e)
		} else {
			others = append(others, e)
		}
	}
	x.wait(pick(time.Second, 10*time.Second))
	before := x.probe(8, 50, each(others[:len(others)/4]))
	x.wait(pick(time.Second, 10*time.Second))
	normal := before.end()

	x.fleet.Archive[1].Pause()
	away, there := x.probe(16, 30, each(theirs)), x.probe(8, 50, each(others[len(others)/4:]))
	x.wait(pick(3*time.Second, 30*time.Second))
	ofOthers, ofTheirs := there.end(), away.end()
	waiting := a.waiting(pick(0, lately))
	x.fleet.Archive[1].Resume()
	x.wait(pick(500*time.Millisecond, 20*time.Second))
	o := a.finish()

	o.nothingLost(t)
	o.noneFailed(t, create)
	o.noneFailed(t, GETs...)
	x.onlyFailedBy("cold links of the others before", normal)
	x.onlyFailedBy("cold links of the others", ofOthers)
	if _, found := x.onlyFailedBy("cold links of the shard that is away", ofTheirs, "503"); found > 0 {
		t.Errorf("%d links of a shard that hangs were found", found)
	}
	x.fault += fmt.Sprintf(": p99 of cold GETs from the others %d ms, %d before", ofOthers.percentile(0.99).Milliseconds(), normal.percentile(0.99).Milliseconds())
	if was, is := normal.percentile(0.99), ofOthers.percentile(0.99); *long && is > max(5*was, abnormal) {
		t.Errorf("p99 of cold links of the others is %s, and was %s", is, was)
	}
	for code := range waiting {
		if *long && a.shards.Home(code) != hung {
			t.Errorf("%s is of another shard, and was not archived", code)
		}
	}
	if len(waiting) < 20 {
		t.Errorf("%d links waited for the shard: this tested nothing", len(waiting))
	}
}
