package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

func TestLinks(t *testing.T) {
	var out strings.Builder
	err := run(t.Context(), []string{"links", "-n", "3000", "-connections", "200"}, &out, io.Discard)
	fleettest.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	if want := "3000 links resolve to their own target"; !strings.Contains(out.String(), want) {
		t.Errorf("no %q in\n%s", want, &out)
	}
}

// Load with a wrong key must fail loudly, not measure how fast 401 is answered.
func TestWrongKeyIsLoud(t *testing.T) {
	f, err := fleet.Start(t.Context(), fleet.Options{Backends: 1, NoNginx: true})
	fleettest.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	_, err = load{
		script: "create.lua", url: f.URL, threads: 1, connections: 2, duration: time.Second, env: []string{"API_KEY=wrong"},
	}.run(t.Context())
	fleettest.SkipMissing(t, err)
	if err == nil || !strings.Contains(err.Error(), "EVERY ANSWER WAS 401") {
		t.Errorf("wrk with a wrong key: %v", err)
	}
}

// mixed.lua cannot tell which request an answer is to. A redirect answered as a
// create must fail the run all the same.
func TestMixedCountsCreates(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusCreated)
	}))
	defer s.Close()
	_, err := load{
		script: "mixed.lua", url: s.URL, threads: 1, connections: 2, duration: time.Second, env: []string{"CODES=" + codesFile(t)},
	}.run(t.Context())
	fleettest.SkipMissing(t, err)
	if err == nil || !strings.Contains(err.Error(), "NOT ALL ANSWERS WERE RIGHT") {
		t.Errorf("wrk with redirects answered 201: %v", err)
	}
}

// cold.lua must ask for each of its codes once, for no others, and say when it has none left.
func TestColdAsksOnce(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]int{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.URL.Path]++
		mu.Unlock()
		w.WriteHeader(http.StatusFound)
	}))
	defer s.Close()
	_, err := load{
		script: "cold.lua", url: s.URL, threads: 2, connections: 2, duration: 10 * time.Second,
		env: []string{"CODES=" + codesFile(t), "FROM=10", "COUNT=80"},
	}.run(t.Context())
	fleettest.SkipMissing(t, err)
	if err == nil || !strings.Contains(err.Error(), "was asked for once") {
		t.Errorf("wrk without a code left: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	for path, n := range asked {
		if number, err := strconv.Atoi(path[1:]); err != nil || number < 110 || number >= 190 || n != 1 {
			t.Errorf("%s was asked for %d times", path, n)
		}
	}
	if len(asked) < 40 { // one thread may have been ahead
		t.Errorf("%d codes of 80 were asked for", len(asked))
	}
}

// codesFile holds the codes 100 to 199.
func codesFile(t *testing.T) string {
	var links []created
	for code := range 100 {
		links = append(links, created{code: strconv.Itoa(100 + code)})
	}
	name := filepath.Join(t.TempDir(), "codes.txt")
	if err := writeCodes(name, links); err != nil {
		t.Fatal(err)
	}
	return name
}

// The results committed in loadtest/results come from whole runs only.
func TestOnlyWholeRunsReplaceResults(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    output
		root bool
	}{{"whole", output{whole: true}, true}, {"part", output{}, false}} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			if _, err := tt.o.write(root, "bench.svg", "bench.svg.tmpl", newBars(nil)); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(root, "loadtest", "results", "bench.svg")); (err == nil) != tt.root {
				t.Errorf("bench.svg: %v", err)
			}
		})
	}
}

// A wrong value is refused before anything starts, by an error that names the flag.
func TestWrongFlags(t *testing.T) {
	for _, line := range []string{
		"fleet -backends 0", "links -n 0", "bench -rounds 0", "bench -duration 1500ms", "growth -links 10,", "growth -threads x",
		"eviction -pace 9", "bulk -links -1", "clicks -millions 0", "pgo -duration 0s",
	} {
		args := strings.Fields(line)
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "flag "+args[1]+":") {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestParseResultRefusesHalfAReport(t *testing.T) {
	const whole = "requests a second    1000\np50   1.5 ms\np99   2 ms\np99.9   3 ms\n" +
		"answers  10 x 201, 990 x 302\nunexpected answers   0\nfailed requests   1 (connect 1, read 0, write 0, timeout 0)\n"
	r, err := parseResult(whole)
	if err != nil {
		t.Fatal(err)
	}
	if r.PerSecond != 1000 || r.P50 != 1500*time.Microsecond || r.P99 != 2*time.Millisecond || r.P999 != 3*time.Millisecond ||
		r.answers[201] != 10 || r.total() != 1000 || r.unexpected != 0 || r.failed != 1 {
		t.Errorf("parsed %+v", r)
	}
	for line := range strings.Lines(whole) {
		if r, err := parseResult(strings.Replace(whole, line, "", 1)); err == nil {
			t.Errorf("without %q: %+v", line, r)
		}
	}
}
