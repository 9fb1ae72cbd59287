package main

import (
	"context"
	"fmt"
	"path/filepath"

	"snowlink/internal/fleet"
)

// clicksOnOff compares a backend that counts clicks with one that does not.
const clicksOnOff = "clicks on, against off"

// clicksOff compares one backend that counts clicks with one that does not.
func (b *bench) clicksOff(ctx context.Context) (*pair, error) {
	codes := filepath.Join(b.dir, "uncounted.txt")
	if b.uncounted == nil {
		f, err := fleet.Start(ctx, fleet.Options{Backends: 1, NoNginx: true, RedisConfig: []string{"maxmemory 0"}, Env: []string{"CLICKS=off"}})
		if err != nil {
			return nil, err
		}
		b.uncounted = f
		if _, err := fill(ctx, f, b.codes, 64, codes); err != nil {
			return nil, err
		}
	}
	return &pair{
		measured: side{name: measured, url: b.real.Backends[0].URL, fleets: []*fleet.Fleet{b.real}, env: b.env()},
		against:  side{name: "the same with CLICKS=off", url: b.uncounted.URL, fleets: []*fleet.Fleet{b.uncounted}, env: []string{"CODES=" + codes}},
	}, nil
}

// latencyOfClicks is how much later the slowest answers come where clicks are counted.
func latencyOfClicks(r row) fact {
	return fact{
		Name: "clicks on, against off: p99", AtMost: 1.1, Unit: "×", Value: r.Real.P99.Seconds() / r.Limit.P99.Seconds(),
		Note: fmt.Sprintf("%.1f ms against %.1f ms, over %d connections", r.Real.P99.Seconds()*1000, r.Limit.P99.Seconds()*1000, r.Connections),
	}
}
