// Package fleettest starts fleets for tests: they end with the test, show their
// logs when it fails, and share what has to be built.
package fleettest

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"

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
