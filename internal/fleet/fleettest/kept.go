package fleettest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Kept is a program in a folder of its own. Both are gone once whoever started it has stopped it, or
// has died in whatever way. All methods may be called concurrently.
type Kept struct {
	// Dir is the folder. It has what the program prints in log.
	Dir string

	keeper *exec.Cmd
	hold   io.WriteCloser // a line starts the program again; its end is the keeper's sign to stop
	mu     sync.Mutex
}

// keep runs the program, again after each line that it reads, until its standard input ends. That
// happens when whoever started it stops or dies. Then it removes the folder.
const keep = `dir=$1 last=$2; shift 2
start() { "$@" >>"$dir/log" 2>&1 </dev/null & program=$!; echo $program >"$dir/pid"; }
start "$@"
while read -r line; do wait $program; start "$@"; done
kill -CONT $program; kill -$last $program; wait $program
rm -rf "$dir"`

// Keep starts a program in a folder, as a user, or as our own if that is nil. last is the signal that
// ends it.
func Keep(dir string, last syscall.Signal, user *syscall.Credential, program ...string) (*Kept, error) {
	k := &Kept{Dir: dir, keeper: exec.Command("/bin/sh", append([]string{"-c", keep, "keep", dir, strconv.Itoa(int(last))}, program...)...)}
	k.keeper.Dir, k.keeper.SysProcAttr = dir, &syscall.SysProcAttr{Credential: user, Setpgid: true}
	var err error
	if k.hold, err = k.keeper.StdinPipe(); err != nil {
		return nil, err
	}
	if err := k.keeper.Start(); err != nil {
		return nil, err
	}
	return k, nil
}

// Stop ends the program at once, as a crash would, and removes its folder. A second Stop does nothing,
// and neither does one of nil.
func (k *Kept) Stop() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keeper != nil {
		_ = k.hold.Close()
		_ = k.keeper.Wait() // its status is that of rm
		k.keeper = nil
	}
}

// StartAgain starts the program once it has ended.
func (k *Kept) StartAgain() error {
	_, err := io.WriteString(k.hold, "\n")
	return err
}

// PID returns the process ID of the program.
func (k *Kept) PID() (int, error) {
	text, err := os.ReadFile(filepath.Join(k.Dir, "pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// Log returns what the program has printed.
func (k *Kept) Log() string {
	log, _ := os.ReadFile(filepath.Join(k.Dir, "log")) // nothing if it cannot be read
	return strings.TrimSpace(string(log))
}

// FreePorts returns ports of 127.0.0.1 that nobody listens on.
func FreePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // only when all are found, so that they differ
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// A Server is a program that tests start and stop.
type Server interface{ Stop() }

// Shared is a server that the tests of a package share. The zero value has none yet.
type Shared[S Server] struct {
	once   sync.Once
	server S
	err    error
}

// Of returns the server. The first call starts it. If a program is not installed, the test is skipped
// with the program's name, or fails if CI=true.
func (s *Shared[S]) Of(t testing.TB, start func() (S, error)) S {
	t.Helper()
	s.once.Do(func() { s.server, s.err = start() })
	SkipMissing(t, s.err)
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.server
}

// Main runs a package's tests and stops the server.
func (s *Shared[S]) Main(m *testing.M) int {
	defer s.Stop()
	return m.Run()
}

// Stop stops the server, once all tests are done. S is a pointer that may be stopped if it is nil.
func (s *Shared[S]) Stop() { s.server.Stop() }

// Own starts a server for one test. Otherwise it is as [Shared.Of].
func Own[S Server](t testing.TB, start func() (S, error)) S {
	t.Helper()
	s, err := start()
	SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// waitToBeKilled is set for a process that [NothingIsLeft] starts.
const waitToBeKilled = "FLEETTEST_WAIT_TO_BE_KILLED"

// WaitToBeKilled starts a server, which is kept in the folder that start returns, and waits, if
// NothingIsLeft asks for that. A package whose tests call that calls it from its TestMain.
func WaitToBeKilled(start func() (dir string, err error)) {
	if os.Getenv(waitToBeKilled) == "" {
		return
	}
	dir, err := start()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(dir)
	select {}
}

// NothingIsLeft fails the test if something is left of a server whose test was killed.
func NothingIsLeft(t *testing.T) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), waitToBeKilled+"=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	dir, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	server := Kept{Dir: strings.TrimSpace(dir)}
	pid, err := server.PID()
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	Eventually(t, 10*time.Second, "the server and its folder are gone", func() bool {
		_, folder := os.Stat(server.Dir)
		_, process := os.Stat(fmt.Sprintf("/proc/%d", pid))
		return os.IsNotExist(folder) && os.IsNotExist(process)
	})
}
