package faults_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

// Experiment 1. A create in flight may fail, although Nginx tries it at another backend, so that
// none needs to.
func TestKilledBackend(t *testing.T) {
	x := start(t, 1, "kill -9 a backend", fleet.Options{})
	x.wait(pick(time.Second, 5*time.Second))
	var kills []time.Time
	for i := range pick(1, 4) {
		b := x.fleet.Backends[i%len(x.fleet.Backends)]
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
		if after > max(5*normal, abnormal) {
			t.Errorf("2 s after kill %d p99 is %s, normal was %s", i+1, after, normal)
		}
	}
}

// Experiment 2. To Nginx a paused backend is one that hangs: its connections are open, and nothing
// answers. The long pause outlasts the 15 s of its lease: it wakes without a node ID.
func TestPausedBackend(t *testing.T) {
	x := start(t, 2, "SIGSTOP a backend "+pick("3 s", "for 16 s, past its lease"), fleet.Options{})
	paused := x.fleet.Backends[1]
	x.wait(pick(time.Second, 10*time.Second))
	paused.Pause()
	x.wait(pick(3*time.Second, 16*time.Second))
	paused.Resume()
	// Longer than the 30 s for which Nginx sends it nothing.
	x.wait(pick(time.Second, 40*time.Second))
	o := x.finish()

	o.nothingLost(t)
	o.noneFailed(t, GETs...)
	o.noneFailed(t, create)
	if slowest := o.percentile(1); *long && slowest > 4*time.Second {
		t.Errorf("a request took %s: longer than the 2 s that Nginx waits for a backend, twice", slowest)
	}
}

// Experiment 3. Links are changed and deleted meanwhile too. Bulk, import and export are left out:
// see nginx/snippets/long.conf.
func TestRollingRestart(t *testing.T) {
	x := start(t, 3, "rolling SIGTERM and restart of all three", fleet.Options{})
	manage, end := context.WithCancel(t.Context())
	defer end()
	var managers sync.WaitGroup
	var changed atomic.Int64
	for range 4 {
		managers.Go(func() {
			for manage.Err() == nil {
				x.changeAndDelete()
				changed.Add(1)
				x.wait(50 * time.Millisecond)
			}
		})
	}
	x.wait(pick(500*time.Millisecond, 5*time.Second))
	for range pick(1, 4) {
		for _, b := range x.fleet.Backends {
			ctx, cancel := context.WithTimeout(t.Context(), recovery)
			if err := errors.Join(b.Stop(ctx), b.Start(ctx)); err != nil {
				t.Fatal(err)
			}
			cancel()
			x.wait(pick(300*time.Millisecond, 3*time.Second))
		}
	}
	end()
	managers.Wait()
	t.Logf("%d links were changed and deleted", changed.Load())
	o := x.finish()

	o.nothingLost(t)
	o.noneFailed(t, GETs...)
	o.noneFailed(t, create)
}

// changeAndDelete makes a link of its own, changes it and deletes it. All must succeed,
// the first time.
func (x *experiment) changeAndDelete() {
	e, s := x.load.create()
	if s.failure != "" || s.again {
		x.t.Errorf("a create: %+v", s)
		return
	}
	for _, r := range []struct {
		method, body string
		want         int
	}{
		{http.MethodPatch, `{"title":"changed"}`, http.StatusOK},
		{http.MethodDelete, "", http.StatusNoContent},
	} {
		s, resp, answer := x.load.request(create, r.method, "/links/"+e.code, r.body)
		if s.failure != "" || s.again || resp.StatusCode != r.want {
			x.t.Errorf("%s of a link: %+v, %s", r.method, s, answer)
		}
	}
}

// Experiment 3. A reload closes idle connections. A client that is just sending on one has to send
// again, at most once for each connection. From 1.27.4 on Nginx can avoid that, as in
// upstreams/compose.conf: see TestCompose.
func TestNginxReload(t *testing.T) {
	reloads := pick(5, 30)
	x := start(t, 3, fmt.Sprintf("nginx -s reload, %d times", reloads), fleet.Options{})
	x.cutOff = reloads * connections()
	for range reloads {
		x.wait(pick(300*time.Millisecond, 2*time.Second))
		if err := x.fleet.Nginx.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	o := x.finish()

	o.nothingLost(t)
	o.noneFailed(t, GETs...)
	o.noneFailed(t, create)
}

// A rolling restart needs this: the first create that a starting backend accepts succeeds.
func TestStartingBackendCreatesAtOnce(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{Backends: 1, NoNginx: true})
	b := f.Backends[0]
	for range pick(5, 50) {
		if err := b.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		first := make(chan sample, 1)
		impatient := quietLoad(t, b.URL, f.APIKey, nil)
		go func() {
			deadline := time.Now().Add(recovery)
			_, s := impatient.create()
			for strings.Contains(s.failure, "connect") && time.Now().Before(deadline) { // it does not listen yet
				_, s = impatient.create()
			}
			first <- s
		}()
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := <-first; s.failure != "" {
			t.Fatalf("the first create of a started backend: %s", s.failure)
		}
		impatient.client.CloseIdleConnections() // or the backend's stop would wait for them
	}
}
