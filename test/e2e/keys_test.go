package e2e_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

// Named keys share one rate over both backends. Their file is read again on SIGHUP, and a wrong one
// changes nothing.
func TestNamedKeys(t *testing.T) {
	t.Parallel()
	const perHour = 10
	file := filepath.Join(t.TempDir(), "keys")
	write := func(lines ...string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	line := func(secret, rest string) string {
		return fmt.Sprintf("%s sha256:%x scopes=%s", secret, sha256.Sum256([]byte(secret+"-secret")), rest)
	}
	limited, free, reader := line("limited", fmt.Sprintf("create rate=%d/h", perHour)), line("free", "create"), line("reader", "read")
	write(limited, free, reader)
	f := fleettest.Start(t, fleet.Options{Backends: 2, Env: []string{"API_KEY=", "API_KEYS_FILE=" + file}})
	c := client(t, "127.0.0.1")
	post := func(url, key string) (status int, code string) {
		t.Helper()
		resp, body := do(t, c, "POST", url+"/generate_url", key+"-secret", `{"url":"https://example.com/"}`)
		var problem struct{ Code string }
		if err := json.Unmarshal([]byte(body), &problem); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if resp.StatusCode == http.StatusTooManyRequests {
			if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err != nil || seconds < 1 || seconds > 3600/perHour {
				t.Errorf("Retry-After = %q, want %d seconds at most", resp.Header.Get("Retry-After"), 3600/perHour)
			}
		}
		return resp.StatusCode, problem.Code
	}

	for range perHour {
		if status, _ := post(f.URL, "limited"); status != http.StatusCreated {
			t.Fatalf("a create within the rate: %d", status)
		}
	}
	for i, made := range answered(t, f, "create", "2xx") {
		if made == 0 {
			t.Errorf("backend %d made no link: the rate was not shared", i+1)
		}
	}
	for _, url := range []string{f.URL, f.Backends[0].URL, f.Backends[1].URL} {
		if status, code := post(url, "limited"); status != http.StatusTooManyRequests || code != "rate_limited" {
			t.Errorf("a create over the rate: %d %s", status, code)
		}
		if status, _ := post(url, "free"); status != http.StatusCreated {
			t.Errorf("a key without a rate: %d", status)
		}
		if status, code := post(url, "reader"); status != http.StatusForbidden || code != "forbidden" {
			t.Errorf("a key without the scope: %d %s", status, code)
		}
	}

	// hangup makes the backends read the file again, and waits until each has logged a text n
	// times.
	hangup := func(says string, n int) {
		t.Helper()
		for i, b := range f.Backends {
			b.Hangup()
			fleettest.Eventually(t, 20*time.Second, fmt.Sprintf("backend %d says %q", i+1, says), func() bool {
				log, err := os.ReadFile(filepath.Join(f.Dir, fmt.Sprintf("backend%d.log", i+1)))
				return err == nil && strings.Count(string(log), says) == n
			})
		}
	}
	wantEach := func(key string, want int) {
		t.Helper()
		for _, b := range f.Backends {
			if status, _ := post(b.URL, key); status != want {
				t.Errorf("%s: %d, want %d", key, status, want)
			}
		}
	}
	write(limited, "# wrong, and without free:", line("added", "everything"))
	hangup(file+`:\nline 3: scopes= takes`, 1)
	wantEach("free", http.StatusCreated)
	wantEach("added", http.StatusUnauthorized)

	write(limited, line("added", "create"))
	hangup("keys read again", 1)
	wantEach("free", http.StatusUnauthorized)
	wantEach("added", http.StatusCreated)
	wantEach("limited", http.StatusTooManyRequests) // Redis has the count, not the backends

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	hangup("no such file", 1)
	wantEach("added", http.StatusCreated)
	write("# nobody")
	hangup("keys read again", 2)
	wantEach("added", http.StatusUnauthorized)
}
