package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"snowlink/internal/fleet"
)

// A load is one run of wrk with one of our scripts.
type load struct {
	script      string // in loadtest/, as "create.lua"
	url         string
	threads     int
	connections int
	duration    time.Duration
	env         []string // what the script reads: API_KEY, CODES and so on
}

// A result is what the script printed at the end of a run.
type result struct {
	PerSecond      float64
	P50, P99, P999 time.Duration
	answers        map[int]int // by status
	unexpected     int         // answers with a status that cannot be right
	failed         int         // requests without an answer
}

// total returns how many requests were answered.
func (r result) total() int {
	var n int
	for _, count := range r.answers {
		n += count
	}
	return n
}

// run runs wrk to its end. If any answer was wrong or missing, that is an error: the figures would
// mean nothing.
func (l load) run(ctx context.Context) (result, error) {
	wrk, err := fleet.LookPath("wrk")
	if err != nil {
		return result{}, err
	}
	root, err := fleet.ModuleRoot(ctx)
	if err != nil {
		return result{}, err
	}
	cmd := exec.CommandContext(ctx, wrk,
		"-t", strconv.Itoa(l.threads), "-c", strconv.Itoa(l.connections), "-d", fmt.Sprintf("%.0fs", l.duration.Seconds()),
		"-s", filepath.Join(root, "loadtest", l.script), l.url)
	cmd.Env = append(append(os.Environ(), "THREADS="+strconv.Itoa(l.threads)), l.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no load without us
	out, err := cmd.CombinedOutput()
	if err != nil {
		return result{}, fmt.Errorf("wrk %s: %w\n%s", l.script, err, out)
	}
	r, err := parseResult(string(out))
	if err == nil && (r.total() == 0 || r.unexpected > 0 || r.failed > 0) {
		err = errors.New("not every request got a right answer")
	}
	if err != nil {
		return result{}, fmt.Errorf("wrk %s: %w\n%s", l.script, err, out)
	}
	return r, nil
}

var (
	resultLine  = regexp.MustCompile(`(?m)^(requests a second|p50|p99|p99\.9|unexpected answers|failed requests) +([0-9.]+)`)
	answersLine = regexp.MustCompile(`(?m)^answers +(.*)$`)
	answer      = regexp.MustCompile(`(\d+) x (\d+)`)
)

// parseResult reads what report.lua prints.
func parseResult(out string) (result, error) {
	value := map[string]float64{}
	for _, m := range resultLine.FindAllStringSubmatch(out, -1) {
		v, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return result{}, err
		}
		value[m[1]] = v
	}
	answers := answersLine.FindString(out)
	if len(value) != 6 || answers == "" {
		return result{}, fmt.Errorf("the report is incomplete: %v, %q", value, answers)
	}
	ms := func(name string) time.Duration { return time.Duration(value[name] * float64(time.Millisecond)) }
	r := result{
		PerSecond:  value["requests a second"],
		P50:        ms("p50"),
		P99:        ms("p99"),
		P999:       ms("p99.9"),
		unexpected: int(value["unexpected answers"]),
		failed:     int(value["failed requests"]),
		answers:    map[int]int{},
	}
	for _, m := range answer.FindAllStringSubmatch(answers, -1) {
		count, err1 := strconv.Atoi(m[1])
		status, err2 := strconv.Atoi(m[2])
		if err := errors.Join(err1, err2); err != nil {
			return result{}, err
		}
		r.answers[status] = count
	}
	return r, nil
}

// fill creates n links at url and returns them. It leaves them in the file too, for redirect.lua
// and mixed.lua.
func fill(ctx context.Context, f *fleet.Fleet, n, connections int, file string) ([]created, error) {
	r, err := load{
		script: "fill.lua", url: f.URL, threads: 1, connections: connections, duration: 2 * time.Minute,
		env: []string{"API_KEY=" + f.APIKey, "CODES=" + file, fmt.Sprintf("COUNT=%d", n)},
	}.run(ctx)
	if err != nil {
		return nil, err
	}
	if r.answers[201] != n {
		return nil, fmt.Errorf("%d links were acknowledged, not %d", r.answers[201], n)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var links []created
	for line := range strings.Lines(string(text)) {
		code, target, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		links = append(links, created{code, target})
	}
	return links, nil
}
