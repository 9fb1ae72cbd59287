package nodelease_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/embedded"
	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/nodelease"
)

// quiet is the log of tests that do not look at it.
var quiet = slog.New(slog.DiscardHandler)

// newLease makes a lease over connections of its own to the Redis at an address.
func newLease(t *testing.T, addr string, node, max int) *nodelease.Lease {
	t.Helper()
	return nodelease.New(fleettest.Conn(t, "redis://"+addr, quiet), node, max, quiet)
}

// refused is why a lease cannot be had, or nil if it can.
func refused(t *testing.T, lease *nodelease.Lease) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	return lease.Hold(ctx)
}

// holds waits until IDs are minted under node.
func holds(t *testing.T, lease *nodelease.Lease, node int) {
	t.Helper()
	fleettest.Eventually(t, 20*time.Second, fmt.Sprintf("node %d is held", node), func() bool {
		id, ok := lease.Next()
		return ok && id.Node() == node
	})
}

// set is what another process or an operator does to Redis.
func set(t *testing.T, client redis.UniversalClient, key string, value any) {
	t.Helper()
	if err := client.Set(context.Background(), key, value, 0).Err(); err != nil {
		t.Fatal(err)
	}
}

// setMark is a process with another clock having minted codes under a node ID until some time from
// now.
func setMark(t *testing.T, client redis.UniversalClient, node int, ahead time.Duration) (until time.Time) {
	t.Helper()
	until = time.Now().Add(ahead)
	set(t, client, fmt.Sprintf("clock:{node:%d}", node), until.UnixMilli())
	return until
}

// mark is the time until which codes were minted under a node ID.
func mark(t *testing.T, client redis.UniversalClient, node int) time.Time {
	t.Helper()
	value, err := client.Get(context.Background(), fmt.Sprintf("clock:{node:%d}", node)).Result()
	if err != nil {
		t.Fatal(err)
	}
	number, _, _ := strings.Cut(value, " ")
	ms, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.UnixMilli(ms)
}

func TestNodeLease(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		r, err := embedded.Start()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		testNodeLease(t, r.URL())
	})
	t.Run("redis-server", func(t *testing.T) { testNodeLease(t, "redis://"+fleettest.Redis(t).Addr) })
	t.Run("Redis Cluster", func(t *testing.T) {
		testNodeLease(t, fleettest.Start(t, fleet.Options{NoBackends: true, NoNginx: true, Cluster: true}).Cluster.URL())
	})
}

func testNodeLease(t *testing.T, url string) {
	conn := fleettest.Conn(t, url, quiet)
	newLease := func(node int) *nodelease.Lease { return nodelease.New(conn, node, 3, quiet) }

	first := newLease(1)
	if _, ok := first.Next(); ok {
		t.Error("an ID without a lease")
	}
	stopFirst := fleettest.Background(t, first.Hold)
	holds(t, first, 1)

	err := refused(t, newLease(1))
	if !errors.Is(err, nodelease.ErrTaken) || !strings.Contains(err.Error(), "pid ") {
		t.Errorf("a second holder of node 1 = %v, want ErrTaken naming the first", err)
	}

	for _, want := range []int{0, 2, 3} { // the lowest that is free, 1 being taken
		automatic := newLease(-1)
		fleettest.Background(t, automatic.Hold)
		holds(t, automatic, want)
	}
	if err := refused(t, newLease(-1)); !errors.Is(err, nodelease.ErrTaken) {
		t.Errorf("with all IDs taken: %v, want ErrTaken", err)
	}

	last, _ := first.Next()
	if err := stopFirst(); err != nil || first.Held() {
		t.Errorf("after the end: %v, held %v", err, first.Held())
	}
	next := newLease(1) // at once: it was given back
	fleettest.Background(t, next.Hold)
	holds(t, next, 1)
	if id, ok := next.Next(); !ok || !id.Time().After(last.Time()) {
		t.Errorf("the next holder mints at %s, the last did until %s", id.Time(), last.Time())
	}
}

func TestNodeLeaseThatIsLostSaysSoAndComesBack(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	client := fleettest.RedisClient(t, r.Addr)
	var log fleettest.Output
	lease := nodelease.New(fleettest.Conn(t, "redis://"+r.Addr, quiet), 7, 7, slog.New(slog.NewTextHandler(&log, nil)))
	fleettest.Background(t, lease.Hold)
	holds(t, lease, 7)

	set(t, client, "node:7", "somebody else")
	fleettest.Eventually(t, 20*time.Second, "the lease is lost", func() bool { return !lease.Held() })
	fleettest.Eventually(t, 20*time.Second, "the log names who has it", func() bool { return strings.Contains(log.String(), "held by somebody else") })

	// Its clock was ahead of ours: its times do not come again.
	until := setMark(t, client, 7, 3*time.Second)
	client.Del(t.Context(), "node:7")
	holds(t, lease, 7)
	if id, _ := lease.Next(); id.Time().Before(until.Truncate(time.Millisecond)) {
		t.Errorf("minted at %s, which was used until %s", id.Time(), until)
	}
}

// A lease that Redis has forgotten, and that nobody took meanwhile, goes on.
func TestForgottenNodeLeaseGoesOn(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	client := fleettest.RedisClient(t, r.Addr)
	lease := newLease(t, r.Addr, 1, 1)
	fleettest.Background(t, lease.Hold)
	holds(t, lease, 1)
	client.Del(t.Context(), "node:1") // the mark is there, 14 s ahead
	fleettest.Eventually(t, 20*time.Second, "it is renewed", func() bool {
		if !lease.Held() {
			t.Fatal("it was lost on the way")
		}
		return client.Exists(t.Context(), "node:1").Val() == 1
	})
}

func TestAutomaticNodeLeaseBecomesAnother(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	client := fleettest.RedisClient(t, r.Addr)
	lease := newLease(t, r.Addr, -1, 3)
	setMark(t, client, 0, time.Minute) // free, and of no use
	fleettest.Background(t, lease.Hold)
	holds(t, lease, 1)

	// Nothing can be had: 0 is free still, and what is minted must not be of node 1.
	for node := 1; node <= 3; node++ {
		set(t, client, fmt.Sprintf("node:%d", node), "somebody else")
	}
	fleettest.Eventually(t, 20*time.Second, "the lease is lost", func() bool { return !lease.Held() })
	until := setMark(t, client, 0, 2*time.Second)
	fleettest.Eventually(t, 20*time.Second, "another is held", lease.Held)
	if id, _ := lease.Next(); id.Node() != 0 || id.Time().Before(until.Truncate(time.Millisecond)) {
		t.Errorf("minted under node %d at %s; 1 is taken, and 0 was used until %s", id.Node(), id.Time(), until)
	}
	if holder := client.Get(t.Context(), "node:1").Val(); holder != "somebody else" {
		t.Errorf("node 1 is held by %q", holder)
	}
}

func TestClockBehindIsWaitedForOrRefused(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	conn := fleettest.Conn(t, "redis://"+r.Addr, quiet)
	client := fleettest.RedisClient(t, r.Addr)

	until := setMark(t, client, 1, 2*time.Second)
	lease := nodelease.New(conn, 1, 1, quiet)
	stop := fleettest.Background(t, lease.Hold)
	holds(t, lease, 1)
	if early := time.Until(until); early > time.Millisecond {
		t.Errorf("held %s before the clock had caught up", early)
	}
	if high := mark(t, client, 1); !high.After(time.Now()) {
		t.Errorf("the mark of a lease that is held is %s", high)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// Given back in order: the next holder need not wait.
	if high := mark(t, client, 1); high.After(time.Now().Add(time.Millisecond)) {
		t.Errorf("the mark after a clean end is %s", high)
	}

	setMark(t, client, 1, time.Minute)
	err := refused(t, nodelease.New(conn, 1, 1, quiet))
	if !errors.Is(err, nodelease.ErrClockBehind) || !strings.Contains(err.Error(), "1m0s") {
		t.Errorf("a clock a minute behind: %v, want ErrClockBehind that says so", err)
	}
	if n, err := client.Exists(t.Context(), "node:1").Result(); n != 0 || err != nil {
		t.Errorf("the refused process keeps the lease: %d, %v", n, err)
	}
}

// The wall clock is set back under a running process: its IDs stay ahead, and so must the mark, in
// use and when the lease is given back.
func TestMarkIsTheClockOfTheIDs(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	conn := fleettest.Conn(t, "redis://"+r.Addr, quiet)
	client := fleettest.RedisClient(t, r.Addr)
	lease := nodelease.New(conn, 1, 1, quiet)
	lease.SetAhead(time.Minute)
	stop := fleettest.Background(t, lease.Hold)
	holds(t, lease, 1)
	id, _ := lease.Next()
	if high := mark(t, client, 1); !high.After(id.Time()) {
		t.Errorf("an ID of %s, and the mark is %s", id.Time(), high)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if high := mark(t, client, 1); !high.After(id.Time()) {
		t.Errorf("an ID of %s, and the mark after a clean end is %s", id.Time(), high)
	}
	if err := refused(t, nodelease.New(conn, 1, 1, quiet)); !errors.Is(err, nodelease.ErrClockBehind) {
		t.Errorf("the next process: %v, want ErrClockBehind", err)
	}
}

// A process that gives back a lease which is another's by now must not touch its mark.
func TestReleaseLeavesWhatIsAnothers(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	client := fleettest.RedisClient(t, r.Addr)
	lease := newLease(t, r.Addr, 1, 1)
	stop := fleettest.Background(t, lease.Hold)
	holds(t, lease, 1)
	set(t, client, "node:1", "somebody else")
	until := setMark(t, client, 1, time.Minute)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if high := mark(t, client, 1); !high.Equal(until.Truncate(time.Millisecond)) {
		t.Errorf("the mark of another holder was %s and is %s", until, high)
	}
	if holder := client.Get(t.Context(), "node:1").Val(); holder != "somebody else" {
		t.Errorf("node 1 is held by %q", holder)
	}
}

func TestLeaseWaitsForRedis(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	r.Kill()
	lease := newLease(t, r.Addr, 0, 0)
	fleettest.Background(t, lease.Hold)
	if lease.Held() {
		t.Fatal("held without Redis")
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	fleettest.Eventually(t, 20*time.Second, "the lease is held", lease.Held)
}

// Holders names every process that holds a node ID, also one that wrote something else there.
func TestHolders(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	leases := []*nodelease.Lease{newLease(t, r.Addr, 1, 2), newLease(t, r.Addr, 2, 2)}
	for i, l := range leases {
		fleettest.Background(t, l.Hold)
		holds(t, l, i+1)
	}
	fleettest.RedisClient(t, r.Addr).Set(t.Context(), "node:0", "somebody", time.Minute)
	host, _ := os.Hostname()
	for i, l := range leases {
		holders, err := l.Holders(t.Context(), 2)
		if err != nil || len(holders) != 3 || holders[0] != (nodelease.Holder{Host: "somebody"}) {
			t.Fatalf("%+v, %v", holders, err)
		}
		for k, h := range holders[1:] {
			if h.Node != k+1 || h.Host != host || h.PID != os.Getpid() || time.Since(h.Since).Abs() > time.Minute || h.Self != (k == i) {
				t.Errorf("%+v", h)
			}
		}
	}
	r.Kill()
	if _, err := leases[0].Holders(t.Context(), 2); !errors.Is(err, link.ErrUnavailable) {
		t.Errorf("without Redis: %v", err)
	}
}

// A full Redis evicts leases where nothing else has a time to live. The mark, which has none, keeps
// the node ID for its holder.
func TestEvictedNodeLeaseIsNotTaken(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t, "maxmemory 4mb", "maxmemory-policy volatile-lru")
	client := fleettest.RedisClient(t, r.Addr)
	holder := newLease(t, r.Addr, 1, 1)
	fleettest.Background(t, holder.Hold)
	holds(t, holder, 1)
	before := mark(t, client, 1)

	value := strings.Repeat("x", 10_000)
	for i := 0; client.Exists(t.Context(), "node:1").Val() > 0; i++ {
		if i > 10_000 {
			t.Fatal("the lease was not evicted")
		}
		client.Set(t.Context(), fmt.Sprint("filler:", i), value, 0) // which Redis refuses in the end
	}

	// There is room again before the holder renews: what a newcomer takes now would stay.
	client.ConfigSet(t.Context(), "maxmemory", "0")
	fixed, automatic := newLease(t, r.Addr, 1, 1), newLease(t, r.Addr, -1, 2)
	fixed.SetAhead(5 * time.Second) // so that it waits for the mark, and does not give up at once
	fleettest.Background(t, automatic.Hold)
	fleettest.Background(t, fixed.Hold)
	renewals := 0
	fleettest.Eventually(t, 30*time.Second, "the holder has renewed its lease three times", func() bool {
		if !holder.Held() {
			t.Fatal("the holder lost its node ID")
		}
		if _, ok := fixed.Next(); ok {
			t.Fatal("a newcomer mints under the holder's node ID")
		}
		if id, ok := automatic.Next(); ok && id.Node() == 1 {
			t.Fatal("an automatic newcomer mints under the holder's node ID")
		}
		if now := mark(t, client, 1); now.After(before) {
			before = now
			renewals++
		}
		return renewals >= 3
	})
}
