package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/nodelease"
	"snowlink/internal/redisstore"
)

// A request begun before SIGTERM gets its answer, and no lease stays behind.
func TestStopFinishesWhatWasBegun(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{Backends: 1, NoNginx: true})
	db := fleettest.RedisClient(t, f.Redis.Addr)
	lease, _ := nodelease.Keys(1)
	holder := func() error { return db.Get(t.Context(), lease).Err() }
	if err := holder(); err != nil {
		t.Fatalf("%s before the stop: %v", lease, err)
	}

	conn, answers := dial(t, f.URL)
	const body = `{"url":"https://example.com/slow"}`
	fmt.Fprintf(conn, "POST /generate_url HTTP/1.1\r\nHost: a\r\nAPI-Key: %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", f.APIKey, len(body))
	// The backend has the header and waits for the body.
	if resp, err := http.ReadResponse(answers, nil); err != nil || resp.StatusCode != http.StatusContinue {
		t.Fatalf("before the body: %v, %v", resp, err)
	}

	stopped := make(chan error, 1)
	go func() { stopped <- f.Backends[0].Stop(t.Context()) }()
	c := client(t, "127.0.0.1")
	for status := 0; status != http.StatusServiceUnavailable; {
		resp, err := c.Get(f.URL + "/healthz")
		if err != nil {
			t.Fatalf("/healthz was never 503: %v", err) // its listener is closed
		}
		resp.Body.Close()
		status = resp.StatusCode
	}

	fmt.Fprint(conn, body)
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var link struct{ Code string }
	if err := json.NewDecoder(resp.Body).Decode(&link); err != nil || resp.StatusCode != http.StatusCreated || !resp.Close {
		t.Errorf("answered %s, closing %t (%v), want 201 and a close", resp.Status, resp.Close, err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if target, err := db.Get(t.Context(), redisstore.LinkKey(link.Code)).Result(); target != "https://example.com/slow" {
		t.Errorf("the link %s is %q (%v)", link.Code, target, err)
	}
	if err := holder(); !errors.Is(err, redis.Nil) {
		t.Errorf("%s after the stop: %v, want none", lease, err)
	}
}

// Experiments kill, freeze and restart the programs of a fleet: this tests that the fleet does what
// they ask for.
func TestProgramsComeBack(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{Backends: 2, RedisConfig: []string{"appendfsync always"}})
	links := create(t, f, 5)
	c := client(t, "127.0.0.1")
	follow := func(url string) {
		t.Helper()
		for code, target := range links {
			if resp, _ := do(t, c, "GET", url+"/"+code, "", ""); resp.Header.Get("Location") != target {
				t.Fatalf("GET %s/%s: %s to %q, want %q", url, code, resp.Status, resp.Header.Get("Location"), target)
			}
		}
	}

	f.Redis.Kill()
	if err := f.Redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A pooled connection to the Redis that was killed may still fail a request.
	fleettest.Eventually(t, 10*time.Second, "backend1 is ready after Redis came back", func() bool {
		resp, _ := do(t, c, "GET", f.Backends[0].URL+"/healthz", "", "")
		return resp.StatusCode == http.StatusOK
	})
	follow(f.Backends[0].URL)

	if err := f.Backends[0].Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(f.Backends[0].URL + "/ping"); err == nil {
		t.Fatal("a stopped backend answers")
	}
	if err := f.Backends[0].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	follow(f.Backends[0].URL)

	f.Backends[1].Pause()
	short := client(t, "127.0.0.1")
	short.Timeout = 200 * time.Millisecond
	if _, err := short.Get(f.Backends[1].URL + "/ping"); err == nil {
		t.Fatal("a paused backend answers")
	}
	f.Backends[1].Resume()
	follow(f.Backends[1].URL)

	if err := f.Nginx.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	follow(f.URL)
}
