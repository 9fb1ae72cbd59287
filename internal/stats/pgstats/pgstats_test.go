package pgstats_test

import (
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"snowlink/internal/postgres"
	"snowlink/internal/postgres/postgrestest"
	"snowlink/internal/stats"
	"snowlink/internal/stats/pgstats"
	"snowlink/internal/stats/statstest"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

const tenYears = 10 * 366 * 24 * time.Hour

// connect opens the archive at the addresses.
func connect(t testing.TB, urls []string) *postgres.Shards {
	t.Helper()
	shards, err := postgres.Open(strings.Join(urls, ","), 0, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shards.Close)
	if err := shards.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return shards
}

func TestContract(t *testing.T) {
	for name, tended := range map[string]bool{"as appended": false, "while tended": true} {
		t.Run(name, func(t *testing.T) {
			var urls []string
			open := func(t *testing.T) stats.Store {
				s := pgstats.New(connect(t, urls), pgstats.Options{Keep: tenYears})
				if !tended {
					return s
				}
				return tending{s, t}
			}
			statstest.Run(t, func(t *testing.T) stats.Store {
				urls = postgrestest.Databases(t, 3)
				return open(t)
			}, statstest.Traits{Another: open})
		})
	}
}
