package redisstats

import (
	"cmp"
	"slices"

	"github.com/axiomhq/hyperloglog"

	"snowlink/internal/clicks"
	"snowlink/internal/stats"
)

// Bounds of what is kept of a scope and a day. What is beyond them is still counted: see fold.
const (
	combinationsMost = 128  // of facts
	valuesMost       = 100  // of a dimension, among the facts whose combination is not kept
	linksMost        = 2000 // of the links with the most clicks
	visitorsMost     = 512  // one by one; a sketch has more
)

// tally is a number of clicks.
type tally struct{ people, bots int64 }

func (t *tally) add(other tally) { t.people, t.bots = t.people+other.people, t.bots+other.bots }

func (t tally) of(bots stats.Bots) int64 { return bots.Of(t.people, t.bots) }

func (t tally) sum() int64 { return t.people + t.bots }

// sums are the clicks of a scope on a day. Lists may name the same thing several times, until they
// are tidied. In totals, last is the day of the last click, and only last and hours are used.
type sums struct {
	hours    []hourSum
	combined []combinedSum
	single   []valueSum
	visitors []uint64
	sketch   *hyperloglog.Sketch // of more visitors, nil if there are none
	counted  int64               // even more, of a day that is over
	links    []linkSum
	last     int

	isTidy bool       // whether it was read as it was once tidied
	tidied int        // how long combined was after it was tidied
	first  [1]hourSum // saves an allocation for hours where there is one
}

type hourSum struct {
	hour uint8
	tally
}

// combinedSum is the clicks with some facts, which are an index into the page's.
type combinedSum struct {
	facts  int32
	hour   uint8
	clicks int64
}

// valueSum is the clicks with a value, of those whose combination of facts is not kept.
type valueSum struct {
	dimension uint8
	value     string
	hours     []hourSum
}

// linkSum is the clicks of a link of the scope.
type linkSum struct {
	code string
	tally
}

// merge sorts a list and adds up what is equal.
func merge[T any](list []T, compare func(a, b T) int, add func(to *T, from T)) []T {
	if len(list) < 2 {
		return list
	}
	slices.SortFunc(list, compare)
	n := 0
	for _, x := range list[1:] {
		if compare(list[n], x) == 0 {
			add(&list[n], x)
			continue
		}
		n++
		list[n] = x
	}
	return list[:n+1]
}

func (s *sums) tidyCombined() {
	s.combined = merge(s.combined, func(a, b combinedSum) int {
		return cmp.Or(cmp.Compare(a.facts, b.facts), cmp.Compare(a.hour, b.hour))
	}, func(to *combinedSum, from combinedSum) { to.clicks += from.clicks })
	s.tidied = len(s.combined)
}

// addCombined adds clicks, and keeps the list from growing without end.
func (s *sums) addCombined(c combinedSum) {
	if s.combined = append(s.combined, c); len(s.combined) > 2*s.tidied+1024 {
		s.tidyCombined()
	}
}

// tidy adds up what is equal, and keeps the bounds.
func (s *sums) tidy(facts []clicks.Facts) {
	if s.isTidy {
		return
	}
	s.hours = merge(s.hours, func(a, b hourSum) int { return cmp.Compare(a.hour, b.hour) },
		func(to *hourSum, from hourSum) { to.add(from.tally) })
	s.tidyCombined()
	s.fold(facts)
	s.tidyLinks()
	slices.Sort(s.visitors)
	s.visitors = slices.Compact(s.visitors)
	s.cutVisitors()
}

// fold keeps the most frequent combinations of facts. Of the others it keeps, for each dimension, how
// often each value came, and of the rarer values only how often all of them came together. So
// the clicks by one dimension always sum up to all clicks, and those of frequent values are exact.
func (s *sums) fold(facts []clicks.Facts) {
	type group struct {
		from, to int // of combined
		clicks   int64
	}
	var groups []group
	for i, c := range s.combined {
		if i == 0 || c.facts != s.combined[i-1].facts {
			groups = append(groups, group{from: i})
		}
		g := &groups[len(groups)-1]
		g.to, g.clicks = i+1, g.clicks+c.clicks
	}
	var values valueSums
	for _, v := range s.single {
		for _, h := range v.hours {
			values.add(values.number(v.dimension, v.value), h.hour, h.tally)
		}
	}
	if len(groups) > combinationsMost {
		slices.SortStableFunc(groups, func(a, b group) int { return cmp.Compare(b.clicks, a.clicks) })
		kept := make([]combinedSum, 0, combinationsMost)
		for i, g := range groups {
			if i < combinationsMost {
				kept = append(kept, s.combined[g.from:g.to]...)
				continue
			}
			f := &facts[s.combined[g.from].facts]
			var numbers [clicks.Dimensions]int
			for d, value := range f {
				numbers[d] = values.number(uint8(d), value)
			}
			for _, c := range s.combined[g.from:g.to] {
				t := tally{people: c.clicks}
				if f[clicks.Bot] != "" {
					t = tally{bots: c.clicks}
				}
				for _, n := range numbers {
					values.add(n, c.hour, t)
				}
			}
		}
		s.combined = kept
		s.tidyCombined()
	}
	s.single = values.list()
}

// valueSums adds up clicks by values.
type valueSums struct {
	of   map[dimensionValue]int
	sums []hourSums
}

type dimensionValue struct {
	dimension uint8
	value     string
}

type hourSums struct {
	dimensionValue
	hours  [24]tally
	clicks int64
}

func (v *valueSums) number(dimension uint8, value string) int {
	id := dimensionValue{dimension, value}
	n, ok := v.of[id]
	if !ok {
		if v.of == nil {
			v.of = make(map[dimensionValue]int)
		}
		n = len(v.sums)
		v.of[id], v.sums = n, append(v.sums, hourSums{dimensionValue: id})
	}
	return n
}

func (v *valueSums) add(number int, hour uint8, t tally) {
	if s := &v.sums[number]; int(hour) < len(s.hours) {
		s.hours[hour].add(t)
		s.clicks += t.sum()
	}
}

// list returns the sums of the most frequent values of each dimension, and of the others as Other.
func (v *valueSums) list() (list []valueSum) {
	slices.SortFunc(v.sums, func(a, b hourSums) int {
		return cmp.Or(cmp.Compare(a.dimension, b.dimension), cmp.Compare(b.clicks, a.clicks))
	})
	var others hourSums
	var values int // of the dimension so far
	appendSums := func(s *hourSums) {
		if s.clicks == 0 {
			return
		}
		sum := valueSum{dimension: s.dimension, value: s.value}
		for hour, t := range s.hours {
			if t != (tally{}) {
				sum.hours = append(sum.hours, hourSum{uint8(hour), t})
			}
		}
		list = append(list, sum)
	}
	for i := range v.sums {
		s := &v.sums[i]
		if i == 0 || s.dimension != v.sums[i-1].dimension {
			appendSums(&others)
			values, others = 0, hourSums{dimensionValue: dimensionValue{s.dimension, clicks.Other}}
		}
		if values++; values < valuesMost && s.value != clicks.Other {
			appendSums(s)
			continue
		}
		for hour, t := range s.hours {
			others.hours[hour].add(t)
		}
		others.clicks += s.clicks
	}
	appendSums(&others)
	return list
}

func (s *sums) tidyLinks() {
	s.links = merge(s.links, func(a, b linkSum) int { return cmp.Compare(a.code, b.code) },
		func(to *linkSum, from linkSum) { to.add(from.tally) })
	if len(s.links) > linksMost {
		slices.SortStableFunc(s.links, func(a, b linkSum) int { return cmp.Compare(b.sum(), a.sum()) })
		s.links = s.links[:linksMost]
	}
}

func (s *sums) cutVisitors() {
	if len(s.visitors) > visitorsMost || s.sketch != nil && len(s.visitors) > 0 {
		if s.sketch == nil {
			s.sketch = hyperloglog.New14()
		}
		for _, v := range s.visitors {
			s.sketch.InsertHash(v)
		}
		s.visitors = nil
	}
}

// people returns how many visitors there were. The sums are tidy.
func (s *sums) people() int64 {
	n := s.counted + int64(len(s.visitors))
	if s.sketch != nil {
		n += int64(s.sketch.Estimate())
	}
	return n
}

// settle keeps only the number of the visitors.
func (s *sums) settle() {
	s.counted, s.visitors, s.sketch = s.people(), nil, nil
}

// shorten keeps the bounds of sums that only grew long, such as those of everything. Most have
// clicks of one link in one hour, and are short.
func (s *sums) shorten(facts []clicks.Facts) {
	if len(s.hours)+len(s.combined)+len(s.links)+len(s.visitors) > 64 {
		s.visitors = slices.Clone(s.visitors) // they may be the batch's own
		s.tidy(facts)
	}
}
