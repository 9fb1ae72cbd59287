// Package fleettest starts fleets for tests: they end with the test, show their
// logs when it fails, and share what has to be built. It has what else the tests of
// running programs share, too.
package fleettest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"snowlink/loadtest/fleet"
)

// Start starts a fleet for the length of a test. Where a program it needs is
// missing, the test is skipped with the program's name, or fails if CI=true.
func Start(t testing.TB, o fleet.Options) *fleet.Fleet {
	t.Helper()
	if o.Binary == "" && !o.NoBackends && len(o.Upstreams) == 0 {
		o.Binary = Binary(t, "snowlink/server")
	}
	f, err := fleet.Start(context.Background(), o)
	SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(f.Logs(20))
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// SkipMissing skips the test where err says that a program is missing, and with
// CI=true does not: the test then fails by err.
func SkipMissing(t testing.TB, err error) {
	t.Helper()
	if missing, ok := errors.AsType[*fleet.MissingError](err); ok && os.Getenv("CI") != "true" {
		t.Skip(missing)
	}
}

// Redis starts a redis-server alone. More lines of configuration may be given,
// as "maxmemory 64mb".
func Redis(t testing.TB, config ...string) *fleet.Redis {
	t.Helper()
	return Start(t, fleet.Options{NoBackends: true, NoNginx: true, RedisConfig: config}).Redis
}

// Eventually waits until ok is true. The test fails, with what that would have been,
// if it is not within a time.
func Eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// Output is what a program says. It may be read meanwhile; all methods may be called
// concurrently.
type Output struct {
	mu   sync.Mutex
	said bytes.Buffer
}

// Write takes note of what the program says. It never fails.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.said.Write(p)
}

// String is all of it so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.said.String()
}

var (
	mu    sync.Mutex
	dir   string            // of what was built
	built map[string]string // by package
)

// Main runs a package's tests and removes what they built. A package whose tests
// start backends calls it from its TestMain.
func Main(m *testing.M) int {
	defer func() { _ = os.RemoveAll(dir) }()
	return m.Run()
}

// Binary builds a program of this module, once per test process.
func Binary(t testing.TB, pkg string) string {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	if built[pkg] != "" {
		return built[pkg]
	}
	var err error
	if dir == "" {
		built = map[string]string{}
		if dir, err = os.MkdirTemp("", "snowlink-test-"); err != nil {
			t.Fatal(err)
		}
	}
	if built[pkg], err = fleet.Build(context.Background(), dir, pkg); err != nil {
		t.Fatal(err)
	}
	return built[pkg]
}
