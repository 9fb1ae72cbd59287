package e2e_test

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/redisstore"
)

func TestCreatesReachEveryBackend(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{})
	create(t, f, 60)
	for i, n := range answered(t, f, "create", "2xx") {
		if n < 15 { // 20 each in one round robin; each worker of Nginx has its own
			t.Errorf("backend%d answered %d of 60 creates", i+1, n)
		}
	}
}

func TestCreatesByEitherPathReachEveryBackend(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{})
	for range 60 {
		createWith(t, f, f.URL, `"title":"T"`)
	}
	for i, n := range answered(t, f, "create", "2xx") {
		if n < 15 { // 20 each, in one round; Nginx's workers have a round each
			t.Errorf("backend%d answered %d of 60 creates", i+1, n)
		}
	}
}

// Creates and redirects work on a real Redis Cluster too.
func TestOnRedisCluster(t *testing.T) {
	t.Parallel()
	f := fleettest.Start(t, fleet.Options{Cluster: true})
	c := client(t, "127.0.0.1")
	links := create(t, f, 60)
	for code, target := range links {
		for _, url := range []string{f.URL, f.Backends[0].URL, f.Backends[1].URL, f.Backends[2].URL} {
			resp, body := do(t, c, "GET", url+"/"+code, "", "")
			if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusFound || got != target {
				t.Fatalf("%s/%s: %s to %q, want 302 to %q\n%s", url, code, resp.Status, got, target, body)
			}
		}
	}
	stored := 0
	for _, master := range f.Cluster[:3] {
		keys, err := fleettest.RedisClient(t, master.Addr).Keys(t.Context(), redisstore.LinkKey("*")).Result()
		if len(keys) == 0 {
			t.Errorf("of %d links none is at %s: %v", len(links), master.Addr, err)
		}
		stored += len(keys)
	}
	if stored != len(links) {
		t.Errorf("%d links are stored, want %d", stored, len(links))
	}
}

func TestCodeMeetsOneBackend(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{})
	c := client(t, "127.0.0.1")
	met := make([]int, len(f.Backends))
	count := func() []int {
		counts := answered(t, f, "redirect", "3xx")
		for _, route := range []string{"preview", "qr"} {
			for i, n := range answered(t, f, route, "2xx") {
				counts[i] += n
			}
		}
		return counts
	}
	before := count()
	for code, target := range create(t, f, 60) {
		forms := []string{"/" + code, "/" + code + "?utm_source=a&b=%2F", "/" + code + "?"}
		for _, form := range forms {
			for _, method := range []string{"GET", "HEAD"} {
				resp, body := do(t, c, method, f.URL+form, "", "")
				if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusFound || got != target {
					t.Fatalf("%s %s: %s to %q, want 302 to %q\n%s", method, form, resp.Status, got, target, body)
				}
			}
		}
		for _, form := range []string{"/" + code + "+", "/" + code + "/qr", "/" + code + "/qr?size=200"} {
			if resp, body := do(t, c, "GET", f.URL+form, "", ""); resp.StatusCode != http.StatusOK {
				t.Fatalf("GET %s: %s\n%s", form, resp.Status, body)
			}
		}
		after := count()
		var which []int
		for i := range after {
			if after[i] != before[i] {
				which = append(which, i)
			}
		}
		if len(which) != 1 {
			t.Fatalf("%d backends answered for /%s in its %d forms", len(which), code, len(forms))
		}
		met[which[0]]++
		before = after
	}
	if slices.Contains(met, 0) {
		t.Errorf("60 codes met the backends %v times: one has no share", met)
	}
}

func TestKilledBackendCostsNoGET(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{})
	links := create(t, f, 50)
	c := client(t, "127.0.0.1")

	var followed atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for ctx.Err() == nil {
				for code, target := range links {
					resp, err := c.Get(f.URL + "/" + code)
					if err != nil {
						t.Errorf("GET /%s: %v", code, err)
						return
					}
					resp.Body.Close()
					if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusFound || got != target {
						t.Errorf("GET /%s: %s to %q, want 302 to %q", code, resp.Status, got, target)
					}
					followed.Add(1)
				}
			}
		})
	}
	more := func(n int64) {
		for until := followed.Load() + n; followed.Load() < until && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
	}
	more(500)
	f.Backends[1].Kill()
	more(2000)
	cancel()
	readers.Wait()
}
