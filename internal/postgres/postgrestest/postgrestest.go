// Package postgrestest gives tests a real PostgreSQL. One server is started for the tests of a
// package, and each test makes databases of its own in it.
package postgrestest

import (
	"context"
	"fmt"
	"net/url"
	"os"
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
	// Its folder has the socket, the log in log, and the data in data.
	*fleettest.Kept
	// Port is its TCP port on 127.0.0.1.
	Port int

	mu   sync.Mutex
	made int // databases
}

var shared fleettest.Shared[*Server]

// Main runs a package's tests and stops the server that they share. A package whose tests call
// [Shared] or [Databases] calls it from its TestMain.
func Main(m *testing.M) int { return shared.Main(m) }

// Shared returns the server that the tests of a package share. If PostgreSQL is not installed, the
// test is skipped with the program's name, or fails if CI=true.
func Shared(t testing.TB) *Server {
	t.Helper()
	return shared.Of(t, Start)
}

// Own starts a server for one test, which may stop or freeze it. Otherwise it is as [Shared].
func Own(t testing.TB) *Server {
	t.Helper()
	return fleettest.Own(t, Start)
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

// Start starts a server. PostgreSQL does not run as root: then it is user postgres. The error is a
// [*fleet.MissingError] when PostgreSQL is not installed.
func Start() (*Server, error) {
	installed, err := fleet.FindPostgreSQL()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "snowlink-postgres-")
	if err != nil {
		return nil, err
	}
	s, ready := &Server{}, false
	defer func() {
		if !ready {
			s.Stop()
			_ = os.RemoveAll(dir) // also what was there before the keeper
		}
	}()
	if err := installed.Mkdir(dir); err != nil {
		return nil, err
	}
	if err := installed.Init(context.Background(), filepath.Join(dir, "data")); err != nil {
		return nil, err
	}
	ports, err := fleettest.FreePorts(1)
	if err != nil {
		return nil, err
	}
	s.Port = ports[0]
	program := []string{filepath.Join(installed.Bin, "postgres"), "-D", filepath.Join(dir, "data")}
	for _, setting := range []string{
		"port=" + strconv.Itoa(s.Port), "listen_addresses=127.0.0.1", "unix_socket_directories=" + dir,
		"fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=300",
	} {
		program = append(program, "-c", setting)
	}
	// SIGQUIT stops a PostgreSQL at once.
	if s.Kept, err = fleettest.Keep(dir, syscall.SIGQUIT, installed.User, program...); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err = s.exec("SELECT 1"); err == nil {
			ready = true
			return s, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("PostgreSQL is not ready: %w\n%s", err, s.Log())
		}
	}
}

// Stop ends the server at once, as a crash would, and removes its folder. A second Stop does nothing.
func (s *Server) Stop() {
	if s != nil {
		s.Kept.Stop()
	}
}

// Signal sends a signal to the server and to all of its processes, as SIGSTOP and SIGCONT.
func (s *Server) Signal(sig syscall.Signal) error {
	server, err := s.PID()
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
