package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"snowlink/internal/fleet"
)

const (
	hotCodes = 10_000 // that hot redirects are spread over, drawn evenly from all links
	// uncachedCodes are drawn in the same way. With their links they exceed a processor's caches,
	// as millions of links would.
	uncachedCodes = 500_000
)

// A grown is a Redis with many links and two backends over it. One has its near cache off, so that
// all of its requests go to Redis.
type grown struct {
	Links    int
	Bytes    float64 // of Redis's memory for a link
	cached   *fleet.Fleet
	uncached *fleet.Fleet
	stock    *stock
	dir      string // of codes
}

func grow(ctx context.Context, links int) (_ *grown, err error) {
	g := &grown{Links: links}
	defer func() {
		if err != nil {
			_ = g.close() // err has already said what is wrong
		}
	}()
	if g.dir, err = os.MkdirTemp("", "snowlink-growth-"); err != nil {
		return nil, err
	}
	// Memory has no bound, because creates add links. The append-only file is off only while Redis
	// is filled.
	if g.cached, err = fleet.Start(ctx, fleet.Options{Backends: 1, NoNginx: true, State: true, RedisConfig: []string{"maxmemory 0", "appendonly no"}}); err != nil {
		return nil, err
	}
	if g.uncached, err = fleet.Start(ctx, fleet.Options{
		Backends: 1, NoNginx: true, NoRedis: true,
		Env: []string{"REDIS_URL=redis://" + g.cached.Redis.Addr, "REDIS_STATE_URL=redis://" + g.cached.State.Addr, "NODE_ID=2", "CACHE_BYTES=0"},
	}); err != nil {
		return nil, err
	}
	if g.stock, err = newStock(g.cached); err != nil {
		return nil, err
	}
	before, err := g.stock.info(ctx, "memory", "used_memory")
	if err != nil {
		return nil, err
	}
	sample, err := g.stock.sample(ctx, links, uncachedCodes, g.uncachedFile())
	if err != nil {
		return nil, err
	}
	after, err := g.stock.info(ctx, "memory", "used_memory")
	if err != nil {
		return nil, err
	}
	g.Bytes = float64(after-before) / float64(links)

	step := max(1, len(sample)/hotCodes)
	hot := make([]created, 0, hotCodes)
	for i := 0; i < len(sample) && len(hot) < hotCodes; i += step {
		hot = append(hot, sample[i])
	}
	if err := writeCodes(g.hotFile(), hot); err != nil {
		return nil, err
	}
	return g, errors.Join(g.stock.log(ctx), resolve(g.cached.URL, hot), resolve(g.uncached.URL, hot))
}

func (g *grown) close() error {
	var errs []error
	if g.stock != nil {
		errs = append(errs, g.stock.close())
	}
	return errors.Join(append(errs, closeAll(g.uncached, g.cached), os.RemoveAll(g.dir))...)
}

func (g *grown) hotFile() string      { return filepath.Join(g.dir, "hot.txt") }
func (g *grown) uncachedFile() string { return filepath.Join(g.dir, "uncached.txt") }

func (g *grown) name() string { return thousands(g.Links) + " links" }

// hot is redirects that the near cache answers.
func (g *grown) hot() side {
	return side{name: g.name(), url: g.cached.URL, fleets: []*fleet.Fleet{g.cached}, env: []string{"CODES=" + g.hotFile()}}
}

// past is redirects without a near cache, spread evenly over all links.
func (g *grown) past() side {
	backend := &fleet.Fleet{Backends: g.uncached.Backends, Redis: g.cached.Redis}
	return side{name: g.name(), url: g.uncached.URL, fleets: []*fleet.Fleet{backend}, env: []string{"CODES=" + g.uncachedFile(), "HOT=0"}}
}

func (g *grown) creates() side {
	return side{name: g.name(), url: g.cached.URL, fleets: []*fleet.Fleet{g.cached}, env: []string{"API_KEY=" + g.cached.APIKey}}
}

// shrink brings the number of links back to what it was, if a run of creates has made it a tenth
// more. The codes in the files are gone then.
func (g *grown) shrink(ctx context.Context, _ result) error {
	now, err := g.stock.count(ctx)
	if err != nil || now < g.Links+g.Links/10 {
		return err
	}
	if err := g.stock.redis.FlushAll(ctx).Err(); err != nil {
		return err
	}
	return g.stock.add(ctx, g.Links, nil)
}

// growth and uncachedGrowth compare a backend whose Redis has many links with one whose Redis has
// few.
func (b *bench) growth(ctx context.Context) (*pair, error) { return b.grownPair(ctx, (*grown).hot) }

func (b *bench) uncachedGrowth(ctx context.Context) (*pair, error) {
	return b.grownPair(ctx, (*grown).past)
}

// grownPair makes both on the first call. They run until the bench stops.
func (b *bench) grownPair(ctx context.Context, of func(*grown) side) (_ *pair, err error) {
	if b.many == nil {
		if b.many, err = grow(ctx, b.links); err != nil {
			return nil, err
		}
	}
	if b.few == nil {
		if b.few, err = grow(ctx, hotCodes); err != nil {
			return nil, err
		}
	}
	return &pair{measured: of(b.many), against: of(b.few)}, nil
}

// growth measures what changes with the number of links and of connections.
type growth struct {
	measuring
	sizes       numbers // of links
	connections numbers
	maxmemory   string // of the Redis that is filled until it evicts a link
}

// A point is one load's figures: medians over the rounds.
type point struct {
	Name        string
	Links       int
	Connections int
	result
	CPU cpu
}

func (g *growth) run(ctx context.Context, stdout io.Writer) error {
	if slices.Min(g.connections) < g.threads {
		return errors.New("-connections takes numbers that are no less than -threads")
	}
	env, err := fleet.ReadEnvironment(ctx)
	if err != nil {
		return err
	}
	byConnections, err := g.byConnections(ctx)
	if err != nil {
		return err
	}
	byLinks, bytes, err := g.byLinks(ctx)
	if err != nil {
		return err
	}
	full, err := g.fill(ctx)
	if err != nil {
		return err
	}
	return g.report(env, byLinks, bytes, byConnections, full, stdout)
}

// plotted is a load that becomes a point in the tables and charts.
type plotted struct {
	point
	script string
	side   side
	after  func(context.Context, result) error // as that of a series
}

// measure runs all loads in turns and returns their points.
func (g *growth) measure(ctx context.Context, loads []plotted) ([]point, error) {
	var all []*series
	for i := range loads {
		l := &loads[i]
		all = append(all, &series{
			name:   fmt.Sprintf("%s, %d connections, %d links", l.Name, l.Connections, l.Links),
			script: l.script, connections: l.Connections, side: &l.side, after: l.after,
		})
	}
	err := g.inTurns(ctx, all, func(i, round int) {
		fmt.Fprintf(g.output.progress, "%-18s %11s links %6s connections  %d/%d  %8.0f requests a second\n", loads[i].Name,
			thousands(loads[i].Links), thousands(loads[i].Connections), round, g.rounds, all[i].results[round-1].PerSecond)
	})
	if err != nil {
		return nil, err
	}
	var points []point
	for i, l := range loads {
		l.result, l.CPU = all[i].medians()
		points = append(points, l.point)
	}
	return points, nil
}

// byConnections measures hot redirects over more and more connections.
func (g *growth) byConnections(ctx context.Context) (_ []point, err error) {
	f, err := fleet.Start(ctx, fleet.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	codes := filepath.Join(f.Dir, "codes.txt")
	if _, err := fill(ctx, f, hotCodes, 64, codes); err != nil {
		return nil, err
	}
	var all []plotted
	for _, s := range []struct{ name, url string }{{"direct", f.Backends[0].URL}, {"Nginx", f.URL}} {
		for _, n := range g.connections {
			all = append(all, plotted{
				point: point{Name: s.name, Links: hotCodes, Connections: n}, script: "redirect.lua",
				side: side{url: s.url, fleets: []*fleet.Fleet{f}, env: []string{"CODES=" + codes}},
			})
		}
	}
	return g.measure(ctx, all)
}

// byLinks measures redirects and creates on one backend whose Redis has more and more links, and
// the bytes of memory that a link takes there.
func (g *growth) byLinks(ctx context.Context) (_ []point, bytes []float64, err error) {
	var redirects, creates []plotted
	for _, n := range g.sizes {
		grown, err := grow(ctx, n)
		if err != nil {
			return nil, nil, err
		}
		defer func() { err = errors.Join(err, grown.close()) }()
		bytes = append(bytes, grown.Bytes)
		for _, s := range []struct {
			name string
			side side
		}{{"hot redirect", grown.hot()}, {"uncached redirect", grown.past()}} {
			redirects = append(redirects, plotted{
				point: point{Name: s.name, Links: n, Connections: 64}, script: "redirect.lua", side: s.side,
			})
		}
		creates = append(creates, plotted{
			point: point{Name: "create", Links: n, Connections: 64}, script: "create.lua", side: grown.creates(), after: grown.shrink,
		})
	}
	points, err := g.measure(ctx, redirects)
	if err != nil {
		return nil, nil, err
	}
	made, err := g.measure(ctx, creates) // last, since they add links
	return append(points, made...), bytes, err
}

// fill puts links into a Redis with the project's configuration until it evicts
// the first, and returns how many it then has.
func (g *growth) fill(ctx context.Context) (_ int, err error) {
	f, err := fleet.Start(ctx, fleet.Options{NoBackends: true, NoNginx: true, RedisConfig: []string{"maxmemory " + g.maxmemory, "appendonly no"}})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	s, err := newStock(f)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for {
		if err := s.add(ctx, 10_000, nil); err != nil {
			return 0, err
		}
		if gone, err := s.info(ctx, "stats", "evicted_keys"); err != nil || gone > 0 {
			fmt.Fprintf(g.output.progress, "%s links in %s\n", thousands(s.made-gone), g.maxmemory)
			return s.made - gone, err
		}
	}
}
