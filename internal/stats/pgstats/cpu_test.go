package pgstats_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"snowlink/internal/postgres/postgrestest"
)

// cpu returns how long this process, and the tests' PostgreSQL, have used a processor. On a machine that
// others use, it says more than a clock.
func cpu(t testing.TB) (self, server time.Duration) {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	self = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	text, err := os.ReadFile(filepath.Join(postgrestest.Shared(t).Dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(string(text))
	children, err := os.ReadFile(fmt.Sprintf("/proc/%s/task/%s/children", pid, pid))
	if err != nil {
		t.Fatal(err)
	}
	for i, pid := range append([]string{pid}, strings.Fields(string(children))...) {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			continue // it has ended, and is in the time of the first one's children
		}
		_, after, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(after) // the first is the third of proc(5): utime is the 14th
		last := 13
		if i == 0 {
			last = 15 // with those that have ended
		}
		for _, f := range fields[11:last] {
			ticks, _ := strconv.Atoi(f)
			server += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return self, server
}
