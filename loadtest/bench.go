package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"snowlink/loadtest/fleet"
)

// A scenario is one row of the results.
type scenario struct {
	Name        string
	Script      string
	Nginx       bool // through Nginx to three backends, or direct to one
	Connections int
}

var scenarios = []scenario{
	{Name: "create, direct", Script: "create.lua", Connections: 64},
	{Name: "redirect, direct", Script: "redirect.lua", Connections: 64},
	{Name: "mixed, direct", Script: "mixed.lua", Connections: 64},
	{Name: "create, Nginx", Script: "create.lua", Nginx: true, Connections: 64},
	{Name: "redirect, Nginx", Script: "redirect.lua", Nginx: true, Connections: 64},
	{Name: "mixed, Nginx", Script: "mixed.lua", Nginx: true, Connections: 64},
}

const (
	defaultDuration = 5 * time.Second
	warmUp          = time.Second // before the first round, not counted
)

// defaultThreads leaves most of the machine to what is measured.
func defaultThreads() int { return max(1, runtime.NumCPU()/4) }

// bench runs every scenario on a real fleet and on one whose backends are the
// constant-answer server, in turns, so that what the machine does meanwhile hits
// both alike.
type bench struct {
	duration    time.Duration
	rounds      int
	only        string
	connections int
	threads     int
	codes       int
	command     string // as typed, for the report
	progress    io.Writer

	real, limit *fleet.Fleet
	codesFile   string
	created     int // links that were acknowledged
	lost        int // most links that can be stored without our having seen the answer
}

// A row is what came out of a scenario: medians over its rounds.
type row struct {
	scenario
	Ratio            float64 // of the real fleet's throughput to the limit's, within a round
	Lowest, Greatest float64 // of the rounds' ratios
	Real, Limit      result
	CPU              cpu // of the real fleet
}

// cpu is processor time by program; for a row, microseconds a request.
type cpu struct{ Backends, Nginx, Redis float64 }

func (b *bench) run(ctx context.Context, stdout io.Writer) (err error) {
	if b.rounds < 1 || b.codes < 1 || b.threads < 1 || b.connections < 0 {
		return errors.New("-rounds, -codes and -threads take 1 or more")
	}
	if b.duration < time.Second || b.duration%time.Second != 0 {
		return errors.New("-duration takes whole seconds, for wrk does")
	}
	chosen := slices.DeleteFunc(slices.Clone(scenarios), func(s scenario) bool { return !strings.Contains(s.Name, b.only) })
	if len(chosen) == 0 {
		return fmt.Errorf("no scenario's name contains %q", b.only)
	}
	env, err := readEnvironment(ctx)
	if err != nil {
		return err
	}
	stop, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	links, err := fill(ctx, b.real, b.codes, 64, b.codesFile)
	if err != nil {
		return err
	}
	if err := errors.Join(distinct(links, b.codes), b.resolve(links)); err != nil {
		return err
	}
	b.created = b.codes

	var rows []row
	for _, s := range chosen {
		if b.connections > 0 {
			s.Connections = b.connections
		}
		r, err := b.measure(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		rows = append(rows, r)
	}
	if err := b.resolve(links); err != nil {
		return fmt.Errorf("after the runs: %w", err)
	}
	return b.report(env, rows, stdout)
}

// start starts both fleets. The idle one costs the other nothing.
func (b *bench) start(ctx context.Context) (stop func() error, err error) {
	dir, err := os.MkdirTemp("", "snowlink-bench-")
	if err != nil {
		return nil, err
	}
	stop = func() error {
		var errs []error
		for _, f := range []*fleet.Fleet{b.real, b.limit} {
			if f != nil {
				errs = append(errs, f.Close())
			}
		}
		return errors.Join(append(errs, os.RemoveAll(dir))...)
	}
	defer func() {
		if err != nil {
			_ = stop() // err has already said what is wrong
		}
	}()
	b.codesFile = filepath.Join(dir, "codes.txt")

	if b.real, err = fleet.Start(ctx, fleet.Options{}); err != nil {
		return nil, err
	}
	limit, err := fleet.Build(ctx, dir, "snowlink/loadtest/limit")
	if err != nil {
		return nil, err
	}
	b.limit, err = fleet.Start(ctx, fleet.Options{Binary: limit, NoRedis: true})
	return stop, err
}

// resolve follows links through Nginx and past it, at a backend.
func (b *bench) resolve(links []created) error {
	return errors.Join(resolve(b.real.URL, links), resolve(b.real.Backends[0].URL, links))
}

// measure runs a scenario's rounds.
func (b *bench) measure(ctx context.Context, s scenario) (row, error) {
	for _, f := range []*fleet.Fleet{b.real, b.limit} {
		if _, _, err := b.once(ctx, s, f, warmUp); err != nil {
			return row{}, err
		}
	}
	var (
		ratios, backends, nginx, redis []float64
		reals, limits                  []result
	)
	for round := range b.rounds {
		real, spent, err := b.once(ctx, s, b.real, b.duration)
		if err != nil {
			return row{}, err
		}
		limit, _, err := b.once(ctx, s, b.limit, b.duration)
		if err != nil {
			return row{}, fmt.Errorf("constant-answer server: %w", err)
		}
		ratio := real.PerSecond / limit.PerSecond
		fmt.Fprintf(b.progress, "%-18s %d/%d  %8.0f of %8.0f requests a second: %.2f\n",
			s.Name, round+1, b.rounds, real.PerSecond, limit.PerSecond, ratio)
		ratios = append(ratios, ratio)
		backends, nginx, redis = append(backends, spent.Backends), append(nginx, spent.Nginx), append(redis, spent.Redis)
		reals, limits = append(reals, real), append(limits, limit)
	}
	return row{
		scenario: s,
		Ratio:    median(ratios), Lowest: slices.Min(ratios), Greatest: slices.Max(ratios),
		Real: medians(reals), Limit: medians(limits),
		CPU: cpu{median(backends), median(nginx), median(redis)},
	}, nil
}

// once is one run on one fleet. On the real one it makes sure that Redis holds
// the links that were acknowledged, so none shares a code with another.
func (b *bench) once(ctx context.Context, s scenario, f *fleet.Fleet, duration time.Duration) (result, cpu, error) {
	url := f.Backends[0].URL
	if s.Nginx {
		url = f.URL
	}
	before, err := spent(f)
	if err != nil {
		return result{}, cpu{}, err
	}
	r, err := load{
		script: s.Script, url: url, threads: b.threads, connections: s.Connections, duration: duration,
		env: []string{"API_KEY=" + f.APIKey, "CODES=" + b.codesFile},
	}.run(ctx)
	if err != nil {
		return result{}, cpu{}, err
	}
	after, err := spent(f)
	if err != nil {
		return result{}, cpu{}, err
	}
	perRequest := 1e6 / float64(r.total())
	used := cpu{
		(after.Backends - before.Backends) * perRequest,
		(after.Nginx - before.Nginx) * perRequest,
		(after.Redis - before.Redis) * perRequest,
	}
	if f == b.real && r.answers[201] > 0 {
		// wrk leaves with a request open on each connection.
		b.created += r.answers[201]
		b.lost += s.Connections
		stored, err := countLinks(ctx, f)
		if err != nil {
			return result{}, cpu{}, err
		}
		if stored < b.created || stored > b.created+b.lost {
			return result{}, cpu{}, fmt.Errorf("there are %d links in Redis; %d to %d were due", stored, b.created, b.created+b.lost)
		}
	}
	return r, used, nil
}

// spent is the processor time, in seconds, that a fleet's programs have used.
func spent(f *fleet.Fleet) (cpu, error) {
	var total cpu
	add := func(to *float64, p *fleet.Process) error {
		t, err := p.CPU()
		*to += t.Seconds()
		return err
	}
	errs := []error{add(&total.Nginx, &f.Nginx.Process)}
	for _, b := range f.Backends {
		errs = append(errs, add(&total.Backends, &b.Process))
	}
	if f.Redis != nil {
		errs = append(errs, add(&total.Redis, &f.Redis.Process))
	}
	return total, errors.Join(errs...)
}

// medians takes each figure's median by itself.
func medians(results []result) result {
	var perSecond []float64
	var p50, p99 []time.Duration
	for _, r := range results {
		perSecond, p50, p99 = append(perSecond, r.PerSecond), append(p50, r.P50), append(p99, r.P99)
	}
	return result{PerSecond: median(perSecond), P50: median(p50), P99: median(p99)}
}

// median is the middle value, or the higher of the two in the middle.
func median[T float64 | time.Duration](values []T) T {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}
