package faults_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/nodelease"
	"snowlink/internal/redisstore"
	"snowlink/snowflake"
)

// rivalOf describes a backend outside the fleet that wants the node ID of one inside.
func rivalOf(f *fleet.Fleet, node int) fleet.Options {
	return fleet.Options{
		Backends: 1, NoRedis: true, NoNginx: true,
		Env: []string{"REDIS_URL=redis://" + f.Redis.Addr, fmt.Sprintf("NODE_ID=%d", node), "API_KEY=" + f.APIKey},
	}
}

// refused starts a rival, which must fail, and returns its error.
func refused(t *testing.T, o fleet.Options) string {
	t.Helper()
	o.Binary = fleettest.Binary(t, "snowlink/server")
	f, err := fleet.Start(t.Context(), o)
	if err == nil {
		f.Close()
		t.Fatal("it started")
	}
	return err.Error()
}

// Experiment 9.
func TestSharedNodeID(t *testing.T) {
	x := start(t, 9, "a second process with a node ID that is held; a clock 60 s back at restart", fleet.Options{})
	db := x.redis()
	lease, clock := nodelease.Keys(2)

	for range pick(1, 10) {
		holder, err := db.Get(t.Context(), lease).Result()
		if err != nil {
			t.Fatal(err)
		}
		if said := refused(t, rivalOf(x.fleet, 2)); !strings.Contains(said, "taken") || !strings.Contains(said, holder) {
			t.Errorf("a second process with node 2 does not name the first, %q:\n%s", holder, said)
		}
		x.wait(pick(0, time.Second))
	}

	// To a backend, a mark 60 s ahead is the same as a clock that went back by 60 s.
	b := x.fleet.Backends[1]
	setBack := func(by time.Duration) {
		t.Helper()
		if err := db.Set(t.Context(), clock, time.Now().Add(by).UnixMilli(), 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), recovery)
	defer cancel()
	setBack(time.Minute)
	if err := b.Start(ctx); err == nil || !strings.Contains(err.Error(), "the clock is behind by") {
		t.Errorf("with a clock a minute behind it starts, or does not say why it does not: %v", err)
	}
	back := pick(2*time.Second, 9*time.Second)
	setBack(back)
	began := time.Now()
	if err := b.Start(ctx); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < back-100*time.Millisecond {
		t.Errorf("with a clock %s behind it minted codes after %s", back, took)
	}
	x.wait(pick(time.Second, 20*time.Second))
	o := x.finish()

	o.nothingLost(t)
	o.noneFailed(t, GETs...)
	// While it waits for its clock a backend refuses its share of the creates.
	if creates := o.of(create); creates.failed() > creates.failures()["create: 503"] {
		t.Errorf("creates failed by more than 503: %v", creates.failures())
	}
	if n := x.collisions(); n != 0 {
		t.Errorf("%d codes were minted twice", n)
	}
}

// Experiment 9, if Redis has lost the mark: the clock is back at a time whose codes are links
// already, as many as this load makes.
func TestCodesOfTimesToComeAreTaken(t *testing.T) {
	x := start(t, 9, "the same with the mark lost: codes are minted that are links already", fleet.Options{})
	db := x.redis()
	taken := pick(3*time.Second, 60*time.Second)
	first := time.Now().Add(500 * time.Millisecond).UnixMilli()
	const each = 23 // milliseconds: the load makes one every 30 at a backend, and the two must not be in step
	pipe := db.Pipeline()
	var links []entry
	for ms := first; ms < first+taken.Milliseconds(); ms += each {
		for node := 1; node <= len(x.fleet.Backends); node++ {
			e := entry{snowflake.Encode(snowflake.ID((ms-snowflake.Epoch)<<22 | int64(node)<<12)), fmt.Sprintf("https://example.org/%d/%d", node, ms)}
			links = append(links, e)
			pipe.Set(t.Context(), redisstore.LinkKey(e.code), e.target, 0)
		}
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	x.ledger.addAll(t, links)
	x.wait(taken)
	o := x.finish()

	o.nothingLost(t)
	o.noneFailed(t, GETs...)
	o.noneFailed(t, create)
	if n := x.collisions(); n == 0 {
		t.Error("no code was minted twice: this tested nothing")
	} else {
		x.fault += fmt.Sprintf(", %d times", n)
	}
}

// Experiments 2 and 9 together: a backend is paused, its lease runs out, another process takes its
// node ID, and it wakes and believes for a while that it still has the ID. With a real lease it
// would not, because it knows when the lease ends. So the lease is ended early here, and both mint
// in the same milliseconds.
func TestPausedBackendWhoseNodeIsTaken(t *testing.T) {
	x := start(t, 2, "SIGSTOP a backend whose node ID another takes meanwhile, then SIGCONT", fleet.Options{})
	db := x.redis()
	lease, _ := nodelease.Keys(2)
	paused := x.fleet.Backends[1]
	o := rivalOf(x.fleet, 2)
	o.Binary = fleettest.Binary(t, "snowlink/server")

	const most = 10
	var rounds, twice int
	for try := 0; try < most && rounds < pick(1, 5); try++ {
		// It renews every 4 s: pause it just after one renewal, so that the next is far.
		fleettest.Eventually(t, 10*time.Second, "the lease is renewed", func() bool {
			left, err := db.PTTL(t.Context(), lease).Result()
			return err == nil && left > nodelease.TTL-500*time.Millisecond
		})
		before := fleettest.Metric(t, paused, collided)
		paused.Pause()
		x.expireLease(2)
		rival, err := fleet.Start(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		paused.Resume()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		x.createAt(ctx, paused.URL, rival.Backends[0].URL)
		cancel()
		if n := int(fleettest.Metric(t, paused, collided) - before + fleettest.Metric(t, rival.Backends[0], collided)); n > 0 {
			rounds++
			twice += n
		}
		if err := rival.Close(); err != nil {
			t.Error(err)
		}
		x.awaitReady() // it takes its node ID back
	}
	outcome := x.finish()

	outcome.nothingLost(t)
	outcome.noneFailed(t, GETs...)
	x.fault += fmt.Sprintf(": %d codes minted by both", twice)
	if rounds == 0 {
		t.Error("no code was minted twice: this tested nothing")
	}
}

// createAt makes links at several backends directly, as fast as a few clients can, until ctx ends.
// They are in the ledger but not in the figures of the load.
func (x *experiment) createAt(ctx context.Context, urls ...string) {
	const clients = 8
	var creating sync.WaitGroup
	for _, url := range urls {
		direct := quietLoad(x.t, url, x.fleet.APIKey, x.ledger)
		for range clients {
			creating.Go(func() {
				for ctx.Err() == nil {
					direct.send(create) // refused once the backend knows that the node ID is another's
				}
			})
		}
	}
	creating.Wait()
}
