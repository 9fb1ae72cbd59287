package redisstore_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/redisstore"
)

// BenchmarkCreate measures what a link costs: alone or in a bulk, with a journal or without,
// and in front of an archive.
// cpu-µs/op is the processor time of this process and redis-µs/op that of Redis. Other programs on
// the machine change neither much.
func BenchmarkCreate(b *testing.B) {
	redis := fleettest.Redis(b, "auto-aof-rewrite-percentage 0") // a rewrite would be counted as ours
	l := link.Link{Target: "https://example.com/a/page?with=a&query=1"}
	var next atomic.Int64
	next.Store(1 << 58)
	code := func() string { return strconv.FormatInt(next.Add(1), 36) }
	run := func(name string, o redisstore.Options, create func(b *testing.B, store testStore)) {
		b.Run(name, func(b *testing.B) {
			store := openWith(b, "redis://"+redis.Addr, quiet, o)
			b.ReportAllocs()
			ours, theirs := cpu(b), redisCPU(b, redis)
			create(b, store)
			b.ReportMetric((cpu(b)-ours)/float64(b.N), "cpu-µs/op")
			b.ReportMetric((redisCPU(b, redis)-theirs)/float64(b.N), "redis-µs/op")
		})
	}
	const connections = 64
	single := func(b *testing.B, store testStore) {
		b.SetParallelism(connections / 2)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := store.Create(context.Background(), "default", code(), l); err != nil {
					b.Error(err)
				}
			}
		})
	}
	run("single", redisstore.Options{JournalMax: 1_000_000}, single)
	run("single, in front of an archive", redisstore.Options{JournalMax: 1_000_000, Archived: true}, single)
	run("single, no journal", redisstore.Options{}, single)
	run("bulk", redisstore.Options{JournalMax: 1_000_000}, func(b *testing.B, store testStore) {
		links := make([]link.Coded, b.N)
		for i := range links {
			links[i] = link.Coded{Code: code(), Link: l}
		}
		b.ResetTimer()
		for _, err := range store.CreateAll(b.Context(), "default", links) {
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

// cpu is the processor time of this process, in microseconds.
func cpu(b *testing.B) float64 {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e3
}

func redisCPU(b *testing.B, r *fleet.Redis) float64 {
	b.Helper()
	used, err := r.CPU()
	if err != nil {
		b.Fatal(err)
	}
	return float64(used.Microseconds())
}
