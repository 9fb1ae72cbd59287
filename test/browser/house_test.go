package browser_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	snow "snowlink/client"
	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

func TestMain(m *testing.M) {
	code := fleettest.Main(m)
	sharedChromium.Stop()
	sharedHouse.Stop()
	os.Exit(code)
}

// A house is a fleet that tests share, and the keys that it knows. Each test takes keys of its own, so
// that nobody else makes links for it.
type house struct {
	*fleet.Fleet
	dir string

	mu    sync.Mutex
	taken map[string]int // by scopes
}

var sharedHouse fleettest.Shared[*house]

// What keys may do.
const (
	everything = "create,read,manage,admin"
	usual      = "create,read,manage"
	onlyCreate = "create"
	onlyRead   = "read"
)

// names are what keys are called, by what they may do.
var names = map[string]string{everything: "ada", usual: "ben", onlyCreate: "cleo", onlyRead: "dana"}

// keysOf is how many keys there are of each kind.
const keysOf = 40

// A key lets somebody in.
type key struct{ name, secret string }

// home is the fleet that the tests share: three backends, Nginx, Redis and one PostgreSQL.
func home(t testing.TB) *house {
	t.Helper()
	sharedChromium.Of(t, startChromium) // which is missing more often than the rest
	return sharedHouse.Of(t, func() (*house, error) {
		return startHouse(t, fleet.Options{Archive: 1, Env: []string{"COUNTRY_HEADER=CF-IPCountry"}})
	})
}

// startHouse starts a fleet with keys.
func startHouse(t testing.TB, o fleet.Options) (_ *house, err error) {
	t.Helper()
	h := &house{taken: make(map[string]int)}
	if h.dir, err = os.MkdirTemp("", "snowlink-browser-"); err != nil {
		return nil, err
	}
	var lines strings.Builder
	for scopes, name := range names {
		for n := range keysOf {
			k := nth(name, n)
			fmt.Fprintf(&lines, "%s sha256:%x scopes=%s\n", k.name, sha256.Sum256([]byte(k.secret)), scopes)
		}
	}
	file := filepath.Join(h.dir, "keys")
	if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
		return nil, err
	}
	o.Env = append(o.Env, "API_KEYS_FILE="+file)
	o.Binary = fleettest.Binary(t, "snowlink/server")
	h.Fleet, err = fleet.Start(context.Background(), o)
	if err != nil {
		h.Fleet = nil
		h.Stop()
		return nil, err
	}
	return h, nil
}

// ownHouse starts a fleet with keys for one test.
func ownHouse(t testing.TB, o fleet.Options) *house {
	t.Helper()
	sharedChromium.Of(t, startChromium)
	return fleettest.Own(t, func() (*house, error) { return startHouse(t, o) })
}

// Stop ends the fleet.
func (h *house) Stop() {
	if h == nil {
		return
	}
	if h.Fleet != nil {
		if err := h.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	_ = os.RemoveAll(h.dir) // a temporary folder
}

func nth(name string, n int) key {
	name = fmt.Sprintf("%s-%d", name, n+1)
	return key{name, "secret-of-" + name}
}

// key returns a key that no other test has.
func (h *house) key(t testing.TB, scopes string) key {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.taken[scopes]
	if n == keysOf {
		t.Fatalf("all %d keys with %s are taken", keysOf, scopes)
	}
	h.taken[scopes]++
	return nth(names[scopes], n)
}

// api is a client for whoever has the key.
func (h *house) api(k key) *snow.Client { return &snow.Client{BaseURL: h.URL, APIKey: k.secret} }

// make makes a link.
func (h *house) make(t testing.TB, k key, l snow.NewLink) snow.Link {
	t.Helper()
	made, err := h.api(k).Create(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

const firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

// click follows the link, as a browser with these headers does: "Referer: https://example.org/".
func (h *house) click(t testing.TB, code, userAgent string, headers ...string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), "GET", h.URL+"/"+code, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("User-Agent", userAgent)
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusFound {
		t.Fatalf("GET %s: %s", code, resp.Status)
	}
}

// get asks for a URL with the key.
func (h *house) get(t testing.TB, k key, url, accept string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("API-Key", k.secret)
	request.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %s (%v)", url, resp.Status, body, err)
	}
	return string(body)
}
