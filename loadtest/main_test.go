package main

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"snowlink/loadtest/fleet"
)

// skipMissing skips where a program is missing, but not in CI.
func skipMissing(t *testing.T, err error) {
	t.Helper()
	if missing, ok := errors.AsType[*fleet.MissingError](err); ok && os.Getenv("CI") != "true" {
		t.Skip(missing)
	}
}

func TestLinks(t *testing.T) {
	var out strings.Builder
	err := run(t.Context(), []string{"links", "-n", "3000", "-connections", "200"}, &out, io.Discard)
	skipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	if want := "3000 links resolve to their own target"; !strings.Contains(out.String(), want) {
		t.Errorf("no %q in\n%s", want, &out)
	}
}

// Load with a wrong key must fail loudly, not measure how fast 401 is said.
func TestWrongKeyIsLoud(t *testing.T) {
	f, err := fleet.Start(t.Context(), fleet.Options{Backends: 1, NoNginx: true})
	skipMissing(t, err)
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
	skipMissing(t, err)
	if err == nil || !strings.Contains(err.Error(), "EVERY ANSWER WAS 401") {
		t.Errorf("wrk with a wrong key: %v", err)
	}
}

func TestParseResultRefusesHalfAReport(t *testing.T) {
	const whole = "requests a second    1000\np50   1.5 ms\np99   2 ms\np99.9   3 ms\n" +
		"answers  10 x 201, 990 x 302\nunexpected answers   0\nfailed requests   1 (connect 1, read 0, write 0, timeout 0)\n"
	r, err := parseResult(whole)
	if err != nil {
		t.Fatal(err)
	}
	if r.PerSecond != 1000 || r.P50 != 1500*time.Microsecond || r.P99 != 2*time.Millisecond ||
		r.answers[201] != 10 || r.total() != 1000 || r.unexpected != 0 || r.failed != 1 {
		t.Errorf("parsed %+v", r)
	}
	for line := range strings.Lines(whole) {
		if strings.HasPrefix(line, "p99.9") {
			continue // for people
		}
		if r, err := parseResult(strings.Replace(whole, line, "", 1)); err == nil {
			t.Errorf("without %q: %+v", line, r)
		}
	}
}
