package stats

import (
	"cmp"
	"slices"
)

// GroupSum is clicks of a group: of one combination of values, which an implementation gives a number.
type GroupSum struct {
	Group  uint32
	Clicks int64
}

// Groups adds up clicks by groups, in lists: a question has up to a million, and a map of them is five times as
// slow. The zero value is ready. It is not for concurrent use.
type Groups struct {
	at []int32 // room of Once, by group: 0
}

// Add adds clicks to a list, in which a group may then be several times.
func (g *Groups) Add(list []GroupSum, group uint32, n int64) []GroupSum {
	last := len(list) - 1
	switch {
	case last >= 0 && list[last].Group == group:
		list[last].Clicks += n
		return list
	case len(list) == cap(list) && len(list) > 1<<14: // or it would grow with the time that is asked about
		list = g.Once(list)
		list = slices.Grow(list, len(list))
	}
	return append(list, GroupSum{group, n})
}

// Once returns a list in which each group is once, in the same room.
func (g *Groups) Once(list []GroupSum) []GroupSum {
	kept := list[:0]
	for _, s := range list {
		if int(s.Group) >= len(g.at) {
			g.at = append(g.at, make([]int32, int(s.Group)+1-len(g.at))...)
		}
		if at := g.at[s.Group]; at > 0 {
			kept[at-1].Clicks += s.Clicks
		} else {
			kept = append(kept, s)
			g.at[s.Group] = int32(len(kept))
		}
	}
	for _, s := range kept {
		g.at[s.Group] = 0
	}
	return kept
}

// Most returns the n groups of a list with the most clicks, in the order of a Question's rows, and all others as
// one, which is rest. If the list has no more than n, it returns them all, in order. Each group is in the list
// once; those without clicks are left out.
func Most(list []GroupSum, n int, rest uint32, values func(group uint32) []string) []GroupSum {
	list = slices.DeleteFunc(list, func(s GroupSum) bool { return s.Clicks == 0 })
	compare := func(x, y GroupSum) int {
		if x.Clicks != y.Clicks {
			return cmp.Compare(y.Clicks, x.Clicks)
		}
		return slices.Compare(values(x.Group), values(y.Group))
	}
	if len(list) <= n {
		slices.SortFunc(list, compare)
		return list
	}
	others := GroupSum{Group: rest}
	most := make([]GroupSum, 0, n+1)
	insert := func(s GroupSum) {
		i, _ := slices.BinarySearchFunc(most, s, compare)
		most = slices.Insert(most, i, s)
	}
	for _, s := range list {
		switch {
		case s.Group == rest:
			others.Clicks += s.Clicks
		case len(most) < n:
			insert(s)
		case compare(s, most[n-1]) < 0:
			others.Clicks += most[n-1].Clicks
			most = most[:n-1]
			insert(s)
		default:
			others.Clicks += s.Clicks
		}
	}
	insert(others)
	return most
}
