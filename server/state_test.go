package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"snowlink/internal/fleet/fleettest"
)

// With REDIS_STATE_URL, a link Redis that is full and evicts what has a time to live takes nothing
// from promises, leases and sessions. While the state Redis is away, redirects go on and /healthz names it.
func TestStateRedis(t *testing.T) {
	links := fleettest.Redis(t, "maxmemory 4mb", "maxmemory-policy volatile-lru")
	state := fleettest.Redis(t, "maxmemory 64mb", "maxmemory-policy noeviction")
	addr, metricsAddr := freeAddr(t), freeAddr(t)
	shop := writeFile(t, "shop "+fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("shop-key")))+" scopes=create rate=1000/h\n")
	environ := []string{"LISTEN=" + addr, "METRICS_LISTEN=" + metricsAddr, "API_KEYS_FILE=" + shop, "NODE_ID=1", "CACHE_BYTES=0",
		"REDIS_URL=redis://" + links.Addr, "REDIS_STATE_URL=redis://" + state.Addr}
	var stderr fleettest.Output
	fleettest.Background(t, func(ctx context.Context) error { return run(ctx, nil, environ, io.Discard, &stderr) })
	client := http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ask := func(method, path, key string) (status int, body string) {
		req, _ := http.NewRequest(method, "http://"+addr+path, strings.NewReader(`{"url":"https://example.com/","code":"kept"}`))
		req.Header.Set("API-Key", "shop-key")
		if key != "" {
			req.Header.Set("Idempotency-Key", key)
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	fleettest.Eventually(t, 20*time.Second, "the server is ready", func() bool { status, _ := ask("GET", "/healthz", ""); return status == 200 })
	if status, body := ask("POST", "/links", "k"); status != 201 {
		t.Fatalf("create: %d %s", status, body)
	}

	resp, err := client.Post("http://"+addr+"/dashboard/session", "application/json", strings.NewReader(`{"key":"shop-key"}`))
	if err != nil || resp.StatusCode != 201 {
		t.Fatalf("sign in: %+v, %v", resp, err)
	}
	resp.Body.Close()
	signedIn := func() (status int) {
		req, _ := http.NewRequest("GET", "http://"+addr+"/dashboard/session", nil)
		req.AddCookie(resp.Cookies()[0])
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}

	admin, kept := fleettest.RedisClient(t, links.Addr), fleettest.RedisClient(t, state.Addr)
	value := strings.Repeat("x", 10_000)
	admin.Set(t.Context(), "victim", "", time.Hour)
	for i := 0; admin.Exists(t.Context(), "victim").Val() > 0 && i < 10_000; i++ {
		admin.Set(t.Context(), "filler:"+time.Now().String(), value, 0)
	}
	for _, pattern := range []string{"node:1", "idem:*", "rate:shop:*", "sessions"} {
		if n, err := kept.Keys(t.Context(), pattern).Result(); len(n) != 1 || err != nil {
			t.Errorf("the state Redis has %q for %s, %v", n, pattern, err)
		}
		if n := admin.Keys(t.Context(), pattern).Val(); len(n) != 0 {
			t.Errorf("the Redis of links has %q", n)
		}
	}
	if status, body := ask("GET", "/healthz", ""); status != 200 {
		t.Errorf("/healthz with links full: %d %s", status, body)
	}

	// A full state Redis refuses promises. It counts no rates and keeps the leases.
	kept.ConfigSet(t.Context(), "maxmemory", "1")
	if status, body := ask("POST", "/links", "full"); status != 507 {
		t.Errorf("an idempotent create with the state Redis full: %d %s", status, body)
	}
	if n := kept.Exists(t.Context(), "node:1").Val(); n != 1 {
		t.Error("the lease is gone from a full state Redis")
	}

	if status := signedIn(); status != 200 {
		t.Errorf("a session with the state Redis full: %d", status)
	}

	state.Kill()
	if status := signedIn(); status != 503 {
		t.Errorf("a session without the state Redis: %d", status)
	}
	if status, body := ask("GET", "/kept", ""); status != 302 {
		t.Errorf("a redirect without the state Redis: %d %s", status, body)
	}
	if status, body := ask("POST", "/links", "k2"); status != 503 {
		t.Errorf("an idempotent create without the state Redis: %d %s", status, body)
	}
	if status, body := ask("GET", "/healthz", ""); status != 503 || !strings.Contains(body, "REDIS_STATE_URL") {
		t.Errorf("/healthz = %d %s, want 503 that names REDIS_STATE_URL", status, body)
	}
	if log := stderr.String(); !strings.Contains(log, `"redis":"state"`) {
		t.Errorf("the log does not say which Redis is away:\n%s", log)
	}
}
