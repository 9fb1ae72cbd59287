package redisstore_test

import (
	"log/slog"
	"strconv"
	"sync/atomic"
	"testing"

	"snowlink/loadtest/fleet/fleettest"
	"snowlink/server/internal/link"
	"snowlink/server/internal/metrics"
	"snowlink/server/internal/redisstore"
)

// BenchmarkCreate is what a link costs, by how many are made at once and what is
// kept of it; redis-µs/op is the part of Redis.
func BenchmarkCreate(b *testing.B) {
	redis := fleettest.Redis(b)
	l := link.Link{Target: "https://example.com/a/page?with=a&query=1"}
	var next atomic.Int64
	next.Store(1 << 58)
	code := func() string { return strconv.FormatInt(next.Add(1), 36) }
	run := func(name string, o redisstore.Options, create func(b *testing.B, store *redisstore.Store)) {
		b.Run(name, func(b *testing.B) {
			store, err := redisstore.Open("redis://"+redis.Addr, o, slog.New(slog.DiscardHandler), metrics.New())
			if err != nil {
				b.Fatal(err)
			}
			defer store.Close()
			b.ReportAllocs()
			before, _ := redis.CPU()
			create(b, store)
			after, _ := redis.CPU()
			b.ReportMetric(float64((after-before).Microseconds())/float64(b.N), "redis-µs/op")
		})
	}
	const connections = 64
	single := func(b *testing.B, store *redisstore.Store) {
		b.SetParallelism(connections / 2)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := store.Create(b.Context(), "default", code(), l); err != nil {
					b.Error(err)
				}
			}
		})
	}
	run("single", redisstore.Options{JournalMax: 1_000_000}, single)
	run("single, no journal", redisstore.Options{}, single)
	run("bulk", redisstore.Options{JournalMax: 1_000_000}, func(b *testing.B, store *redisstore.Store) {
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
