package snowflake_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"snowlink/snowflake"
)

func TestGeneratorsAreDistinctAndOrdered(t *testing.T) {
	const (
		nodes   = 3
		callers = 4 // of each node
		total   = 1_000_000
		each    = (total + nodes*callers - 1) / (nodes * callers)
	)
	var (
		wg  sync.WaitGroup
		ids [nodes * callers][]snowflake.ID
	)
	for node := range nodes {
		wg.Go(func() { // side by side, since making a Generator sets up what all of them share
			g, err := snowflake.NewGenerator(node)
			if err != nil {
				t.Error(err)
				return
			}
			for caller := range callers {
				wg.Go(func() {
					mine := make([]snowflake.ID, each)
					for i := range mine {
						mine[i] = g.Next()
					}
					ids[node*callers+caller] = mine
				})
			}
		})
	}
	wg.Wait()

	var all []snowflake.ID
	for i, mine := range ids {
		for j, id := range mine {
			if id < 0 || id.Node() != i/callers {
				t.Fatalf("ID %d of node %d says node %d", id, i/callers, id.Node())
			}
			if j > 0 && id <= mine[j-1] {
				t.Fatalf("node %d: ID %d after %d", i/callers, id, mine[j-1])
			}
		}
		all = append(all, mine...)
	}
	if len(all) < total {
		t.Fatalf("%d IDs, want %d", len(all), total)
	}
	slices.Sort(all)
	if distinct := slices.Compact(slices.Clone(all)); len(distinct) != len(all) {
		t.Fatalf("%d IDs, %d distinct", len(all), len(distinct))
	}
}

func TestNodeRange(t *testing.T) {
	for _, node := range []int{0, 1, snowflake.MaxNode} {
		g, err := snowflake.NewGenerator(node)
		if err != nil {
			t.Fatalf("node %d: %v", node, err)
		}
		if got := g.Next().Node(); got != node {
			t.Errorf("an ID of node %d says node %d", node, got)
		}
	}
	for _, node := range []int{-1, snowflake.MaxNode + 1} {
		if _, err := snowflake.NewGenerator(node); err == nil {
			t.Errorf("node %d was taken", node)
		}
	}
}

// The clock of a synctest bubble starts at 2000-01-01 and moves by sleeping.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sleepUntil := func(at string) {
			t.Helper()
			time.Sleep(time.Until(parseTime(t, at)))
		}
		for _, tt := range []struct {
			at string
			ok bool
		}{
			{"2000-01-01T00:00:00Z", false},
			{"2025-12-31T23:59:59.999Z", false},
			{"2026-01-01T00:00:00Z", true},
			{"2095-09-07T15:47:35.551Z", true},
			{"2095-09-07T15:47:35.552Z", false},
		} {
			sleepUntil(tt.at)
			g, err := snowflake.NewGenerator(7)
			if !tt.ok {
				if err == nil {
					t.Errorf("%s: got a Generator that mints %d", tt.at, g.Next())
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", tt.at, err)
				continue
			}
			id := g.Next()
			if want := parseTime(t, tt.at); !id.Time().Equal(want) || id.Time().Location() != time.UTC {
				t.Errorf("%s: the ID says %s", tt.at, id.Time())
			}
			if id < 0 || id.Node() != 7 {
				t.Errorf("%s: got ID %d of node %d", tt.at, id, id.Node())
			}
		}
	})
}

func TestIDKeepsTimeAfterStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(parseTime(t, "2027-03-04T05:06:07Z")))
		g, err := snowflake.NewGenerator(0)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(48*time.Hour + 1500*time.Microsecond)
		if got, want := g.Next().Time(), parseTime(t, "2027-03-06T05:06:07.001Z"); !got.Equal(want) {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

func BenchmarkNext(b *testing.B) {
	g, err := snowflake.NewGenerator(0)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		g.Next()
	}
}

func parseTime(t *testing.T, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// firstOf returns the lowest ID that a node can mint at the given time, lastOf the highest of all
// nodes.
func firstOf(at time.Time) snowflake.ID {
	return snowflake.ID((at.UnixMilli() - snowflake.Epoch) << 22)
}

func lastOf(at time.Time) snowflake.ID {
	return firstOf(at) | 1<<22 - 1
}
