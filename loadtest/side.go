package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"snowlink/internal/fleet"
)

// A pair is the two sides of a scenario.
type pair struct {
	measured, against side
	close             func() error // stops what was started for it; nil for nothing
}

// A side is a server that a scenario loads.
type side struct {
	name   string // for the report
	url    string
	fleets []*fleet.Fleet // whose processor time the requests take
	env    []string       // for the script

	// slice is how many codes each run of cold.lua gets, other ones every time. 0: every run gets
	// all of them.
	slice int
	runs  int

	// settle waits until what a run began is done, which counts as part of the run; nil for nothing.
	settle func(context.Context) error
}

// run runs wrk once. The processor time is in microseconds a request.
func (s *side) run(ctx context.Context, l load) (result, cpu, error) {
	l.url, l.env = s.url, s.env
	if s.slice > 0 {
		l.env = append(slices.Clip(l.env), fmt.Sprintf("FROM=%d", s.runs*s.slice), fmt.Sprintf("COUNT=%d", s.slice))
	}
	s.runs++
	before, err := spent(s.fleets)
	if err != nil {
		return result{}, cpu{}, err
	}
	began := time.Now()
	r, err := l.run(ctx)
	if err == nil && s.settle != nil {
		err = s.settle(ctx)
		r.PerSecond = float64(r.total()) / time.Since(began).Seconds()
	}
	if err != nil {
		return result{}, cpu{}, err
	}
	after, err := spent(s.fleets)
	if err != nil {
		return result{}, cpu{}, err
	}
	perRequest := 1e6 / float64(r.total())
	return r, cpu{
		(after.Backends - before.Backends) * perRequest,
		(after.Nginx - before.Nginx) * perRequest,
		(after.Redis - before.Redis) * perRequest,
	}, nil
}

// spent returns the processor time, in seconds, that the programs of fleets have used.
func spent(fleets []*fleet.Fleet) (cpu, error) {
	var total cpu
	var errs []error
	add := func(to *float64, p *fleet.Process) {
		t, err := p.CPU()
		*to += t.Seconds()
		errs = append(errs, err)
	}
	for _, f := range fleets {
		for _, b := range f.Backends {
			add(&total.Backends, &b.Process)
		}
		if f.Nginx != nil {
			add(&total.Nginx, &f.Nginx.Process)
		}
		if f.Redis != nil {
			add(&total.Redis, &f.Redis.Process)
		}
	}
	return total, errors.Join(errs...)
}

const measured, constant = "the real fleet", "constant answers"

func (b *bench) env() []string { return []string{"API_KEY=" + b.real.APIKey, "CODES=" + b.codesFile()} }

// direct compares one backend with the constant-answer server.
func (b *bench) direct(context.Context) (*pair, error) {
	return &pair{
		measured: side{name: measured, url: b.real.Backends[0].URL, fleets: []*fleet.Fleet{b.real}, env: b.env()},
		against:  side{name: constant, url: b.limit.Backends[0].URL, fleets: []*fleet.Fleet{b.limit}, env: b.env()},
	}, nil
}

// nginx compares three of each behind Nginx.
func (b *bench) nginx(context.Context) (*pair, error) {
	return &pair{
		measured: side{name: measured, url: b.real.URL, fleets: []*fleet.Fleet{b.real}, env: b.env()},
		against:  side{name: constant + ", same Nginx", url: b.limit.URL, fleets: []*fleet.Fleet{b.limit}, env: b.env()},
	}, nil
}

// cold compares one backend, asked for each link once, with the constant-answer server, asked for
// the same.
func (b *bench) cold(ctx context.Context) (*pair, error) {
	f, err := fleet.Start(ctx, fleet.Options{Backends: 1, NoNginx: true, RedisConfig: []string{"maxmemory 0", "appendonly no"}})
	if err != nil {
		return nil, err
	}
	codes := filepath.Join(b.dir, "cold.txt")
	if err := stockCold(ctx, f, codes); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	env := []string{"CODES=" + codes}
	return &pair{
		close:    f.Close,
		measured: side{name: measured, url: f.URL, fleets: []*fleet.Fleet{f}, env: env, slice: coldCodes / (b.rounds + 1)},
		against:  side{name: constant, url: b.limit.Backends[0].URL, fleets: []*fleet.Fleet{b.limit}, env: env},
	}, nil
}

func stockCold(ctx context.Context, f *fleet.Fleet, codes string) (err error) {
	s, err := newStock(f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	file, err := os.Create(codes)
	if err != nil {
		return err
	}
	defer file.Close()
	w := bufio.NewWriter(file)
	if err := s.add(ctx, coldCodes, func(l created) { w.WriteString(l.code + "\n") }); err != nil {
		return err
	}
	return errors.Join(w.Flush(), s.log(ctx))
}

const location = "    location / {\n"

// edge compares an Nginx that caches redirects of the real backends with one of the same
// configuration that answers by itself. All requests are for the hot set: an answer is kept for a
// second, so the cache helps only links that are asked for more often.
func (b *bench) edge(ctx context.Context) (*pair, error) { return b.edges(ctx, "HOT=1") }

// edgeOfAll does the same with the usual requests.
func (b *bench) edgeOfAll(ctx context.Context) (*pair, error) { return b.edges(ctx, "HOT=0.9") }

func (b *bench) edges(ctx context.Context, hot string) (_ *pair, err error) {
	var backends []string
	for _, backend := range b.real.Backends {
		backends = append(backends, strings.TrimPrefix(backend.URL, "http://"))
	}
	var edges []*fleet.Fleet
	defer func() {
		if err != nil {
			_ = closeAll(edges...) // err has already said what is wrong
		}
	}()
	for _, edit := range []struct{ old, new string }{
		{"# include snippets/edge-cache.conf;", "include snippets/edge-cache.conf;"},
		{location, location + `add_header Cache-Control "private, max-age=0"; return 302 https://example.com/load/00000000/00/0000000000/some/long/page;`},
	} {
		f, err := fleet.Start(ctx, fleet.Options{Upstreams: backends})
		if err != nil {
			return nil, err
		}
		edges = append(edges, f)
		if err := errors.Join(f.Nginx.Edit("conf.d/server.conf", edit.old, edit.new), f.Nginx.Reload(ctx)); err != nil {
			return nil, err
		}
	}
	return &pair{
		close:    func() error { return closeAll(edges...) },
		measured: side{name: measured, url: edges[0].URL, fleets: []*fleet.Fleet{edges[0], b.real}, env: append(b.env(), hot)},
		against:  side{name: "Nginx's own `return 302`", url: edges[1].URL, fleets: edges[1:], env: append(b.env(), hot)},
	}, nil
}
