package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/nearcache"
	"snowlink/internal/redisstore"
)

// addsPerSecond is how often links are put in: a tenth of a second's worth each time.
const addsPerSecond = 10

// eviction is an experiment. Redis sees no visit that a near cache answers, so its
// LRU would take the hottest links for idle and evict them first. The near cache
// therefore reads a link in use again every now and then. Does that keep the hot
// links? A small Redis is filled at an even pace until half of all links ever made
// have been evicted, while one in a hundred is hot: followed once a second.
type eviction struct {
	megabytes int // of Redis's memory
	pace      int // links made a second
	progress  io.Writer
}

// evicted is the outcome.
type evicted struct {
	Megabytes, Pace int
	Made, Gone      int // links in all; how many of them Redis evicted
	Hot             int // and as many in the control group
	HotLost         int
	// ControlLost counts the lost links among those that Redis was asked for once and never again.
	// That is all it would see of a hot link behind a cache without refresh.
	ControlLost int
	Visits      int           // to hot links
	Horizon     time.Duration // how long a link stays that nobody asks for
}

// Holds reports whether the bar is reached.
func (e *evicted) Holds() bool { return e.HotLost == 0 }

func (e *eviction) define(flags *flag.FlagSet) {
	numberVar(flags, &e.megabytes, 1, "megabytes", 64, "`memory` of the Redis that evicts, in MB")
	numberVar(flags, &e.pace, addsPerSecond, "pace", 4500, "`number` of links a second that are put into the Redis that evicts")
}

func (e eviction) run(ctx context.Context) (_ *evicted, err error) {
	f, err := fleet.Start(ctx, fleet.Options{RedisConfig: []string{fmt.Sprintf("maxmemory %dmb", e.megabytes)}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	s, err := newStock(f)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()

	// One in a hundred of all links. Those will be twice what fits, at some 170 bytes each.
	out := &evicted{Megabytes: e.megabytes, Pace: e.pace, Hot: e.megabytes << 20 / 170 * 2 / 100}
	var hot, control []created
	if err := s.add(ctx, 2*out.Hot, func(l created) {
		if len(hot) == len(control) {
			hot = append(hot, l)
		} else {
			control = append(control, l)
		}
	}); err != nil {
		return nil, err
	}
	if err := errors.Join(resolve(f.URL, hot), resolve(f.URL, control)); err != nil {
		return nil, err
	}

	// Visitors follow every hot link once a second, whatever happens.
	visiting, stop := context.WithCancel(ctx)
	visited := make(chan error, 1)
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		var wrong error
		for {
			select {
			case <-visiting.Done():
				visited <- wrong
				return
			case <-tick.C:
			}
			if err := resolve(f.URL, hot); err != nil && wrong == nil {
				wrong = err
			}
			out.Visits += len(hot)
		}
	}()
	err = e.make(ctx, s, out)
	stop()
	wrong := <-visited
	if err != nil {
		return nil, err
	}
	if out.HotLost, err = lost(ctx, s, hot); err != nil {
		return nil, err
	}
	if out.ControlLost, err = lost(ctx, s, control); err != nil {
		return nil, err
	}
	if out.HotLost == 0 && wrong != nil {
		return nil, fmt.Errorf("every hot link is in Redis, but: %w", wrong)
	}
	if out.Horizon < 3*nearcache.RefreshAfter {
		return nil, fmt.Errorf("a link lived for %s, which says nothing about one read every %s: -megabytes must be more, or -pace less", out.Horizon.Round(time.Second), nearcache.RefreshAfter)
	}
	return out, nil
}

// make makes links until Redis has evicted half of all that were ever made.
func (e eviction) make(ctx context.Context, s *stock, out *evicted) error {
	tick := time.NewTicker(time.Second / addsPerSecond)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := s.add(ctx, e.pace/addsPerSecond, nil); err != nil {
			return err
		}
		if n%addsPerSecond != 0 {
			continue
		}
		gone, err := s.info(ctx, "stats", "evicted_keys")
		if err != nil {
			return err
		}
		out.Made, out.Gone = s.made, gone
		if n%(10*addsPerSecond) == 0 {
			fmt.Fprintf(e.progress, "eviction: %s of %s links gone\n", thousands(gone), thousands(s.made))
		}
		if 2*gone >= s.made {
			out.Horizon = time.Duration(s.made-gone) * time.Second / time.Duration(e.pace)
			return nil
		}
	}
}

// lost returns how many of the links Redis no longer has.
func lost(ctx context.Context, s *stock, links []created) (int, error) {
	keys := make([]string, len(links))
	for i, l := range links {
		keys[i] = redisstore.LinkKey(l.code)
	}
	there, err := s.redis.Exists(ctx, keys...).Result()
	return len(links) - int(there), err
}

// String describes the outcome in a paragraph.
func (e *evicted) String() string {
	return fmt.Sprintf(`Of %s links, made at %s a second, a Redis with %d MB evicted %s; one that nobody
asks for lives for %s there. Of %s hot links, followed once a second through
Nginx (%s visits) and read again by the near cache every %s, %s were lost.
Of as many that Redis was asked for once and never again, which is all it
sees of a hot link behind a cache without refresh, %s were lost.
`, thousands(e.Made), thousands(e.Pace), e.Megabytes, thousands(e.Gone), e.Horizon.Round(time.Second), thousands(e.Hot),
		thousands(e.Visits), nearcache.RefreshAfter, thousands(e.HotLost), thousands(e.ControlLost))
}
