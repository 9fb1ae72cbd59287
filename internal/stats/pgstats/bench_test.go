package pgstats_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"snowlink/internal/clicks"
	"snowlink/internal/postgres/postgrestest"
	"snowlink/internal/stats/pgstats"
)

// BenchmarkApply applies clicks of distinct links, 50,000 an Apply in batches of five producers, while
// the store is tended. It reports clicks a second, and the processor time that a click took here and in
// PostgreSQL, which share the machine.
func BenchmarkApply(b *testing.B) {
	for _, dbs := range []int{1, 3} {
		b.Run(fmt.Sprint("databases=", dbs), func(b *testing.B) {
			store := pgstats.New(connect(b, postgrestest.Databases(b, dbs)), pgstats.Options{})
			go func() { _ = store.Tend(b.Context()) }()
			const each, producers, links = 50_000, 5, 500_000
			r := rand.New(rand.NewPCG(1, 1))
			pool := facts(r)
			link, number := 0, uint64(0)
			var here, there time.Duration
			_, serverBefore := cpu(b)
			for b.Loop() {
				b.StopTimer()
				number++
				batches := make([]clicks.Batch, producers)
				for i := range batches {
					batches[i] = clicks.Batch{Producer: fmt.Sprint("producer", i), Number: number}
					for range each / producers {
						link = (link + 1) % links
						batches[i].Counts = append(batches[i].Counts, clicks.Count{
							Code: fmt.Sprintf("link%06d", link), Owner: fmt.Sprint("owner", link%100), Tags: []string{fmt.Sprint("tag", link%20)},
							Hour: time.Now().Truncate(time.Hour), Clicks: 1, Visitors: []uint64{r.Uint64()},
							Facts: []clicks.FactCount{{Facts: pool[r.IntN(len(pool))], Clicks: 1}},
						})
					}
				}
				selfBefore, _ := cpu(b)
				b.StartTimer()
				if _, err := store.Apply(b.Context(), batches); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				self, _ := cpu(b)
				here += self - selfBefore
				b.StartTimer()
			}
			_, there = cpu(b)
			there -= serverBefore
			b.ReportMetric(here.Seconds()*1e6/each/float64(b.N), "us/click-here")
			b.ReportMetric(there.Seconds()*1e6/each/float64(b.N), "us/click-there")
			b.ReportMetric(float64(each)*float64(b.N)/b.Elapsed().Seconds(), "clicks/s")
		})
	}
}

// facts are some that people have.
func facts(r *rand.Rand) []clicks.Facts {
	pool := make([]clicks.Facts, 5000)
	for i := range pool {
		pool[i] = clicks.Facts{
			clicks.Country: fmt.Sprintf("%c%c", 'A'+r.IntN(10), 'A'+r.IntN(10)), clicks.Referrer: fmt.Sprintf("site%d.example", r.IntN(300)),
			clicks.Browser: fmt.Sprint("Browser", r.IntN(10)), clicks.OS: fmt.Sprint("System", r.IntN(6)), clicks.Device: []string{"desktop", "phone", "tablet"}[r.IntN(3)],
		}
	}
	return pool
}
