package model

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// An invariant is what may break.
type invariant uint8

const (
	nothing     invariant = iota
	evictable             // what Redis may evict is archived as it stands
	lostUpdate            // readers do not get the last write
	outdated              // a change is made on a record that is not the last write, which is then lost for good
	resurrected           // a deleted link leads somewhere
	overwritten           // a code is given to another link
	missing               // a link is missing although a place has it
	stale                 // a read is older than what was acknowledged before it began
	unarchived            // something is never archived, or stays without a time to live
	different             // Redis and the archive differ for ever
	restless              // the archiver or the sweep never come to an end
	unexpected            // a Redis that lost nothing needs to be settled with the archive
	reserved              // a code is reserved for ever, and for nobody
	crowded               // the model has room for too few marks, which is no fault of the protocol
	large                 // the world is larger than it may be, which is none either
)

func (v invariant) String() string {
	return [...]string{
		"nothing", "evictable but not archived as it stands", "lost update", "outdated change", "resurrection", "overwritten link",
		"missing although a place has it", "stale read", "never archived", "different for ever", "restless",
		"settled although Redis lost nothing", "reserved for nobody",
		"too many marks", "too many states",
	}[v]
}

// found is what a reader would find now, Redis and the archive asked in one step.
func (s *state) found() record {
	switch {
	case s.record.there():
		return s.record
	case s.isOver(s.row):
		return record{}
	}
	return s.archived()
}

// check names the invariant that s breaks, or nothing.
func (m *machine) check(s state) invariant {
	if !s.loose {
		if s.record.there() && s.ttl != none && !s.record.same(s.archived()) {
			m.broke(&s, evictable)
		}
		if broken := compare(s.found(), s.latest, s.graceOver); broken != nothing {
			m.broke(&s, broken)
		}
	}
	if m.quiet(s) {
		m.broke(&s, m.atRest(s))
	}
	return s.broken
}

// atRest is check for what holds only when nothing is under way.
func (m *machine) atRest(s state) invariant {
	found := s.found()
	if s.record.there() {
		switch {
		case s.ttl == none:
			return unarchived
		case s.ttl == short: // and soon gone
			found = s.archived()
		case !s.record.same(s.archived()):
			return different
		}
	}
	if s.reserved != 0 && !found.there() {
		return reserved
	}
	if s.loose && !m.inFlight && found.order != s.other.order {
		return compare(found, s.latest, s.graceOver)
	}
	return s.broken
}

func compare(found, latest record, graceOver bool) invariant {
	switch {
	case found.is(latest), graceOver && !latest.there() && found.value == deleted:
		return nothing
	case !found.there():
		return missing
	case latest.value == deleted && found.value != deleted:
		return resurrected
	}
	return lostUpdate
}

// quiet reports whether nothing is under way, and nothing waits for the archiver or the sweep.
func (m *machine) quiet(s state) bool {
	for i, p := range m.programs {
		if at := s.process[i].at; at != done && !(p.kind == archiving && at == start) {
			return false
		}
	}
	return s.marks == [maxMarks]uint8{} && !m.sweeps(s)
}

// canonical gives states that differ only in names one name: which of two like processes does what,
// and the numbers of marks where only their identity matters.
func (m *machine) canonical(s state, symmetry bool) state {
	if !m.markNumbers {
		var marks [maxMarks]uint8
		for k, mark := range s.marks {
			if mark != 0 {
				marks[k] = uint8(k + 1)
			}
		}
		for i := range m.programs {
			held := s.process[i].mark
			s.process[i].mark = 0
			for k, mark := range s.marks {
				if mark != 0 && mark == held {
					s.process[i].mark = uint8(k + 1)
				}
			}
		}
		s.marked = 0
		for _, mark := range marks {
			s.marked = max(s.marked, mark)
		}
		s.marks = marks
	}
	if symmetry {
		for again := true; again; {
			again = false
			for i := 1; i < len(m.programs); i++ {
				if m.programs[i-1] == m.programs[i] && less(&s.process[i], &s.process[i-1]) {
					s.process[i-1], s.process[i] = s.process[i], s.process[i-1]
					again = true
				}
			}
		}
	}
	return s
}

func less(a, b *process) bool {
	ka := [...]uint8{a.at, a.record.order, a.record.number, a.row.order, a.row.number, a.mark, a.since}
	kb := [...]uint8{b.at, b.record.order, b.record.number, b.row.order, b.row.number, b.mark, b.since}
	for i := range ka {
		if ka[i] != kb[i] {
			return ka[i] < kb[i]
		}
	}
	if a.pass != b.pass {
		return b.pass
	}
	if a.lock != b.lock {
		return b.lock
	}
	return !a.copied && b.copied
}

// A finding is what exploring a machine found.
type finding struct {
	states int
	quiet  int // of them
	broken invariant
	trace  string // the shortest way there
}

// explore goes through everything that may happen, breadth first, until an invariant breaks,
// nothing is left, or there are too many states. From each state the machine must be able to come
// to rest.
func (m *machine) explore(most int, symmetry bool) finding {
	first := m.canonical(m.first(), symmetry)
	states, from := []state{first}, []int32{-1}
	number := map[state]int32{first: 0}
	type edge struct{ from, to int32 }
	var edges []edge
	var resting []int32
	found := func(k int, broken invariant) finding {
		return finding{len(states), len(resting), broken, m.trace(states, from, k, symmetry)}
	}
	for k := 0; k < len(states); k++ {
		s := states[k]
		if m.quiet(s) {
			resting = append(resting, int32(k))
		}
		if broken := m.check(s); broken != nothing {
			return found(k, broken)
		}
		if len(states) > most {
			return found(k, large)
		}
		for _, next := range m.next(s) {
			to := m.canonical(next.to, symmetry)
			n, ok := number[to]
			if !ok {
				n = int32(len(states))
				number[to] = n
				states, from = append(states, to), append(from, int32(k))
			}
			edges = append(edges, edge{int32(k), n})
		}
	}
	// Backwards from where it rests.
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Compare(a.to, b.to) })
	rests := make([]bool, len(states))
	for _, k := range resting {
		rests[k] = true
	}
	for todo := slices.Clone(resting); len(todo) > 0; {
		k := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		at, _ := slices.BinarySearchFunc(edges, k, func(e edge, k int32) int { return cmp.Compare(e.to, k) })
		for ; at < len(edges) && edges[at].to == k; at++ {
			if f := edges[at].from; !rests[f] {
				rests[f] = true
				todo = append(todo, f)
			}
		}
	}
	if k := slices.Index(rests, false); k >= 0 && m.only == nothing {
		return found(k, restless)
	}
	return finding{states: len(states), quiet: len(resting)}
}

// trace tells the way to states[k], a step a line.
func (m *machine) trace(states []state, from []int32, k int, symmetry bool) string {
	var way []int32
	for at := int32(k); at >= 0; at = from[at] {
		way = append(way, at)
	}
	m.say = true
	defer func() { m.say = false }()
	var b strings.Builder
	fmt.Fprintf(&b, "%-58s %v\n", "at first", where(states[0]))
	for n := len(way) - 1; n > 0; n-- {
		for _, next := range m.next(states[way[n]]) {
			if m.canonical(next.to, symmetry) == states[way[n-1]] {
				fmt.Fprintf(&b, "%-58s %v\n", next.what, where(next.to))
				break
			}
		}
	}
	return b.String()
}

func where(s state) string {
	ttl := [...]string{"", ", for an hour", ", for long"}[s.ttl]
	marks := 0
	for _, mark := range s.marks {
		if mark != 0 {
			marks++
		}
	}
	old := ""
	if s.old.there() {
		old = fmt.Sprintf(", in its old home %v", s.old)
	}
	return fmt.Sprintf("Redis: %v%s; archive: %v%s; marks: %d", s.record, ttl, s.row, old, marks)
}
