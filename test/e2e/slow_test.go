package e2e_test

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

// A slow Redis is answered for by the backends, all of them: Nginx does not give up
// first, and takes none of them for dead.
func TestSlowRedisThroughNginx(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys")
	line := fmt.Sprintf("shop sha256:%x scopes=create,manage,read,admin rate=1000/s\n", sha256.Sum256([]byte("shop-secret")))
	if err := os.WriteFile(file, []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	var delay atomic.Int64
	f := fleettest.Start(t, fleet.Options{Env: []string{"API_KEYS_FILE=" + file}, RedisVia: func(addr string) (string, error) {
		return fleettest.Proxy(t, addr, func(piece []byte, send func([]byte)) {
			time.Sleep(time.Duration(delay.Load()))
			send(piece)
		}), nil
	}})
	c := client(t, "127.0.0.1")
	codes := create(t, f, 12)
	patch := func(code string) (status int, took time.Duration) {
		began := time.Now()
		resp, _ := do(t, c, "PATCH", f.URL+"/links/"+code, "shop-secret", `{"title":"T"}`)
		return resp.StatusCode, time.Since(began)
	}
	for code := range codes { // every backend has its connections
		patch(code)
	}
	for _, slow := range []time.Duration{420 * time.Millisecond, 480 * time.Millisecond} {
		delay.Store(int64(slow))
		var all sync.WaitGroup
		for code := range codes {
			all.Go(func() {
				status, took := patch(code)
				if status != http.StatusOK && status != http.StatusServiceUnavailable || took > 1950*time.Millisecond {
					t.Errorf("with Redis %s away: %d after %s", slow, status, took)
				}
			})
		}
		all.Wait()
	}
	delay.Store(0)
	log, err := os.ReadFile(filepath.Join(f.Dir, "nginx.log"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(log), "timed out") || strings.Contains(string(log), "disabled") {
		t.Errorf("Nginx took a backend for dead:\n%s", log)
	}
}
