// Package fleettest starts fleets for tests: they end with the test, show their logs when it fails,
// and share what has to be built. It also has the helpers that tests of running programs share.
package fleettest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"snowlink/internal/fleet"
	"snowlink/internal/redisconn"
)

// Start starts a fleet for the length of a test. If a program that it needs is not installed, the
// test is skipped with the program's name, or fails if CI=true.
func Start(t testing.TB, o fleet.Options) *fleet.Fleet {
	t.Helper()
	if o.Binary == "" && !o.NoBackends && len(o.Upstreams) == 0 {
		o.Binary = Binary(t, "snowlink/server")
	}
	if o.Archive > 0 && o.ArchiveData == "" {
		o.ArchiveData = postgresData(t)
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

// SkipMissing skips the test if err says that a program is not installed. With CI=true it does
// nothing, and the test fails by err.
func SkipMissing(t testing.TB, err error) {
	t.Helper()
	if missing, ok := errors.AsType[*fleet.MissingError](err); ok && os.Getenv("CI") != "true" {
		t.Skip(missing)
	}
}

// Redis starts a redis-server alone, with extra lines of configuration, as "maxmemory 64mb".
func Redis(t testing.TB, config ...string) *fleet.Redis {
	t.Helper()
	return Start(t, fleet.Options{NoBackends: true, NoNginx: true, RedisConfig: config}).Redis
}

// Proxy starts a proxy before addr and returns its address. It runs until the test ends. What
// clients send goes to pass, piece by piece as it comes. Only what pass hands to send reaches addr.
// Answers go back as they are.
func Proxy(t testing.TB, addr string, pass func(piece []byte, send func([]byte))) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", addr)
			if err != nil {
				from.Close()
				continue
			}
			go func() {
				defer to.Close()
				buffer := make([]byte, 64<<10)
				for {
					n, err := from.Read(buffer)
					if err != nil {
						return
					}
					pass(buffer[:n], func(b []byte) { _, _ = to.Write(b) }) // a lost connection shows at the reader
				}
			}()
			go func() {
				defer from.Close()
				_, _ = io.Copy(from, to)
			}()
		}
	}()
	return l.Addr().String()
}

// FullBefore returns a pass for Proxy. It makes the Redis at addr full, so that it takes nothing
// new. It does that once: right before the first command of that name reaches Redis, and after
// ready is true.
func FullBefore(t testing.TB, addr, command string, ready func() bool) func([]byte, func([]byte)) {
	admin := RedisClient(t, addr)
	var once sync.Once
	return func(piece []byte, send func([]byte)) {
		name := bytes.Index(piece, []byte("\r\n"+command+"\r\n"))
		if name < 0 {
			send(piece)
			return
		}
		begin := bytes.LastIndexByte(piece[:name], '*')
		send(piece[:begin])
		once.Do(func() {
			for deadline := time.Now().Add(time.Second); !ready() && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			err := errors.Join(admin.ConfigSet(context.Background(), "maxmemory-policy", "noeviction").Err(),
				admin.ConfigSet(context.Background(), "maxmemory", "1").Err())
			if err != nil {
				t.Error(err)
			}
		})
		send(piece[begin:])
	}
}

// RedisClient makes a client of the Redis at an address. It is closed when the test ends.
func RedisClient(t testing.TB, addr string) *redis.Client {
	t.Helper()
	client := (&fleet.Redis{Addr: addr}).Client()
	t.Cleanup(func() { client.Close() })
	return client
}

// Background runs f until the test ends or stop is called. stop returns what f returned.
func Background(t testing.TB, f func(context.Context) error) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stop = func() error { cancel(); err := <-done; done <- err; return err }
	t.Cleanup(func() { _ = stop() })
	return stop
}

// Conn makes connections to the Redis at a URL. They are closed when the test ends.
func Conn(t testing.TB, redisURL string, log *slog.Logger) *redisconn.Conn {
	t.Helper()
	conn, err := redisconn.Open(redisURL, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// Metric is [fleet.Backend.Metric]. If that fails, so does the test.
func Metric(t testing.TB, b *fleet.Backend, series string) float64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	n, err := b.Metric(ctx, series)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Eventually waits until ok returns true. If that takes too long, the test fails and says what it
// waited for.
func Eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// Output keeps what a program prints. All methods may be called concurrently.
type Output struct {
	mu   sync.Mutex
	said bytes.Buffer
}

// Write keeps p. It never fails.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.said.Write(p)
}

// String returns everything printed so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.said.String()
}

var (
	mu    sync.Mutex
	dir   string            // of what was built
	built map[string]string // by package
	data  string            // of an empty PostgreSQL
)

// Main runs a package's tests and removes what they built. A package whose tests start backends
// calls it from its TestMain.
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
	makeDir(t)
	var err error
	if built[pkg], err = fleet.Build(context.Background(), dir, pkg); err != nil {
		t.Fatal(err)
	}
	return built[pkg]
}

// postgresData makes the data of an empty PostgreSQL, once per test process.
func postgresData(t testing.TB) string {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	if data != "" {
		return data
	}
	installed, err := fleet.FindPostgreSQL()
	SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	makeDir(t)
	empty := filepath.Join(dir, "postgres")
	if err := errors.Join(installed.Mkdir(empty), installed.Init(context.Background(), empty)); err != nil {
		t.Fatal(err)
	}
	data = empty
	return data
}

func makeDir(t testing.TB) {
	t.Helper()
	if dir != "" {
		return
	}
	var err error
	if dir, err = os.MkdirTemp("", "snowlink-test-"); err == nil {
		built = map[string]string{}
		err = os.Chmod(dir, 0o711) // PostgreSQL may be another user
	}
	if err != nil {
		t.Fatal(err)
	}
}
