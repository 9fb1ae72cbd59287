package httpapi_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"snowlink/internal/apikey"
	"snowlink/internal/fleet/fleettest"
)

// keyLine returns a line of a keys file.
func keyLine(name, secret, rest string) string {
	return fmt.Sprintf("%s sha256:%x %s\n", name, sha256.Sum256([]byte(secret)), rest)
}

func parseKeys(t testing.TB, lines ...string) []apikey.Key {
	t.Helper()
	keys, err := apikey.ParseFile(strings.Join(lines, ""))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

const anyBody = `{"url":"https://example.com/"}`

func (b *backend) createAs(secret string) answer {
	return b.do("POST", "/generate_url", anyBody, "API-Key: "+secret)
}

func TestScopes(t *testing.T) {
	b := newBackend(t)
	b.keys.SetNamed(parseKeys(t,
		keyLine("maker", "makes", "scopes=create"),
		keyLine("shop", "old", "scopes=create,read"),
		keyLine("shop", "new", "scopes=create,manage,read"),
		keyLine("reader", "reads", "scopes=read"),
		keyLine("keeper", "manages", "scopes=read,manage"),
		keyLine("narrowed", "another-key", "scopes=read"),
	))
	for _, tt := range []struct {
		name, secret string
		status       int
	}{
		{"API_KEY has all scopes", key, 201},
		{"just the scope", "makes", 201},
		{"one of several", "old", 201},
		{"another of the same name", "new", 201},
		{"another scope", "reads", 403},
		{"all but this scope", "manages", 403},
		{"the file narrows a key of API_KEY", "another-key", 403},
		{"a name is no key", "maker", 401},
		{"a digest is no key", fmt.Sprintf("%x", sha256.Sum256([]byte("makes"))), 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := b.createAs(tt.secret)
			switch tt.status {
			case 201:
				wantCreated(t, a)
			case 401:
				wantProblem(t, a, 401, "unauthorized")
			case 403:
				if detail := wantProblem(t, a, 403, "forbidden"); !strings.Contains(detail, "the scope create.") {
					t.Errorf("the detail does not name the scope that is missing: %q", detail)
				}
			}
		})
	}
}

func TestKeysAreReplacedWhileServed(t *testing.T) {
	b := newBackend(t)
	stays, goes := keyLine("stays", "stays", "scopes=create"), keyLine("goes", "goes", "scopes=create")
	with, without := parseKeys(t, goes, stays), parseKeys(t, stays)
	b.keys.SetNamed(with)
	wantCreated(t, b.createAs("goes"))

	stop := make(chan struct{})
	var replacing sync.WaitGroup
	replacing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				b.keys.SetNamed(without)
				b.keys.SetNamed(with)
			}
		}
	})
	for range 200 {
		wantCreated(t, b.createAs("stays"))
		wantCreated(t, b.createAs(key))
	}
	close(stop)
	replacing.Wait()

	b.keys.SetNamed(without)
	wantProblem(t, b.createAs("goes"), 401, "unauthorized")
	b.keys.SetNamed(nil)
	wantProblem(t, b.createAs("stays"), 401, "unauthorized")
	wantCreated(t, b.createAs(key))
}

func TestRate(t *testing.T) {
	b := newBackend(t)
	b.keys.SetNamed(parseKeys(t,
		keyLine("shop", "old", "scopes=create rate=3/h"),
		keyLine("shop", "new", "scopes=create rate=3/h"),
		keyLine("other", "other", "scopes=create rate=3/h"),
		keyLine("reader", "reads", "scopes=read rate=1/h"),
		keyLine("fast", "fast", "scopes=create rate=1/s"),
		keyLine("free", "free", "scopes=create"),
	))
	// Keys of one name share its rate, and a request that is wrong counts too.
	wantCreated(t, b.createAs("old"))
	wantCreated(t, b.createAs("new"))
	wantProblem(t, b.do("POST", "/generate_url", "{}", "API-Key: new"), 400, "invalid_url")
	for _, secret := range []string{"old", "new", "old"} {
		a := b.createAs(secret)
		if detail := wantProblem(t, a, 429, "rate_limited"); !strings.Contains(detail, "3/h") {
			t.Errorf("the detail does not say the rate: %q", detail)
		}
		// One of three an hour comes back every 20 minutes.
		if seconds, err := strconv.Atoi(string(a.header.Peek("Retry-After"))); err != nil || seconds > 1200 || seconds < 1100 {
			t.Errorf("Retry-After = %q, want at most 1200 seconds and nearly that", a.header.Peek("Retry-After"))
		}
	}
	wantCreated(t, b.createAs("other"))
	for range 5 {
		wantCreated(t, b.createAs("free"))
		wantCreated(t, b.createAs(key))
		wantProblem(t, b.createAs("reads"), 403, "forbidden")
	}

	// A client that waits as long as it is told is served. On a busy machine another second may
	// pass, so there are several tries.
	for deadline := time.Now().Add(20 * time.Second); ; {
		if a := b.createAs("fast"); a.status == 429 {
			seconds, err := strconv.Atoi(string(a.header.Peek("Retry-After")))
			if err != nil || seconds != 1 {
				t.Fatalf("Retry-After = %q, want 1", a.header.Peek("Retry-After"))
			}
			time.Sleep(time.Duration(seconds) * time.Second)
			wantCreated(t, b.createAs("fast"))
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("never refused")
		}
	}
}

func TestRateWithoutRedisIs503(t *testing.T) {
	b := newBackend(t)
	b.keys.SetNamed(parseKeys(t, keyLine("shop", "shop", "scopes=create rate=1000000/s")))
	wantCreated(t, b.createAs("shop"))
	if err := b.redis.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, b.createAs("shop"), 503, "unavailable")
	wantProblem(t, b.createAs(key), 503, "unavailable")
	if err := b.redis.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	fleettest.Eventually(t, 20*time.Second, "the key is served again", func() bool { return b.createAs("shop").status == 201 })
}

// A full Redis cannot count requests. The key is not locked out for that: the create itself reports
// it.
func TestRateWhileRedisIsFull(t *testing.T) {
	b := newBackend(t)
	b.keys.SetNamed(parseKeys(t, keyLine("shop", "shop", "scopes=create rate=1000000/s")))
	b.fill()
	wantProblem(t, b.createAs("shop"), 507, "storage_full")
}

// The digest of an empty secret, which no file should have, would let everybody in.
func TestNoSecretIsNoKey(t *testing.T) {
	b := newBackend(t)
	b.keys.SetNamed([]apikey.Key{{Name: "all", Digest: sha256.Sum256(nil), Scopes: apikey.ScopeCreate}})
	for _, headers := range [][]string{nil, {"API-Key: "}, {"X-API-Key: "}, {"Authorization: Bearer "}, {"Authorization: Basic YTpi"}} {
		wantProblem(t, b.do("POST", "/generate_url", anyBody, headers...), 401, "unauthorized")
	}
}
