// Package postgrestest gives tests a real PostgreSQL. One server is started for the tests of a
// package, and each test makes databases of its own in it.
package postgrestest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

// Server is a running PostgreSQL in a temporary folder. It answers on the loopback and on a socket,
// asks for no password, and writes nothing to disk for good: it is as fast as it is forgetful. All
// methods may be called concurrently.
type Server struct {
	// Dir is its folder. It has the socket, the log in log, and the data in data.
	Dir string
	// Port is its TCP port on 127.0.0.1.
	Port int

	keeper *exec.Cmd
	hold   io.Closer // its end is the keeper's sign to stop
	mu     sync.Mutex
	made   int // databases
}

var shared struct {
	once   sync.Once
	server *Server
	err    error
}

// Main runs a package's tests and stops the server that they share. A package whose tests call
// [Shared] or [Databases] calls it from its TestMain.
func Main(m *testing.M) int {
	defer func() {
		if shared.server != nil {
			shared.server.Stop()
		}
	}()
	return m.Run()
}

// Shared returns the server that the tests of a package share. If PostgreSQL is not installed, the
// test is skipped with the program's name, or fails if CI=true.
func Shared(t testing.TB) *Server {
	t.Helper()
	shared.once.Do(func() { shared.server, shared.err = Start() })
	fleettest.SkipMissing(t, shared.err)
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}

// Own starts a server for one test, which may stop or freeze it. Otherwise it is as [Shared].
func Own(t testing.TB) *Server {
	t.Helper()
	s, err := Start()
	fleettest.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// Databases makes n empty databases in the shared server and returns their URLs. They are dropped
// when the test ends.
func Databases(t testing.TB, n int) []string {
	t.Helper()
	s := Shared(t)
	urls := make([]string, n)
	for i := range urls {
		urls[i] = s.Database(t)
	}
	return urls
}

// Database makes an empty database and returns its URL. It is dropped when the test ends, whoever is
// connected to it.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	s.mu.Lock()
	s.made++
	name := fmt.Sprintf("test%d", s.made)
	s.mu.Unlock()
	if err := s.exec("CREATE DATABASE " + name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.exec("DROP DATABASE " + name + " WITH (FORCE)") }) // the server may be stopped
	return s.url(name)
}

func (s *Server) url(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", s.Port, database)
}

// SocketURL is a URL of the database of every server, over the socket.
func (s *Server) SocketURL() string {
	return "postgres:///postgres?user=postgres&sslmode=disable&port=" + strconv.Itoa(s.Port) + "&host=" + url.QueryEscape(s.Dir)
}

func (s *Server) exec(sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

// keep runs the server until its standard input ends, which it does when whoever started it stops or
// dies in whatever way, and then removes the folder. QUIT stops a PostgreSQL at once.
const keep = `dir=$1; shift
"$@" >"$dir/log" 2>&1 </dev/null & server=$!
echo $server >"$dir/pid"
cat >/dev/null
kill -CONT $server; kill -QUIT $server; wait $server
rm -rf "$dir"`

// Start starts a server. PostgreSQL does not run as root: then it is user postgres. The error is a
// [*fleet.MissingError] when PostgreSQL is not installed.
func Start() (*Server, error) {
	installed, err := fleet.FindPostgreSQL()
	if err != nil {
		return nil, err
	}
	s := &Server{}
	if s.Dir, err = os.MkdirTemp("", "snowlink-postgres-"); err != nil {
		return nil, err
	}
	ready := false
	defer func() {
		if !ready {
			s.Stop()
			_ = os.RemoveAll(s.Dir) // also what was there before the keeper
		}
	}()
	if err := installed.Mkdir(s.Dir); err != nil {
		return nil, err
	}
	if err := installed.Init(context.Background(), filepath.Join(s.Dir, "data")); err != nil {
		return nil, err
	}
	if s.Port, err = freePort(); err != nil {
		return nil, err
	}
	args := []string{"-c", keep, "keep", s.Dir, filepath.Join(installed.Bin, "postgres"), "-D", filepath.Join(s.Dir, "data")}
	for _, setting := range []string{
		"port=" + strconv.Itoa(s.Port), "listen_addresses=127.0.0.1", "unix_socket_directories=" + s.Dir,
		"fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=300",
	} {
		args = append(args, "-c", setting)
	}
	s.keeper = exec.Command("/bin/sh", args...)
	s.keeper.Dir, s.keeper.SysProcAttr = s.Dir, &syscall.SysProcAttr{Credential: installed.User, Setpgid: true}
	if s.hold, err = s.keeper.StdinPipe(); err != nil {
		return nil, err
	}
	if err := s.keeper.Start(); err != nil {
		s.keeper = nil
		return nil, err
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err = s.exec("SELECT 1"); err == nil {
			ready = true
			return s, nil
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(s.Dir, "log"))
			return nil, fmt.Errorf("PostgreSQL is not ready: %w\n%s", err, log)
		}
	}
}

// Stop ends the server at once, as a crash would, and removes its folder. A second Stop does nothing.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keeper != nil {
		_ = s.hold.Close()
		_ = s.keeper.Wait() // its status is that of rm
		s.keeper = nil
	}
}

// Signal sends a signal to the server and to all of its processes, as SIGSTOP and SIGCONT.
func (s *Server) Signal(sig syscall.Signal) error {
	text, err := os.ReadFile(filepath.Join(s.Dir, "pid"))
	if err != nil {
		return err
	}
	server, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", server, server))
	if err != nil {
		return err
	}
	err = syscall.Kill(server, sig)
	for _, child := range strings.Fields(string(children)) {
		if pid, e := strconv.Atoi(child); e == nil {
			_ = syscall.Kill(pid, sig) // it may have ended
		}
	}
	return err
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
