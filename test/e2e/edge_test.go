package e2e_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/redisstore"
)

// The near cache is off here, so that only the staleness of the edge cache shows.
func TestEdgeCache(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{Env: []string{"CACHE_BYTES=0"}})
	cacheAtEdge(t, f)
	store := fleettest.RedisClient(t, f.Redis.Addr)
	set := func(code, target string) {
		t.Helper()
		if err := store.Set(t.Context(), redisstore.LinkKey(code), target, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	c := client(t, "127.0.0.1")
	var code string
	for code = range create(t, f, 1) { // two creates: the edge must not keep the first
	}
	if again := create(t, f, 1); again[code] != "" {
		t.Errorf("two creates got the code %s", code)
	}

	const visits = 1000
	count := func() (n int) {
		for _, answered := range answered(t, f, "redirect", "3xx") {
			n += answered
		}
		return n
	}
	before, began := count(), time.Now()
	for range visits {
		resp, _ := do(t, c, "GET", f.URL+"/"+code, "", "")
		if resp.StatusCode != http.StatusFound || resp.Header.Get("Location") != "https://example.com/0" || resp.Header.Get("Cache-Control") != "private, max-age=0" {
			t.Fatalf("GET /%s: %s, %v", code, resp.Status, resp.Header)
		}
	}
	if asked, most := count()-before, 2+int(time.Since(began).Seconds()); asked > most {
		t.Errorf("%d visits within %s cost the backends %d requests, not %d at most", visits, time.Since(began), asked, most)
	}

	// Nobody asks in between: after a pause the first visitor gets no old answer.
	set(code, "https://example.com/changed")
	time.Sleep(2 * time.Second)
	if resp, _ := do(t, c, "GET", f.URL+"/"+code, "", ""); resp.Header.Get("Location") != "https://example.com/changed" {
		t.Errorf("2 s after the change the edge answers %q", resp.Header.Get("Location"))
	}

	// A link that is deleted while visitors ask for it all the time is gone within 2 s too. When it
	// is back, so is the 404.
	for _, change := range []struct {
		what string
		do   func()
		want int
	}{
		{"deleted", func() { store.Del(t.Context(), redisstore.LinkKey(code)) }, http.StatusNotFound},
		{"restored", func() { set(code, "https://example.com/restored") }, http.StatusFound},
	} {
		change.do()
		const bound = 2500 * time.Millisecond // 2 s, and what a busy machine adds
		changed := time.Now()
		var visitors sync.WaitGroup
		for range 4 {
			visitors.Go(func() {
				c := client(t, "127.0.0.1")
				for time.Since(changed) < 2*bound {
					asked := time.Since(changed)
					resp, err := c.Get(f.URL + "/" + code)
					if err != nil {
						t.Error(err)
						return
					}
					resp.Body.Close()
					if asked > bound && resp.StatusCode != change.want {
						t.Errorf("%s after it was %s the link answers %s", asked, change.what, resp.Status)
						return
					}
				}
			})
		}
		visitors.Wait()
	}
}

// With the edge cache and Compose's own file of where it reports, Nginx starts while the backend that it
// reports to is not there.
func TestNginxStartsWithoutWhoCountsTheEdgeCache(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{})
	cacheAtEdge(t, f)
	report, err := os.ReadFile(filepath.Join(f.Nginx.Conf, "edge-log", "compose.conf"))
	if err == nil {
		err = os.WriteFile(filepath.Join(f.Nginx.Conf, "edge-log.conf"), report, 0o644)
	}
	if err := errors.Join(err, f.Nginx.Stop(t.Context()), f.Nginx.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	for code := range create(t, f, 1) {
		visit(t, client(t, "127.0.0.1"), f.URL+"/"+code)
	}
}
