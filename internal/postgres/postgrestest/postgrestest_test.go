package postgrestest_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/postgres/postgrestest"
)

// TestMain starts a server and waits to be killed, if the test that kills it asks for that.
func TestMain(m *testing.M) {
	if os.Getenv("POSTGRESTEST_WAIT") != "" {
		s, err := postgrestest.Start()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(s.Dir)
		select {}
	}
	os.Exit(m.Run())
}

func TestNothingIsLeftOfAKilledTest(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "POSTGRESTEST_WAIT=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	postgrestest.Own(t) // skips where PostgreSQL is not installed
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dir, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	dir = strings.TrimSpace(dir)
	pid, err := os.ReadFile(dir + "/pid")
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	fleettest.Eventually(t, 10*time.Second, "the server and its folder are gone", func() bool {
		_, folder := os.Stat(dir)
		_, server := os.Stat("/proc/" + strings.TrimSpace(string(pid)))
		return os.IsNotExist(folder) && os.IsNotExist(server)
	})
}

func TestSocket(t *testing.T) {
	s := postgrestest.Own(t)
	conn, err := pgx.Connect(t.Context(), s.SocketURL())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(t.Context())
}
