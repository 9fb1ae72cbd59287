package redisstore_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
)

func TestChangesAreHeardAndCutsNoticed(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	store := open(t, "redis://"+r.Addr, quiet)
	ctx, cancel := context.WithCancel(context.Background())
	var missed atomic.Int64
	changed, done := make(chan string, 10), make(chan struct{})
	go func() {
		defer close(done)
		store.Changes(ctx, func(code string) { changed <- code }, func() { missed.Add(1) })
	}()
	heard := func(code string) {
		t.Helper()
		if err := store.Create(ctx, "o", code, link.Link{Target: "https://example.com/"}); err != nil {
			t.Fatal(err)
		}
		state, err := store.Read(ctx, code)
		if err == nil {
			_, err = store.Update(ctx, code, state.Version, link.Link{Target: "https://example.org/"})
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := <-changed; got != code {
			t.Errorf("heard of %q, want %q", got, code)
		}
	}
	wait := func(want int64) {
		t.Helper()
		fleettest.Eventually(t, 20*time.Second, "told that announcements may have been missed", func() bool { return missed.Load() == want })
	}

	wait(1) // it begins
	heard("a")
	heard("b")
	r.Kill()
	wait(2) // it broke
	if err := r.Start(ctx); err != nil {
		t.Fatal(err)
	}
	wait(3) // it begins again
	heard("c")
	r.Pause() // no connection breaks, and nothing comes
	wait(4)
	r.Resume()
	wait(5)
	heard("d")

	cancel()
	<-done
}
