package e2e_test

import (
	"testing"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/nearcache"
	"snowlink/internal/redisstore"
)

// A change made elsewhere shows at every backend: within a second if it is announced,
// and within nearcache.FreshFor if announcements are cut.
func TestChangeReachesEveryBackend(t *testing.T) {
	for _, tt := range []struct {
		name  string
		cut   bool
		bound time.Duration
	}{
		{"announced", false, time.Second},
		{"announcements cut", true, nearcache.FreshFor},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := fleettest.Start(t, fleet.Options{Backends: 3, NoNginx: true})
			store := fleettest.RedisClient(t, f.Redis.Addr)
			c := client(t, "127.0.0.1")
			follow := func(b *fleet.Backend, code string) string {
				resp, _ := do(t, c, "GET", b.URL+"/"+code, "", "")
				return resp.Header.Get("Location")
			}
			distrusted := func() bool {
				for _, n := range cacheEvents(t, f, "distrust") {
					if n < 2 { // when the subscription began, and when it broke
						return false
					}
				}
				return true
			}

			if tt.cut {
				// Nobody may subscribe any more, and subscribers are disconnected.
				if err := store.Do(t.Context(), "ACL", "SETUSER", "default", "resetchannels").Err(); err != nil {
					t.Fatal(err)
				}
				fleettest.Eventually(t, 10*time.Second, "the backends notice that announcements are cut", distrusted)
			}
			for code, target := range create(t, f, 1) {
				for _, b := range f.Backends {
					if got := follow(b, code); got != target {
						t.Fatalf("%s leads to %q, want %q", code, got, target)
					}
				}
				const changed = "https://example.org/changed"
				if err := store.Set(t.Context(), redisstore.LinkKey(code), changed, 0).Err(); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				if err := store.Publish(t.Context(), redisstore.ChangesChannel, code).Err(); (err != nil) != tt.cut {
					t.Fatal(err)
				}
				var slowest time.Duration
				for _, b := range f.Backends {
					fleettest.Eventually(t, time.Until(began.Add(tt.bound)), b.URL+" has the change", func() bool {
						return follow(b, code) == changed
					})
					slowest = time.Since(began)
				}
				t.Logf("all backends had the change after %s", slowest)
				if tt.cut && slowest < time.Second {
					t.Error("the change was announced after all: this tested nothing")
				}
			}
		})
	}
}
