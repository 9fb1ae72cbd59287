package archived_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/postgres/postgrestest"
)

// How many links a second an Archiver brings from Redis to three databases on the same machine.
func BenchmarkArchive(b *testing.B) {
	s := start(b, postgrestest.Databases(b, 3))
	mint := minter(b)
	links := make([]link.Coded, b.N)
	for i := range links {
		links[i] = link.Coded{Code: mint(), Link: link.Link{Target: "https://example.com/a/target/of/some/length?and=a&query"}}
	}
	if err := errors.Join(s.hot.CreateAll(b.Context(), link.DefaultOwner, links)...); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	began := time.Now()
	stop := fleettest.Background(b, s.archiver(io.Discard).Run)
	s.drained(b)
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "links/s")
	b.StopTimer()
	_ = stop()
}
