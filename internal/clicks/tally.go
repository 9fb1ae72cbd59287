package clicks

import (
	"cmp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"snowlink/internal/link"
)

// A tally adds up clicks until somebody takes them. While the queue is away it is the same one for
// long, so that what waits grows with the links that are clicked and not with their clicks.
type tally struct {
	counts   []tallied
	facts    []talliedFacts
	visitors []talliedVisitor
	combos   []Facts
	misses   map[miss]int64

	byCode  table // to the newest hour of a link in counts
	byHash  table // facts to combos
	byCount table // a count and a combo, to facts
	seen    table // visitors

	bytes int64 // about what all of it takes
}

// tallied is a Count in a tally. Its facts and visitors are lists: -1 ends them.
type tallied struct {
	code         string
	of           *origin
	hour         int64 // since 1970
	next         int32 // the next count of the same link, in another hour
	facts        int32
	visitors     int32
	combos       int32 // how many facts there are
	seen         int32 // how many visitors
	clicks, bots int64
}

// An origin is what many links have in common.
type origin struct {
	owner string
	tags  []string
}

type talliedFacts struct {
	count, combo, next int32
	clicks             int64
}

type talliedVisitor struct {
	hash uint64
	next int32
}

type miss struct {
	hour int64
	code string
}

// What a tally takes for each thing in it, in bytes, with the maps. Measured: see TestWaitingBudget.
const (
	linkBytes    = 180
	factsBytes   = 72
	visitorBytes = 64
	comboBytes   = 400
	missBytes    = 120
)

const (
	// maxCombos is how many combinations of facts a link has in a tally. What is beyond is Other.
	maxCombos = 1000
	// maxMisses is how many codes without a link a tally has.
	maxMisses = 2000

	// What a batch has at most: so that no queue finds one too large. The facts of its last link may
	// be beyond. batchBytes is of an estimate of what is encoded.
	batchCounts   = 5000
	batchFacts    = 10_000
	batchVisitors = 16 << 10
	batchBytes    = 512 << 10
	batchMisses   = 100
)

func newTally() *tally { return &tally{misses: make(map[miss]int64)} }

// reset empties the tally. It gives back its memory if that is much more than was needed.
func (t *tally) reset() {
	emptied(&t.counts)
	emptied(&t.facts)
	emptied(&t.visitors)
	emptied(&t.combos)
	clear(t.misses)
	for _, index := range []*table{&t.byCode, &t.byHash, &t.byCount, &t.seen} {
		index.clear()
	}
	t.bytes = 0
}

func emptied[T any](s *[]T) {
	if cap(*s) > minTable && 16*len(*s) < cap(*s) {
		*s = nil
	}
	clear(*s) // it may have pointers
	*s = (*s)[:0]
}

func (t *tally) empty() bool { return len(t.counts) == 0 && len(t.misses) == 0 }

// count returns the place of the count of a link and an hour, or -1. The first one of the link is at
// head, or head is -1.
func (t *tally) count(hash uint64, code []byte, hour int64) (i, head int32) {
	head = t.byCode.find(hash, func(i int32) bool { return t.counts[i].code == string(code) })
	for i = head; i >= 0 && t.counts[i].hour != hour; i = t.counts[i].next {
	}
	return i, head
}

// newCount makes the count that count has not found, and returns its place.
func (t *tally) newCount(hash uint64, code []byte, of *origin, hour int64, head int32) int32 {
	i := int32(len(t.counts))
	c := tallied{of: of, hour: hour, next: -1, facts: -1, visitors: -1}
	if head < 0 {
		c.code = string(code)
		t.byCode.put(hash, i)
		t.bytes += int64(len(code))
	} else {
		first := &t.counts[head]
		c.code, c.next, first.next = first.code, first.next, i
	}
	t.counts = append(t.counts, c)
	t.bytes += linkBytes
	return i
}

func newOrigin(owner, tags []byte) *origin {
	o := &origin{owner: link.DefaultOwner}
	if len(owner) > 0 {
		o.owner = text(string(owner), maxOwner)
	}
	for len(tags) > 0 {
		n := 1 + int(tags[0])
		if tag := text(string(tags[1:n]), maxText); tag != "" {
			o.tags = append(o.tags, tag)
		}
		tags = tags[n:]
	}
	return o
}

// fact counts a click of the count at i under a combination of facts. It reports false if that would
// be one more, and there may be no more.
func (t *tally) fact(i, combo int32, more bool) bool {
	key := mixed(uint64(i)<<32 | uint64(combo))
	f := t.byCount.find(key, func(f int32) bool { return t.facts[f].count == i && t.facts[f].combo == combo })
	if f >= 0 {
		t.facts[f].clicks++
		return true
	}
	if !more {
		return false
	}
	c := &t.counts[i]
	t.byCount.put(key, int32(len(t.facts)))
	t.facts = append(t.facts, talliedFacts{count: i, combo: combo, next: c.facts, clicks: 1})
	c.facts = int32(len(t.facts) - 1)
	c.combos++
	t.bytes += factsBytes
	return true
}

// combo returns the place of the facts that hash to hash, or -1.
func (t *tally) combo(hash uint64) int32 { return t.byHash.find(hash, nil) }

func (t *tally) newCombo(hash uint64, f Facts) int32 {
	i := int32(len(t.combos))
	t.byHash.put(hash, i)
	t.combos = append(t.combos, f)
	t.bytes += comboBytes
	return i
}

// visitor counts a visitor of the count at i. It reports false if that would be one more, and there
// may be no more.
func (t *tally) visitor(i int32, hash uint64, more bool) bool {
	if t.seen.find(hash, nil) >= 0 {
		return true
	}
	if !more {
		return false
	}
	t.seen.put(hash, 0)
	c := &t.counts[i]
	t.visitors = append(t.visitors, talliedVisitor{hash: hash, next: c.visitors})
	c.visitors = int32(len(t.visitors) - 1)
	c.seen++
	t.bytes += visitorBytes
	return true
}

// miss counts a miss. Once there are too many codes, each loses as many misses as the rarest of them
// has: those that stay are the most frequent ones (Misra and Gries), with fewer misses than they had.
func (t *tally) miss(code []byte, hour int64) {
	if len(t.misses) >= maxMisses {
		if _, known := t.misses[miss{hour, string(code)}]; !known {
			for m, n := range t.misses {
				if n == 1 {
					delete(t.misses, m)
					t.bytes -= missBytes
				} else {
					t.misses[m] = n - 1
				}
			}
			return
		}
	}
	m := miss{hour, string(code)}
	before := len(t.misses)
	t.misses[m]++
	t.bytes += missBytes * int64(len(t.misses)-before)
}

// takeMisses returns the most frequent ones, and forgets all.
func (t *tally) takeMisses() []Miss {
	if len(t.misses) == 0 {
		return nil
	}
	misses := make([]Miss, 0, len(t.misses))
	for m, n := range t.misses {
		misses = append(misses, Miss{Hour: time.Unix(m.hour*3600, 0).UTC(), Code: m.code, Clicks: n})
	}
	slices.SortFunc(misses, func(a, b Miss) int {
		return cmp.Or(cmp.Compare(b.Clicks, a.Clicks), strings.Compare(a.Code, b.Code), a.Hour.Compare(b.Hour))
	})
	clear(t.misses)
	return slices.Clone(misses[:min(len(misses), batchMisses)])
}

// text returns s as a value may be: at most so many bytes of UTF-8 without control characters, and
// without spaces around it.
func text(s string, most int) string {
	if !isText(s) {
		s = strings.Map(func(r rune) rune {
			if unicode.IsControl(r) {
				return ' '
			}
			return r
		}, strings.ToValidUTF8(s, "\ufffd"))
	}
	s = strings.TrimSpace(s)
	if len(s) > most {
		for most > 0 && !utf8.RuneStart(s[most]) {
			most--
		}
		s = strings.TrimSpace(s[:most])
	}
	return s
}

// take moves what a batch has room for from the tally to b, beginning with the count at from, and
// returns where the next batch begins.
func (t *tally) take(b *Batch, from int) (next int) {
	facts := make([]FactCount, 0, min(len(t.facts), batchFacts+maxCombos+1))
	visitors := make([]uint64, 0, min(len(t.visitors), batchVisitors))
	b.Counts = make([]Count, 0, min(len(t.counts)-from, batchCounts))
	size := 0
	for next = from; next < len(t.counts) && len(b.Counts) < batchCounts && len(facts) < batchFacts && size < batchBytes; next++ {
		c := &t.counts[next]
		count := Count{Code: c.code, Owner: c.of.owner, Tags: c.of.tags, Hour: time.Unix(c.hour*3600, 0).UTC(), Clicks: c.clicks, Bots: c.bots}
		firstFact, firstVisitor := len(facts), len(visitors)
		split := int(c.seen) > batchVisitors-len(visitors)
		if split { // as many of its people as there is room for, each with a click
			count.Clicks, count.Bots = int64(batchVisitors-len(visitors)), 0
			if count.Clicks == 0 {
				break
			}
			c.clicks -= count.Clicks
			c.seen -= int32(count.Clicks)
		}
		left := count.Clicks
		for i := c.facts; i >= 0; i = t.facts[i].next {
			f := &t.facts[i]
			n := f.clicks
			if split {
				if t.combos[f.combo][Bot] != "" {
					continue
				}
				n = min(n, left)
				left -= n
			}
			if n > 0 {
				f.clicks -= n
				facts = append(facts, FactCount{Facts: t.combos[f.combo], Clicks: n})
			}
		}
		for n := 0; c.visitors >= 0 && (!split || int64(n) < count.Clicks); n++ {
			visitors = append(visitors, t.visitors[c.visitors].hash)
			c.visitors = t.visitors[c.visitors].next
		}
		count.Facts, count.Visitors = facts[firstFact:len(facts):len(facts)], visitors[firstVisitor:len(visitors):len(visitors)]
		b.Counts = append(b.Counts, count)
		size += 32 + len(c.code) + len(c.of.owner) + 4*len(count.Facts) + 8*len(count.Visitors)
		for _, tag := range c.of.tags {
			size += len(tag)
		}
		if split {
			break
		}
	}
	b.Misses = t.takeMisses()
	return next
}
