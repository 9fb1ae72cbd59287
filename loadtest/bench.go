package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"snowlink/internal/fleet"
)

// A scenario is a row of the results: the same requests to two servers, in turns.
type scenario struct {
	Name        string
	Script      string
	Connections int
	// Bar is the least ratio of the two throughputs that we accept; 0 for none.
	Bar float64
	// pair prepares the two servers.
	pair func(*bench, context.Context) (*pair, error)
}

var scenarios = []scenario{
	{Name: "hot redirect, direct", Script: "redirect.lua", Connections: 64, Bar: 0.92, pair: (*bench).direct},
	{Name: "hot redirect, Nginx", Script: "redirect.lua", Connections: 64, Bar: 0.97, pair: (*bench).nginx},
	{Name: "cold redirect, direct", Script: "cold.lua", Connections: 64, Bar: 0.35, pair: (*bench).cold},
	{Name: "create, direct, 64", Script: "create.lua", Connections: 64, Bar: 0.45, pair: (*bench).direct},
	{Name: "create, direct, 256", Script: "create.lua", Connections: 256, Bar: 0.60, pair: (*bench).direct},
	{Name: "create, direct, 1,000", Script: "create.lua", Connections: 1000, Bar: 0.60, pair: (*bench).direct},
	{Name: "create, Nginx", Script: "create.lua", Connections: 64, Bar: 0.90, pair: (*bench).nginx},
	{Name: "mixed, direct", Script: "mixed.lua", Connections: 64, pair: (*bench).direct},
	{Name: "mixed, Nginx", Script: "mixed.lua", Connections: 64, pair: (*bench).nginx},
	{Name: "hot redirect, edge cache", Script: "redirect.lua", Connections: 64, Bar: 0.55, pair: (*bench).edge},
	{Name: "any redirect, edge cache", Script: "redirect.lua", Connections: 64, pair: (*bench).edgeOfAll},
	{Name: "hot redirect, by links", Script: "redirect.lua", Connections: 64, Bar: 0.95, pair: (*bench).growth},
	{Name: "uncached redirect, by links", Script: "redirect.lua", Connections: 64, pair: (*bench).uncachedGrowth},
	{Name: "archive: hot redirect, direct", Script: "redirect.lua", Connections: 64, Bar: 0.92, pair: (*bench).archivedDirect},
	{Name: "archive: hot redirect, Nginx", Script: "redirect.lua", Connections: 64, Bar: 0.97, pair: (*bench).archivedNginx},
	{Name: "archive paused: create, 64", Script: "create.lua", Connections: 64, Bar: 0.85, pair: (*bench).archivePaused},
	{Name: "archive paused: create, 256", Script: "create.lua", Connections: 256, Bar: 0.85, pair: (*bench).archivePaused},
	{Name: "archive: create and archive", Script: "create.lua", Connections: 256, Bar: 0.40, pair: (*bench).archiving},
	{Name: "clicks: hot redirect, direct", Script: "visit.lua", Connections: 64, Bar: 0.90, pair: (*bench).direct},
	{Name: "clicks: hot redirect, Nginx", Script: "visit.lua", Connections: 64, Bar: 0.96, pair: (*bench).nginx},
	{Name: clicksOnOff, Script: "visit.lua", Connections: 64, Bar: 0.96, pair: (*bench).clicksOff},
}

// evictionName is the last row, which is a count and not a ratio.
const evictionName = "hot links lost to eviction"

// coldCodes are enough for the runs of a backend that reads 120,000 links a second from
// Redis.
const coldCodes = 3_000_000

// bench runs every scenario on a real fleet and, in turns, on what it is compared with: mostly a
// fleet whose backends are the constant-answer server.
type bench struct {
	measuring
	eviction    eviction
	only        string // what a scenario's name must contain
	connections int    // 0: as the scenario says
	codes       int
	links       int // in the larger Redis of the comparison by links

	real, limit *fleet.Fleet
	uncounted   *fleet.Fleet // whose backend counts no clicks; nil until it is made
	archived    *fleet.Fleet // with an archive, whose archivers are paused; nil until it is made
	stock       *stock       // of the real fleet's Redis, for its count only
	many, few   *grown       // for the comparison by links; nil until it is made
	dir         string       // of codes
	created     int          // links that were acknowledged
	lost        int          // at most: links that Redis may have although wrk left before the answer
}

// A row is the result of a scenario: medians over its rounds.
type row struct {
	scenario
	Against          string
	Ratio            float64 // of the two throughputs, within a round
	Lowest, Greatest float64 // of the rounds' ratios
	Real, Limit      result
	CPU              cpu // of the real fleet
}

// Holds reports whether the bar is reached.
func (r row) Holds() bool { return r.Ratio >= r.Bar }

// cpu is processor time by program; for a row, microseconds a request.
type cpu struct{ Backends, Nginx, Redis float64 }

func (b *bench) run(ctx context.Context, stdout io.Writer) (err error) {
	chosen := slices.DeleteFunc(slices.Clone(scenarios), func(s scenario) bool { return !strings.Contains(s.Name, b.only) })
	evict := strings.Contains(evictionName, b.only)
	archive := strings.Contains(archiveName, b.only)
	counting := strings.Contains(clicksName, b.only)
	if len(chosen) == 0 && !evict && !archive && !counting {
		return fmt.Errorf("no scenario's name contains %q", b.only)
	}
	env, err := fleet.ReadEnvironment(ctx)
	if err != nil {
		return err
	}
	var rows []row
	if len(chosen) > 0 {
		if rows, err = b.measureAll(ctx, chosen); err != nil {
			return err
		}
	}
	var facts []fact
	if i := slices.IndexFunc(rows, func(r row) bool { return r.Name == clicksOnOff }); i >= 0 {
		facts = append(facts, latencyOfClicks(rows[i]))
	}
	var lost *evicted
	if evict {
		if lost, err = b.eviction.run(ctx); err != nil {
			err = fmt.Errorf("%s: %w", evictionName, err)
		}
	}
	if archive && err == nil {
		more, archiveErr := b.archiveFacts(ctx)
		if facts = append(facts, more...); archiveErr != nil {
			err = fmt.Errorf("%s: %w", archiveName, archiveErr)
		}
	}
	if counting && err == nil {
		more, countingErr := b.countingFacts(ctx)
		if facts = append(facts, more...); countingErr != nil {
			err = fmt.Errorf("%s: %w", clicksName, countingErr)
		}
	}
	return errors.Join(b.report(env, rows, lost, facts, stdout), err) // also after an error: the rows took minutes
}

func (b *bench) measureAll(ctx context.Context, chosen []scenario) (rows []row, err error) {
	stop, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()

	links, err := fill(ctx, b.real, b.codes, 64, b.codesFile())
	if err != nil {
		return nil, err
	}
	if err := errors.Join(distinct(links, b.codes), b.resolve(links)); err != nil {
		return nil, err
	}
	b.created = b.codes

	for _, s := range chosen {
		if b.connections > 0 {
			s.Connections = b.connections
		}
		r, err := b.measure(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		rows = append(rows, r)
	}
	if err := b.resolve(links); err != nil {
		return nil, fmt.Errorf("after the runs: %w", err)
	}
	return rows, nil
}

// start starts both fleets. While one is measured the other is idle and costs nothing.
func (b *bench) start(ctx context.Context) (stop func() error, err error) {
	if b.dir, err = os.MkdirTemp("", "snowlink-bench-"); err != nil {
		return nil, err
	}
	stop = func() error {
		var errs []error
		for _, g := range []*grown{b.many, b.few} {
			if g != nil {
				errs = append(errs, g.close())
			}
		}
		if b.stock != nil {
			errs = append(errs, b.stock.close())
		}
		return errors.Join(append(errs, closeAll(b.real, b.limit, b.archived, b.uncounted), os.RemoveAll(b.dir))...)
	}
	defer func() {
		if err != nil {
			_ = stop() // err has already said what is wrong
		}
	}()

	// Without a bound: a fast machine creates more than 2 GB of links here.
	if b.real, err = fleet.Start(ctx, fleet.Options{State: true, RedisConfig: []string{"maxmemory 0"}, Env: []string{"COUNTRY_HEADER=CF-IPCountry"}}); err != nil {
		return nil, err
	}
	if b.stock, err = newStock(b.real); err != nil {
		return nil, err
	}
	limit, err := fleet.Build(ctx, b.dir, "snowlink/loadtest/limit")
	if err != nil {
		return nil, err
	}
	b.limit, err = fleet.Start(ctx, fleet.Options{Binary: limit, NoRedis: true, Env: []string{"BASE_URL=" + b.real.URL}})
	return stop, err
}

// closeAll closes fleets, of which some may be nil.
func closeAll(fleets ...*fleet.Fleet) error {
	var errs []error
	for _, f := range fleets {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

func (b *bench) codesFile() string { return filepath.Join(b.dir, "codes.txt") }

// resolve follows links through Nginx, and again at a backend directly.
func (b *bench) resolve(links []created) error {
	return errors.Join(resolve(b.real.URL, links), resolve(b.real.Backends[0].URL, links))
}

// measure runs a scenario's rounds.
func (b *bench) measure(ctx context.Context, s scenario) (_ row, err error) {
	p, err := s.pair(b, ctx)
	if err != nil {
		return row{}, err
	}
	if p.close != nil {
		defer func() { err = errors.Join(err, p.close()) }()
	}

	real, limit := b.series(s, &p.measured), b.series(s, &p.against)
	var ratios []float64
	err = b.inTurns(ctx, []*series{real, limit}, func(_, round int) {
		if len(real.results) != round || len(limit.results) != round {
			return // the other has its turn yet
		}
		of, against := real.results[round-1].PerSecond, limit.results[round-1].PerSecond
		ratios = append(ratios, of/against)
		fmt.Fprintf(b.output.progress, "%-27s %d/%d  %8.0f of %8.0f requests a second: %.2f\n", s.Name, round, b.rounds, of, against, of/against)
	})
	if err != nil {
		return row{}, err
	}
	r := row{
		scenario: s, Against: p.against.name,
		Ratio: median(ratios), Lowest: slices.Min(ratios), Greatest: slices.Max(ratios),
	}
	r.Real, r.CPU = real.medians()
	r.Limit, _ = limit.medians()
	return r, nil
}

// series is a scenario on one of its sides. After each run on the real fleet, Redis must
// have as many links as were acknowledged: then no two of them share a code.
func (b *bench) series(s scenario, on *side) *series {
	out := &series{name: on.name, script: s.Script, connections: s.Connections, side: on}
	if on.fleets[0] == b.real {
		out.after = func(ctx context.Context, r result) error { return b.count(ctx, r.answers[201], s.Connections) }
	}
	return out
}

// count compares the links in Redis with those acknowledged, after a run that created more
// of them over some connections.
func (b *bench) count(ctx context.Context, more, connections int) error {
	if more == 0 {
		return nil
	}
	b.created += more
	b.lost += connections // wrk leaves with a request open on each
	stored, err := b.stock.count(ctx)
	if err != nil {
		return err
	}
	if stored < b.created || stored > b.created+b.lost {
		return fmt.Errorf("%d links are in Redis; %d to %d were expected", stored, b.created, b.created+b.lost)
	}
	return nil
}
