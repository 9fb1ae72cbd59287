package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
)

// onFirst returns a function that reports whether a key is on the first of three masters.
func onFirst(t *testing.T, cluster fleet.Cluster) func(key string) bool {
	client := fleettest.RedisClient(t, cluster[1].Addr)
	return func(key string) bool {
		slot, err := client.ClusterKeySlot(t.Context(), key).Result()
		if err != nil {
			t.Fatal(err)
		}
		return slot < 16384/3 // it has the first slots
	}
}

// While one of three masters hangs, and however many wait for it, the links of the others are read
// and created as before. Its own links fail in time, and are there again once it is. No replica
// takes over meanwhile: the masters would wait a minute.
func TestHungMasterStopsNoOther(t *testing.T) {
	t.Parallel()
	cluster := fleettest.Start(t, fleet.Options{NoBackends: true, NoNginx: true, Cluster: true,
		RedisConfig: []string{"cluster-node-timeout 60000", "cluster-require-full-coverage no"}}).Cluster
	store := open(t, cluster.URL(), quiet)
	ctx := context.WithoutCancel(t.Context()) // as requests have
	onHung := onFirst(t, cluster)
	owner := "o"
	for onHung("journal:" + owner) {
		owner += "o"
	}
	made := 0
	some := func(n int, hung bool) (links []link.Coded) {
		for ; len(links) < n; made++ {
			l := link.Coded{Code: fmt.Sprint("c", made), Link: link.Link{Target: "https://example.com/"}}
			if onHung("link:"+l.Code) == hung {
				links = append(links, l)
			}
		}
		return links
	}
	codes := func(links []link.Coded) (codes []string) {
		for _, l := range links {
			codes = append(codes, l.Code)
		}
		return codes
	}
	hung, healthy := some(100, true), some(264, false)
	if err := errors.Join(store.CreateAll(ctx, owner, slices.Concat(hung, healthy))...); err != nil {
		t.Fatal(err)
	}
	hungCodes, healthyCodes := codes(hung), codes(healthy)
	newHung, newHealthy := some(2000, true), some(2000, false)

	cluster[0].Pause()
	defer cluster[0].Resume()
	stopped, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	defer load.Wait()
	defer stop()
	for i := range 32 {
		load.Go(func() {
			for stopped.Err() == nil {
				began := time.Now()
				if _, err := store.Get(ctx, hungCodes[i]); !errors.Is(err, link.ErrUnavailable) && stopped.Err() == nil {
					t.Errorf("Get of a hung master's = %v, want ErrUnavailable", err)
				}
				if took := time.Since(began); took > nginxWaits {
					t.Errorf("Get of a hung master's took %s", took)
				}
			}
		})
	}
	load.Go(func() { // more than its queue takes
		store.GetAll(ctx, slices.Repeat(hungCodes, 500))
	})
	var took []time.Duration
	for range 10 {
		for i, code := range healthyCodes {
			began := time.Now()
			if _, err := store.Get(ctx, code); err != nil {
				t.Fatalf("read %d: %v", i, err)
			}
			took = append(took, time.Since(began))
		}
	}
	// One that waited for the hung master would take a second. A busy machine may hold up a few.
	slices.Sort(took)
	p99 := took[len(took)*99/100]
	if t.Logf("of %d reads of healthy masters, one in a hundred took longer than %s, the slowest %s", len(took), p99, took[len(took)-1]); p99 > 500*time.Millisecond {
		t.Error("reads of healthy masters wait for the hung one")
	}
	for i, l := range some(50, false) {
		if err := store.Create(ctx, owner, l.Code, l.Link); err != nil {
			t.Fatalf("create %d: %v", i, err)
		}
	}

	began := time.Now()
	_, errs := store.GetAll(ctx, slices.Concat(hungCodes, healthyCodes))
	if took := time.Since(began); took > nginxWaits {
		t.Errorf("GetAll took %s", took)
	}
	for i, err := range errs {
		if isHung := i < len(hung); isHung != errors.Is(err, link.ErrUnavailable) || !isHung && err != nil {
			t.Fatalf("GetAll, %d: %v", i, err)
		}
	}

	var mixed []link.Coded
	for i := range newHung {
		mixed = append(mixed, newHung[i], newHealthy[i])
	}
	began = time.Now()
	for i, err := range store.CreateAll(ctx, owner, mixed) {
		if isHung := i%2 == 0; isHung != errors.Is(err, link.ErrUnavailable) || !isHung && err != nil {
			t.Fatalf("CreateAll, %d: %v", i, err)
		}
	}
	bulk := time.Since(began)
	t.Logf("a bulk of %d took %s", len(mixed), bulk)
	if bulk > 3*nginxWaits { // one round trip of eight waits for it
		t.Errorf("a bulk of %d took %s", len(mixed), bulk)
	}

	stop()
	cluster[0].Resume()
	fleettest.Eventually(t, 20*time.Second, "what it has is there again", func() bool {
		_, errs := store.GetAll(ctx, slices.Concat(hungCodes, healthyCodes))
		return errors.Join(errs...) == nil
	})
}
