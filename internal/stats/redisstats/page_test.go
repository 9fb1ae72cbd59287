package redisstats_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"snowlink/internal/clicks"
	"snowlink/internal/stats/redisstats"
)

// Each number is new once, in whatever order they come, if none is further behind than the window.
// What is further behind counts as old.
func TestNumbersAreNewOnce(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	isNew := redisstats.Numbers(false)
	const n = 20_000
	numbers := r.Perm(n)
	slices.SortStableFunc(numbers, func(a, b int) int { return a/1000 - b/1000 })
	for i, x := range numbers {
		if x%3 == 0 {
			continue // some never come
		}
		if !isNew(uint64(x)) {
			t.Fatalf("number %d of them, %d, is not new", i, x)
		}
		if isNew(uint64(x)) {
			t.Fatalf("%d is new twice", x)
		}
	}
	for x := range uint64(n) {
		if want := x%3 == 0 && x+redisstats.Window > n-1; isNew(x) != want && x+redisstats.Window != n-1 {
			t.Fatalf("%d is new: %v, want %v", x, !want, want)
		}
	}
	ordered := redisstats.Numbers(true)
	for _, step := range []struct {
		x    uint64
		want bool
	}{{0, true}, {0, false}, {7, true}, {3, false}, {7, false}, {8, true}} {
		if ordered(step.x) != step.want {
			t.Errorf("of ordered ones, %d is new: %v", step.x, !step.want)
		}
	}
}

// A page that was damaged is an error or other numbers, but no panic and no endless loop.
func FuzzReadPage(f *testing.F) {
	batches := []clicks.Batch{today("p", 1, 300), today("p", 2, 3)}
	batches[1].Counts[0].Tags = []string{"tag"}
	for _, whole := range []bool{false, true} {
		f.Add(redisstats.Page(batches, whole))
	}
	f.Fuzz(func(t *testing.T, text string) {
		whole, err := redisstats.Rewritten(text)
		if err != nil {
			return
		}
		if _, err := redisstats.Rewritten(string(whole)); err != nil {
			t.Errorf("a page that was rewritten is not readable: %v", err)
		}
	})
}
