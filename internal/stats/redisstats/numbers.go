package redisstats

import (
	"slices"
)

// window is how far behind the newest batch of a producer another may arrive. It is more than
// clicks.ReorderMost, so that a batch that failed half-way may be repeated long after the next ones
// were applied. What is further behind counts as applied.
const window = 4096

// numbers are the numbers of what one producer made and was applied.
type numbers struct {
	ordered bool   // see clicks.Batch
	last    uint64 // the largest; of ordered ones, the one behind it, since theirs begin with 0
	day     int    // of the last application
	runs    []run  // those within the window, in order; of ordered ones, none
}

// run is the numbers from the first to the last one, both included.
type run struct{ from, to uint64 }

// add takes note of a number, and reports whether it is new.
func (n *numbers) add(x uint64) bool {
	if n.ordered {
		if x < n.last {
			return false
		}
		n.last = x + 1
		return true
	}
	if x+window <= n.last {
		return false
	}
	i, found := slices.BinarySearchFunc(n.runs, x, func(r run, x uint64) int {
		switch {
		case r.to < x:
			return -1
		case r.from > x:
			return 1
		}
		return 0
	})
	if found {
		return false
	}
	before, after := i > 0 && n.runs[i-1].to+1 == x, i < len(n.runs) && n.runs[i].from == x+1
	switch {
	case before && after:
		n.runs[i-1].to = n.runs[i].to
		n.runs = slices.Delete(n.runs, i, i+1)
	case before:
		n.runs[i-1].to = x
	case after:
		n.runs[i].from = x
	default:
		n.runs = slices.Insert(n.runs, i, run{x, x})
	}
	if n.last = max(n.last, x); n.runs[0].to+window <= n.last {
		n.runs = slices.Delete(n.runs, 0, 1)
	}
	return true
}
