package postgres

import (
	"fmt"
	"math"
	"testing"

	"snowlink/snowflake"
)

func TestHomesAreBalancedAndMoveOnlyToTheNewShard(t *testing.T) {
	const links = 100_000
	for name, code := range map[string]func(int) string{
		"minted": func(i int) string { return snowflake.Encode(snowflake.ID(115394839571988480 + i)) },
		"chosen": func(i int) string { return fmt.Sprint("code-", i) },
	} {
		counts := make([][]int, 11)
		for i := range links {
			before := 0
			for n := 1; n <= 10; n++ {
				if counts[n] == nil {
					counts[n] = make([]int, n)
				}
				now := home(code(i), n)
				counts[n][now]++
				if now != before && now != n-1 {
					t.Fatalf("%s: from %d to %d shards %s moves from %d to %d", name, n-1, n, code(i), before, now)
				}
				before = now
			}
		}
		for n := 1; n <= 10; n++ {
			for shard, count := range counts[n] {
				mean := float64(links) / float64(n)
				if math.Abs(float64(count)-mean) > 5*math.Sqrt(mean) { // five standard deviations
					t.Errorf("%s: shard %d of %d has %d of %d", name, shard, n, count, links)
				}
			}
		}
	}
}

// Where rows are follows from this function: these must hold for ever.
func TestHomesNeverChange(t *testing.T) {
	for code, want := range map[string][]int{
		"8h4LRT53E8": {0, 0, 2, 2, 4},
		"launch":     {0, 1, 1, 1, 4},
		"a":          {0, 1, 1, 1, 1},
	} {
		for i, shard := range want {
			if got := home(code, i+1); got != shard {
				t.Errorf("home(%q, %d) = %d, want %d", code, i+1, got, shard)
			}
		}
	}
}
