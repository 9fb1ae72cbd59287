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

	"snowlink/internal/httpapi"
)

// keyLine is a line of a keys file.
func keyLine(name, secret, rest string) string {
	return fmt.Sprintf("%s sha256:%x %s\n", name, sha256.Sum256([]byte(secret)), rest)
}

func parseKeys(t testing.TB, lines ...string) []httpapi.Key {
	t.Helper()
	keys, err := httpapi.ParseKeys(strings.Join(lines, ""))
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

	// Whoever waits as long as told is served. A second may pass unnoticed on a
	// busy machine, hence several tries.
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
	for deadline := time.Now().Add(20 * time.Second); b.createAs("shop").status != 201; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never served again")
		}
	}
}

// A full Redis cannot count: that is for the create itself to say, and no reason
// to lock a key out.
func TestRateWhileRedisIsFull(t *testing.T) {
	b := newBackend(t)
	b.keys.SetNamed(parseKeys(t, keyLine("shop", "shop", "scopes=create rate=1000000/s")))
	b.fill()
	wantProblem(t, b.createAs("shop"), 507, "storage_full")
}

// A key that no file should have, and that would let everybody in.
func TestNoSecretIsNoKey(t *testing.T) {
	b := newBackend(t)
	b.keys.SetNamed([]httpapi.Key{{Name: "all", Digest: sha256.Sum256(nil), Scopes: httpapi.ScopeCreate}})
	for _, headers := range [][]string{nil, {"API-Key: "}, {"X-API-Key: "}, {"Authorization: Bearer "}, {"Authorization: Basic YTpi"}} {
		wantProblem(t, b.do("POST", "/generate_url", anyBody, headers...), 401, "unauthorized")
	}
}

func TestParseKeys(t *testing.T) {
	digest := strings.Repeat("0f", 32)
	good := "shop sha256:" + digest + " scopes=create"
	for _, tt := range []struct {
		name, text string
		want       []string // as lines; nothing for an error
		rule       string   // in the error
	}{
		{"nothing", "", nil, ""},
		{"comments and blank lines", "# keys\n\n \t\n  # more\n", nil, ""},
		{"one", good, []string{good}, ""},
		{"spaces, a comment, CRLF", "\t" + strings.ReplaceAll(good, " ", " \t ") + " # the shop\r\n", []string{good}, ""},
		{"rate, in any order", "shop sha256:" + digest + " rate=100/m scopes=read,create", []string{"shop sha256:" + digest + " scopes=create,read rate=100/m"}, ""},
		{"an upper-case digest", strings.Replace(good, digest, strings.ToUpper(digest), 1), []string{good}, ""},
		{"every scope, hours", good + ",manage,read rate=1000000/h", []string{good + ",manage,read rate=1000000/h"}, ""},
		{"a new secret for a name", good + "\n" + strings.Replace(good, "0f", "f0", 1), []string{good, strings.Replace(good, "0f", "f0", 1)}, ""},

		{"no digest", "shop scopes=create rate=1/s", nil, "line 1: after the name comes sha256:"},
		{"no scopes", "shop sha256:" + digest, nil, "line 1: a key is: NAME"},
		{"a rate in place of scopes", "shop sha256:" + digest + " rate=1/s", nil, "line 1: a key is: NAME"},
		{"too much", good + " rate=1/s more", nil, "line 1: a key is: NAME"},
		{"an unknown field", good + " speed=1/s", nil, "line 1: a key is: NAME"},
		{"scopes twice", good + " scopes=read", nil, "line 1: a key is: NAME"},
		{"a name with a brace", "sh{op}" + good, nil, "line 1: a name has"},
		{"a long name", strings.Repeat("a", 61) + good, nil, "line 1: a name has"},
		{"a secret for a digest", strings.Replace(good, "sha256:"+digest, "hidden", 1), nil, "line 1: after the name"},
		{"a short digest", strings.Replace(good, digest, digest[2:], 1), nil, "64 hexadecimal"},
		{"a long digest", strings.Replace(good, digest, digest+"00", 1), nil, "64 hexadecimal"},
		{"the digest of nothing", fmt.Sprintf("shop sha256:%x scopes=create", sha256.Sum256(nil)), nil, "line 1: this is the digest of an empty secret"},
		{"no hexadecimal", strings.Replace(good, "0f", "0g", 1), nil, "64 hexadecimal"},
		{"another hash", strings.Replace(good, "sha256", "sha512", 1), nil, "64 hexadecimal"},
		{"an unknown scope", good + ",all", nil, "scopes= takes"},
		{"no scope", strings.TrimSuffix(good, "create"), nil, "scopes= takes"},
		{"rate of zero", good + " rate=0/s", nil, "rate= takes"},
		{"rate above the most", good + " rate=1000001/s", nil, "rate= takes"},
		{"rate by the day", good + " rate=1/d", nil, "rate= takes"},
		{"rate without a unit", good + " rate=100", nil, "rate= takes"},
		{"negative rate", good + " rate=-1/s", nil, "rate= takes"},
		{"one secret for two names", good + "\n\nother" + good, nil, "line 3: this digest"},
		{"two rates for a name", good + "\n" + strings.Replace(good, "0f", "f0", 1) + " rate=1/s", nil, "line 2: this name has another rate"},
		{"two wrong lines", "x\n" + good + "\ny\n", nil, "line 3: a key is"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			keys, err := httpapi.ParseKeys(tt.text)
			if tt.rule != "" {
				if err == nil || !strings.Contains(err.Error(), tt.rule) || len(keys) > 0 {
					t.Fatalf("ParseKeys = %v, %v, want an error with %q", keys, err, tt.rule)
				}
				if strings.Contains(err.Error(), "hidden") {
					t.Errorf("the error shows a secret: %v", err)
				}
				return
			}
			var lines []string
			for _, k := range keys {
				lines = append(lines, k.String())
			}
			if err != nil || strings.Join(lines, "\n") != strings.Join(tt.want, "\n") {
				t.Errorf("ParseKeys = %q, %v, want %q", lines, err, tt.want)
			}
		})
	}
}

// FuzzParseKey: what is taken is written again as a line that means the same.
func FuzzParseKey(f *testing.F) {
	f.Add("shop sha256:" + strings.Repeat("0f", 32) + " scopes=create,read rate=100/s")
	f.Add("shop sha256: scopes= rate=")
	f.Fuzz(func(t *testing.T, line string) {
		key, err := httpapi.ParseKey(line)
		if err != nil {
			return
		}
		if again, err := httpapi.ParseKey(key.String()); err != nil || again != key {
			t.Errorf("%q is read as %q, and that as %v, %v", line, key, again, err)
		}
	})
}
