package redisstats_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"snowlink/internal/clicks"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/stats"
	"snowlink/internal/stats/redisstats"
)

// BenchmarkApply applies clicks of links that are clicked once each, of three producers with a second
// of 100,000 clicks between them.
func BenchmarkApply(b *testing.B) {
	r := fleettest.Redis(b)
	store := open(b, "redis://"+r.Addr, quiet, redisstats.Options{Keep: 90 * day, Most: 1 << 30})
	const each = 33_333
	batches := make([][]clicks.Batch, 0, 8)
	for number := range uint64(cap(batches)) {
		var second []clicks.Batch
		for p := range uint64(3) {
			second = append(second, today(fmt.Sprint("p", p), 3*number+p, each))
		}
		batches = append(batches, second)
	}
	applied, began := 0, processor(b, r.Addr)
	for n := 0; b.Loop(); n++ {
		for i := range batches[0] {
			batch := &batches[n%len(batches)][i]
			batch.Number = uint64(n + 1)
			applied += len(batch.Counts)
		}
		apply(b, store, batches[n%len(batches)]...)
	}
	b.ReportMetric(float64(applied)/b.Elapsed().Seconds(), "clicks/s")
	for i, name := range []string{"worker", "redis"} {
		b.ReportMetric((processor(b, r.Addr)[i]-began[i])/float64(applied)*1e9, name+"-ns/click")
	}
}

// processor returns the processor time of this process and of Redis, in seconds.
func processor(b *testing.B, addr string) (seconds [2]float64) {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	seconds[0] = time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds()
	for line := range strings.Lines(fleettest.RedisClient(b, addr).Info(b.Context(), "cpu").Val()) {
		var n float64
		for _, name := range []string{"used_cpu_user:", "used_cpu_sys:"} {
			if _, err := fmt.Sscanf(line, name+"%f", &n); err == nil {
				seconds[1] += n
			}
		}
	}
	return seconds
}

// BenchmarkAsk asks about a link, and about everything, over 90 days. Links are clicked as often as
// by Zipf's law, some million times in all.
func BenchmarkAsk(b *testing.B) {
	r := fleettest.Redis(b)
	store := open(b, "redis://"+r.Addr, quiet, redisstats.Options{Keep: 90 * day, Most: 4 << 30})
	const links, perDay = 100_000, 50_000
	random := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(random, 1.1, 10, links-1)
	total := 0
	for ago := range 90 {
		at := time.Now().UTC().Truncate(day).AddDate(0, 0, -ago)
		for part := range 4 {
			batch := clicks.Batch{Producer: fmt.Sprint("p", ago), Number: uint64(part + 1)}
			for range perDay / 4 {
				n := zipf.Uint64()
				facts := realistic(random.Uint64N(1 << 40))
				batch.Counts = append(batch.Counts, clicks.Count{
					Code: fmt.Sprintf("8h4L%06x", n), Owner: fmt.Sprint("owner", n%10), Hour: at.Add(time.Duration(part*6+random.IntN(6)) * time.Hour),
					Clicks: 1, Facts: []clicks.FactCount{{Facts: facts, Clicks: 1}}, Visitors: []uint64{random.Uint64()},
				})
			}
			total += len(batch.Counts)
			apply(b, store, batch)
		}
		if ago >= 4 {
			if err := store.Settle(b.Context(), at); err != nil {
				b.Fatal(err)
			}
		}
	}
	info, err := fleettest.Conn(b, "redis://"+r.Addr, quiet).Info(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("%d clicks take %d MiB: %d bytes a click", total, info.Used>>20, int(info.Used)/total)
	tomorrow := time.Now().UTC().Truncate(day).Add(day)
	from := tomorrow.Add(-90 * day)
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		b.Fatal(err)
	}
	code := func(n uint64) stats.Scope { return stats.Scope{Code: fmt.Sprintf("8h4L%06x", n)} }
	country := []clicks.Dimension{clicks.Country}
	for name, ask := range map[string]func() error{
		"link":       question(b, store, stats.Question{Scope: code(50_000), From: from, To: tomorrow, Unit: stats.Day}),
		"hot link":   question(b, store, stats.Question{Scope: code(0), From: from, To: tomorrow, Unit: stats.Hour, By: country, Zone: berlin}),
		"everything": question(b, store, stats.Question{From: from, To: tomorrow, Unit: stats.Day}),
		"by three":   question(b, store, stats.Question{From: from, To: tomorrow, Unit: stats.Hour, By: []clicks.Dimension{clicks.Country, clicks.Browser, clicks.OS}, Most: 10}),
		"filtered":   question(b, store, stats.Question{From: from, To: tomorrow, Unit: stats.Day, By: country, Where: map[clicks.Dimension][]string{clicks.Browser: {"Chrome"}}}),
		"top": func() error {
			_, err := store.Top(b.Context(), stats.Scope{}, from, tomorrow, stats.People, 100)
			return err
		},
		"totals of 100": totals(b, store),
	} {
		b.Run(name, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				if err := ask(); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}

func question(b *testing.B, store stats.Store, q stats.Question) func() error {
	return func() error { _, err := store.Ask(b.Context(), q); return err }
}

func totals(b *testing.B, store stats.Store) func() error {
	var codes []string
	for n := range 100 {
		codes = append(codes, fmt.Sprintf("8h4L%06x", n*997))
	}
	return func() error { _, err := store.Totals(b.Context(), codes); return err }
}
