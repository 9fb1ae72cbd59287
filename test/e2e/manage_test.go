package e2e_test

import (
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

// Whoever changes a link through Nginx sees the change there at once, because the change goes to
// the backend whose cache has the link. The others have it within a second.
func TestChangeThroughNginx(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{})
	c := client(t, "127.0.0.1")
	follow := func(url, code string) (status int, target string) {
		resp, _ := do(t, c, "GET", url+"/"+code, "", "")
		return resp.StatusCode, resp.Header.Get("Location")
	}
	for code := range create(t, f, 10) {
		follow(f.URL, code)
		for _, b := range f.Backends {
			follow(b.URL, code)
		}
		target := "https://example.org/" + code
		resp, body := do(t, c, "PATCH", f.URL+"/links/"+code, f.APIKey, fmt.Sprintf(`{"url":%q,"status":307}`, target))
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("PATCH: %s: %s", resp.Status, body)
		}
		if status, got := follow(f.URL, code); status != 307 || got != target {
			t.Errorf("right after the change /%s answers %d to %q", code, status, got)
		}
		deadline := time.Now().Add(time.Second)
		for _, b := range f.Backends {
			fleettest.Eventually(t, time.Until(deadline), b.URL+" has the change", func() bool {
				status, got := follow(b.URL, code)
				return status == 307 && got == target
			})
		}
		// If-Match comes through: a wrong version is refused.
		req, err := http.NewRequest("DELETE", f.URL+"/links/"+code, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("API-Key", f.APIKey)
		req.Header.Set("If-Match", `"0"`)
		if resp, err := c.Do(req); err != nil || resp.StatusCode != http.StatusPreconditionFailed {
			t.Errorf("DELETE of another version: %v, %v", resp, err)
		}
		if resp, body := do(t, c, "DELETE", f.URL+"/links/"+code, f.APIKey, ""); resp.StatusCode != http.StatusNoContent {
			t.Errorf("DELETE: %s: %s", resp.Status, body)
		}
		if status, _ := follow(f.URL, code); status != http.StatusGone {
			t.Errorf("right after it was deleted /%s answers %d", code, status)
		}
	}
}

// However many visitors come at once, and to whichever backend, a link gives exactly as many
// redirects as it may.
func TestVisitsAreExactOverAllBackends(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{})
	wantExact(t, f, createWith(t, f, f.URL, `"max_visits":100`), append(backendURLs(f), f.URL))
}

// wantExact sends 1,000 visitors to a link of 100 visits.
func wantExact(t *testing.T, f *fleet.Fleet, code string, urls []string) {
	t.Helper()
	const visits, visitors = 100, 1000
	c := client(t, "127.0.0.1")
	// Enough connections for many visitors at once. A burst of 1,000 new ones would test the
	// kernel's queues and not the backends.
	c.Transport.(*http.Transport).MaxConnsPerHost = 200
	c.Timeout = time.Minute
	var led, gone atomic.Int32
	var all sync.WaitGroup
	for i := range visitors {
		all.Go(func() {
			resp, err := c.Get(urls[i%len(urls)] + "/" + code)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			switch resp.StatusCode {
			case http.StatusFound:
				led.Add(1)
			case http.StatusGone:
				gone.Add(1)
			default:
				t.Errorf("GET /%s: %s", code, resp.Status)
			}
		})
	}
	all.Wait()
	if led.Load() != visits || gone.Load() != visitors-visits {
		t.Errorf("of %d visitors %d were led on and %d met the end, want %d and the rest", visitors, led.Load(), gone.Load(), visits)
	}
}

func TestOneCodeIsTakenOnceOverAllBackends(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{NoNginx: true})
	c := client(t, "127.0.0.1")
	for i := range 20 {
		var taken, refused atomic.Int32
		var all sync.WaitGroup
		for _, url := range backendURLs(f) {
			all.Go(func() {
				resp, body := do(t, c, "POST", url+"/links", f.APIKey, fmt.Sprintf(`{"url":"https://example.com/","code":"wanted-%d"}`, i))
				switch {
				case resp.StatusCode == http.StatusCreated:
					taken.Add(1)
				case resp.StatusCode == http.StatusConflict && strings.Contains(body, `"code_taken"`):
					refused.Add(1)
				default:
					t.Errorf("create: %s: %s", resp.Status, body)
				}
			})
		}
		all.Wait()
		if taken.Load() != 1 || int(refused.Load()) != len(f.Backends)-1 {
			t.Errorf("%d creates of one code succeeded and %d were refused", taken.Load(), refused.Load())
		}
	}
}

// A code that was asked for before it was taken leads to its target within a second, at every
// backend.
func TestTakenCodeShowsAtEveryBackend(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{NoNginx: true})
	c := client(t, "127.0.0.1")
	for _, url := range backendURLs(f) {
		if resp, _ := do(t, c, "GET", url+"/soon-taken", "", ""); resp.StatusCode != http.StatusNotFound {
			t.Fatalf("before it was taken: %s", resp.Status)
		}
	}
	createWith(t, f, f.Backends[0].URL, `"code":"soon-taken"`)
	deadline := time.Now().Add(time.Second)
	for _, url := range backendURLs(f) {
		fleettest.Eventually(t, time.Until(deadline), url+" has the link", func() bool {
			resp, _ := do(t, c, "GET", url+"/soon-taken", "", "")
			return resp.StatusCode == http.StatusFound
		})
	}
}

// The edge cache keeps what may be kept. It keeps no link whose visits are counted, and no
// management answer.
func TestEdgeCacheOfManagedLinks(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{})
	cacheAtEdge(t, f)
	c := client(t, "127.0.0.1")

	limited := createWith(t, f, f.URL, `"max_visits":100`)
	for range 3 {
		if resp, _ := do(t, c, "HEAD", f.URL+"/"+limited, "", ""); resp.StatusCode != http.StatusFound || resp.Header.Get("X-Accel-Expires") != "" {
			t.Errorf("HEAD of a link with visits left: %s, %v", resp.Status, resp.Header)
		}
	}
	wantExact(t, f, limited, []string{f.URL})

	permanent := createWith(t, f, f.URL, `"status":308,"forward_query":true`)
	before, began := sum(answered(t, f, "redirect", "3xx")), time.Now()
	const visits = 300
	for i := range visits {
		query := fmt.Sprintf("?a=%d", i%2)
		resp, _ := do(t, c, "GET", f.URL+"/"+permanent+query, "", "")
		if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusPermanentRedirect || got != "https://example.com/"+query {
			t.Fatalf("GET /%s%s: %s to %q", permanent, query, resp.Status, got)
		}
	}
	if asked, most := sum(answered(t, f, "redirect", "3xx"))-before, 2*(2+int(time.Since(began).Seconds())); asked > most {
		t.Errorf("%d visits by two queries cost the backends %d requests, not %d at most", visits, asked, most)
	}

	// A management answer is never an old one, not even a 404.
	for i := range 5 {
		code := fmt.Sprintf("as-of-now-%d", i)
		if resp, _ := do(t, c, "GET", f.URL+"/links/"+code, f.APIKey, ""); resp.StatusCode != http.StatusNotFound {
			t.Fatalf("before it was made: %s", resp.Status)
		}
		createWith(t, f, f.URL, `"code":"`+code+`"`)
		if resp, _ := do(t, c, "GET", f.URL+"/links/"+code, f.APIKey, ""); resp.StatusCode != http.StatusOK {
			t.Errorf("after it was made: %s", resp.Status)
		}
		do(t, c, "DELETE", f.URL+"/links/"+code, f.APIKey, "")
		if resp, _ := do(t, c, "GET", f.URL+"/links/"+code, f.APIKey, ""); resp.StatusCode != http.StatusGone {
			t.Errorf("after it was deleted: %s", resp.Status)
		}
		if resp, _ := do(t, c, "GET", f.URL+"/links/"+code, "", ""); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("without a key: %s", resp.Status)
		}
	}
}
