package e2e_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/redisstore"
)

// A link that Redis has evicted is found in the archive, by whichever backend is asked.
func TestEvictedLinkIsFound(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{Archive: 3})
	store := fleettest.RedisClient(t, f.Redis.Addr)
	c := client(t, "127.0.0.1")
	links := create(t, f, 10)
	for code := range links {
		fleettest.Eventually(t, 20*time.Second, "the link is archived, so that Redis may evict it", func() bool {
			return store.PTTL(t.Context(), redisstore.LinkKey(code)).Val() > 0
		})
		if err := store.Del(t.Context(), redisstore.LinkKey(code)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for code, target := range links {
		for _, url := range append(backendURLs(f), f.URL) {
			if resp, _ := do(t, c, http.MethodGet, url+"/"+code, "", ""); resp.StatusCode != http.StatusFound || resp.Header.Get("Location") != target {
				t.Errorf("an evicted link: %s to %q, want %q", resp.Status, resp.Header.Get("Location"), target)
			}
		}
	}
	if resp, _ := do(t, c, http.MethodGet, f.URL+"/8h4LRT53E8", "", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a link that never was: %s", resp.Status)
	}
	for _, url := range backendURLs(f) {
		if resp, body := do(t, c, http.MethodGet, url+"/healthz", "", ""); resp.StatusCode != http.StatusOK || !strings.Contains(body, `"ok"`) {
			t.Errorf("/healthz: %s, %s", resp.Status, body)
		}
	}
}
