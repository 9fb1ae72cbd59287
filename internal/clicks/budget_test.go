//go:build !race

package clicks_test

import (
	"fmt"
	"runtime"
	"testing"

	"snowlink/internal/clicks"
)

// A redirect gives the collector nothing to do.
func TestRecordBudget(t *testing.T) {
	r := idle(clicks.Options{})
	all := visits(1000, 10, true)
	i := 0
	if n := testing.AllocsPerRun(10_000, func() {
		r.Record(all[i%len(all)])
		r.Miss("nothing", noon)
		i++
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What waits for the queue takes about as much memory as it is thought to take.
func TestWaitingBudget(t *testing.T) {
	const most = 32 << 20
	for _, tt := range []struct {
		name  string
		links int
	}{{"one link", 1}, {"many links", 1 << 30}} {
		t.Run(tt.name, func(t *testing.T) {
			r := idle(clicks.Options{Waiting: most})
			before := heap()
			for i := 0; i < 1_000_000; i++ {
				c := click(fmt.Sprintf("code%07d", i%tt.links))
				c.UserAgent, c.Referrer = userAgents[i%len(userAgents)], referrers[i%len(referrers)]
				c.Address = fmt.Appendf(nil, "10.%d.%d.%d", i>>16, i>>8&255, i&255)
				if r.Record(c); i%5000 == 0 {
					if r.DrainAndTake(false); r.dropped(t) > 0 {
						break
					}
				}
			}
			took := heap() - before
			t.Logf("%d KiB, thought to be %v KiB", took>>10, r.metric(t, "waiting_bytes", "")/1024)
			if took > most+most/4 {
				t.Errorf("%d MiB", took>>20)
			}
			runtime.KeepAlive(r)
		})
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
