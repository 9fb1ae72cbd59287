package pgstats

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"

	"snowlink/internal/clicks"
)

// Sums are the clicks of a scope in one row of a table, by slot: the hours of a day, or the days of a
// month. In a slot they are kept in combination, up to jointMost ones. Those with the fewest clicks are
// folded beyond that: they are counted once for each dimension, by its value alone, together with
// whether they are bots. So sums, bots and single dimensions stay exact, whatever visitors send, until
// a dimension has more than valuesMost values in a slot, or those of a kind of bots more than a quarter as
// many. Then those with the fewest clicks are Other.
const (
	jointMost  = 256
	valuesMost = 200
	botsMost   = 16 // kinds of bots
)

// words are values, each by a number. All numbers of a question or of a merge are of the same words.
type words struct {
	ids  map[string]uint32
	list []string
}

// The words that are always there.
const (
	none uint32 = iota
	other
	fixed // how many
)

func newWords() *words {
	return &words{ids: map[string]uint32{"": none, clicks.Other: other}, list: []string{"", clicks.Other}}
}

func (w *words) id(word string) uint32 {
	if word == "" {
		return none
	}
	id, ok := w.ids[word]
	if !ok {
		id = w.add(word)
	}
	return id
}

func (w *words) idOf(word []byte) uint32 {
	id, ok := w.ids[string(word)] // without a copy
	if !ok {
		id = w.add(string(word))
	}
	return id
}

func (w *words) add(word string) uint32 {
	id := uint32(len(w.list))
	w.list = append(w.list, word)
	w.ids[word] = id
	return id
}

func (w *words) facts(f *clicks.Facts) (ids facts) {
	for d := range f {
		ids[d] = w.id(f[d])
	}
	return ids
}

// facts are clicks.Facts by numbers of words.
type facts [clicks.Dimensions]uint32

// part is a value of one dimension.
type part struct {
	bot, dimension, value uint32
}

// slot is the clicks of an hour or a day.
type slot struct {
	joint  map[facts]int64
	folded map[uint32]int64 // by the value of Bot
	parts  map[part]int64   // the folded ones, by each dimension but Bot
}

func (s *slot) add(f facts, n int64) {
	if s.joint == nil {
		s.joint = make(map[facts]int64)
	}
	s.joint[f] += n
}

func (s *slot) fold(f facts, n int64) {
	bot := s.foldTotal(f[clicks.Bot], n)
	for d, value := range f {
		if d != int(clicks.Bot) {
			s.parts[part{bot, uint32(d), value}] += n
		}
	}
}

// foldTotal adds to the sum of what is folded, and returns under which value of Bot.
func (s *slot) foldTotal(bot uint32, n int64) uint32 {
	if s.folded == nil {
		s.folded, s.parts = make(map[uint32]int64), make(map[part]int64)
	}
	if _, ok := s.folded[bot]; !ok && len(s.folded) >= botsMost && bot != none {
		bot = other
	}
	s.folded[bot] += n
	return bot
}

// addPart adds to a value of what is folded. The sum of its kind of bots was added before.
func (s *slot) addPart(p part, n int64) {
	if _, ok := s.folded[p.bot]; !ok {
		p.bot = other
	}
	s.parts[p] += n
}

// bound folds all but the most frequent combinations, and all but the most frequent values of each
// dimension into Other.
func (s *slot) bound(joint, values int) {
	if len(s.joint) > joint {
		type entry struct {
			facts
			n int64
		}
		all := make([]entry, 0, len(s.joint))
		for f, n := range s.joint {
			all = append(all, entry{f, n})
		}
		slices.SortFunc(all, func(a, b entry) int {
			if a.n != b.n {
				return int(min(max(b.n-a.n, -1), 1))
			}
			return slices.Compare(a.facts[:], b.facts[:])
		})
		for _, e := range all[joint:] {
			s.fold(e.facts, e.n)
			delete(s.joint, e.facts)
		}
	}
	if len(s.parts) <= values/4 {
		return
	}
	type entry struct {
		part
		n int64
	}
	lists := make(map[part][]entry) // by bot and dimension
	for p, n := range s.parts {
		of := part{bot: p.bot, dimension: p.dimension}
		lists[of] = append(lists[of], entry{p, n})
	}
	for of, list := range lists {
		values := values
		if of.bot != none {
			values /= 4
		}
		if len(list) <= values {
			continue
		}
		slices.SortFunc(list, func(a, b entry) int {
			if a.n != b.n {
				return int(min(max(b.n-a.n, -1), 1))
			}
			return int(a.value) - int(b.value)
		})
		of.value = other
		for _, e := range list[values:] {
			if e.value != other {
				delete(s.parts, e.part)
				s.parts[of] += e.n
			}
		}
	}
}

// slotsMost is how many days a month has, or hours a day.
const slotsMost = 31

// sums are the slots of a row.
type sums struct {
	*words
	slots [slotsMost]*slot
}

func newSums(w *words) *sums { return &sums{words: w} }

func (s *sums) at(i int) *slot {
	if s.slots[i] == nil {
		s.slots[i] = &slot{}
	}
	return s.slots[i]
}

// reset forgets the clicks, and keeps the room for others.
func (s *sums) reset() {
	for i, slot := range s.slots {
		switch {
		case slot == nil:
		case len(slot.joint) > 64 || slot.folded != nil: // to clear a large one takes as long as it was large
			s.slots[i] = nil
		default:
			clear(slot.joint)
		}
	}
}

func (s *sums) bound(joint, values int) {
	for _, slot := range s.slots {
		if slot != nil {
			slot.bound(joint, values)
		}
	}
}

// wholeDay is the slot of a day that is not divided into hours.
const wholeDay = 24

// byHour returns the clicks of each hour by nothing but whether they are bots.
func (s *sums) byHour() *sums {
	out := newSums(s.words)
	for i, slot := range s.slots {
		if slot == nil {
			continue
		}
		for f, n := range slot.joint {
			out.at(i).add(facts{clicks.Bot: f[clicks.Bot]}, n)
		}
		for bot, n := range slot.folded {
			out.at(i).add(facts{clicks.Bot: bot}, n)
		}
	}
	return out
}

// singles returns all hours as one, by each dimension alone.
func (s *sums) singles() *sums { return s.whole((*slot).fold) }

// undivided returns all hours as one. Nothing is folded that was not: it tells as much as they do.
func (s *sums) undivided() *sums { return s.whole((*slot).add) }

// whole returns all hours as one, to which add adds what is not folded.
func (s *sums) whole(add func(day *slot, f facts, n int64)) *sums {
	out := newSums(s.words)
	day := out.at(wholeDay)
	for _, slot := range s.slots {
		if slot == nil {
			continue
		}
		for f, n := range slot.joint {
			add(day, f, n)
		}
		day.addFolded(slot)
	}
	return out
}

// addFolded adds what is folded in another slot.
func (s *slot) addFolded(from *slot) {
	for bot, n := range from.folded {
		s.foldTotal(bot, n)
	}
	for p, n := range from.parts {
		s.addPart(p, n)
	}
}

// The bytes of sums. Numbers are varints, and those of clicks are signed: for a moment there may be
// fewer than none without facts, while a part of a count that was sent in several has not arrived.
//
//	version 1
//	how many words, and for each its length and the word: they are numbered from 2 on
//	for each slot, until the end:
//	  its number
//	  how many combinations, and for each:
//	    a bit for each dimension that has a value, the values' words, the clicks
//	  how many values of Bot have folded clicks, and for each:
//	    its word, the clicks
//	    for each dimension but Bot: the length of the rest in bytes, and words with clicks
const version = 1

// encoder is room to encode sums in. It may be used for one after another.
type encoder struct {
	local      []uint32 // the numbers of words as they are written, 0 for those that are not
	used       []uint32 // which are
	body, list []byte
}

// encode returns the bytes of the sums.
func (e *encoder) encode(s *sums) []byte {
	if len(e.local) < len(s.list) {
		e.local = append(e.local, make([]uint32, len(s.list)-len(e.local))...)
	}
	defer func() {
		for _, id := range e.used {
			e.local[id] = 0
		}
		e.used = e.used[:0]
	}()
	body, list := e.body[:0], e.list[:0]
	word := func(id uint32) uint64 {
		if id < fixed {
			return uint64(id)
		}
		if e.local[id] == 0 {
			e.used = append(e.used, id)
			e.local[id] = fixed + uint32(len(e.used)) - 1
			list = binary.AppendUvarint(list, uint64(len(s.list[id])))
			list = append(list, s.list[id]...)
		}
		return uint64(e.local[id])
	}
	for i, slot := range s.slots {
		if slot == nil || len(slot.joint) == 0 && len(slot.folded) == 0 {
			continue
		}
		body = binary.AppendUvarint(body, uint64(i))
		body = binary.AppendUvarint(body, uint64(len(slot.joint)))
		for f, n := range slot.joint {
			var mask uint64
			for d, id := range f {
				if id != none {
					mask |= 1 << d
				}
			}
			body = binary.AppendUvarint(body, mask)
			for _, id := range f {
				if id != none {
					body = binary.AppendUvarint(body, word(id))
				}
			}
			body = binary.AppendVarint(body, n)
		}
		body = binary.AppendUvarint(body, uint64(len(slot.folded)))
		if len(slot.folded) == 0 {
			continue
		}
		var lists [clicks.Dimensions]map[uint32][]byte
		for p, n := range slot.parts {
			if lists[p.dimension] == nil {
				lists[p.dimension] = make(map[uint32][]byte)
			}
			l := binary.AppendUvarint(lists[p.dimension][p.bot], word(p.value))
			lists[p.dimension][p.bot] = binary.AppendVarint(l, n)
		}
		for bot, n := range slot.folded {
			body = binary.AppendUvarint(body, word(bot))
			body = binary.AppendVarint(body, n)
			for d := range lists {
				if d != int(clicks.Bot) {
					body = binary.AppendUvarint(body, uint64(len(lists[d][bot])))
					body = append(body, lists[d][bot]...)
				}
			}
		}
	}
	e.body, e.list = body, list
	b := append(make([]byte, 0, 4+len(list)+len(body)), version)
	b = binary.AppendUvarint(b, uint64(len(e.used)))
	b = append(b, list...)
	return append(b, body...)
}

// A reader is told what the bytes of sums say. The numbers are those of its words.
type reader interface {
	// slot is called before what is in it. If it returns false, that is passed over.
	slot(i int) bool
	joint(f *facts, n int64)
	folded(bot uint32, n int64)
	// wants reports whether part is to be called for a dimension.
	wants(dimension int) bool
	part(p part, n int64)
}

var errCorrupt = errors.New("the bytes of a row of clicks cannot be read")

// scanner takes numbers off bytes. After the end of them it has failed.
type scanner struct {
	b      []byte
	at     int
	failed bool
}

func (s *scanner) more() bool { return s.at < len(s.b) }

func (s *scanner) fail() {
	s.at, s.failed = len(s.b), true
}

func (s *scanner) uvarint() uint64 {
	if s.at < len(s.b) && s.b[s.at] < 0x80 {
		n := s.b[s.at]
		s.at++
		return uint64(n)
	}
	return s.long()
}

func (s *scanner) long() uint64 {
	n, size := binary.Uvarint(s.b[s.at:])
	if size <= 0 {
		s.fail()
		return 0
	}
	s.at += size
	return n
}

func (s *scanner) varint() int64 {
	u := s.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// bytes takes as many bytes as the number before them says.
func (s *scanner) bytes() []byte {
	n := s.uvarint()
	if n > uint64(len(s.b)-s.at) {
		s.fail()
		return nil
	}
	s.at += int(n)
	return s.b[s.at-int(n) : s.at]
}

// decoder reads the bytes of sums, one row after another.
type decoder struct {
	*words
	global []uint32 // the words of a row, by their numbers there
	now    facts    // those that a reader is told, which would be new for each otherwise
}

// word takes the number of a word and returns that among all words.
func (d *decoder) word(s *scanner) uint32 {
	n := s.uvarint()
	if n >= uint64(len(d.global)) {
		s.fail()
		return none
	}
	return d.global[n]
}

func (d *decoder) read(b []byte, r reader) error {
	s := &scanner{b: b}
	if s.uvarint() != version {
		return errCorrupt
	}
	d.global = append(d.global[:0], none, other)
	for n := s.uvarint(); n > 0 && !s.failed; n-- {
		d.global = append(d.global, d.idOf(s.bytes()))
	}
	for s.more() {
		to := r
		i := s.uvarint()
		if i >= slotsMost {
			return errCorrupt
		}
		if !r.slot(int(i)) {
			to = passer{}
		}
		for n := s.uvarint(); n > 0 && !s.failed; n-- {
			d.now = facts{}
			for mask := s.uvarint() & (1<<clicks.Dimensions - 1); mask != 0; mask &= mask - 1 {
				d.now[bits.TrailingZeros64(mask)] = d.word(s)
			}
			if clicks := s.varint(); !s.failed {
				to.joint(&d.now, clicks)
			}
		}
		for n := s.uvarint(); n > 0 && !s.failed; n-- {
			bot := d.word(s)
			if clicks := s.varint(); !s.failed {
				to.folded(bot, clicks)
			}
			for dimension := range clicks.Dimensions {
				if dimension != int(clicks.Bot) {
					d.parts(s, to, part{bot: bot, dimension: uint32(dimension)})
				}
			}
		}
	}
	if s.failed {
		return errCorrupt
	}
	return nil
}

// parts reads the values of a dimension.
func (d *decoder) parts(s *scanner, to reader, p part) {
	n := s.uvarint()
	end := s.at + int(n)
	switch {
	case n > uint64(len(s.b)-s.at):
		s.fail()
		return
	case n == 0 || !to.wants(int(p.dimension)):
		s.at = end
		return
	}
	for s.at < end && !s.failed {
		p.value = d.word(s)
		if clicks := s.varint(); !s.failed {
			to.part(p, clicks)
		}
	}
}

// passer passes over what it is told.
type passer struct{}

func (passer) slot(int) bool        { return false }
func (passer) joint(*facts, int64)  {}
func (passer) folded(uint32, int64) {}
func (passer) wants(int) bool       { return false }
func (passer) part(part, int64)     {}

// adder adds what it is told to sums, as it is.
type adder struct {
	to  *sums
	now *slot
}

func (a *adder) slot(i int) bool {
	a.now = a.to.at(i)
	return true
}
func (a *adder) joint(f *facts, n int64)    { a.now.add(*f, n) }
func (a *adder) folded(bot uint32, n int64) { a.now.foldTotal(bot, n) }
func (a *adder) wants(int) bool             { return true }
func (a *adder) part(p part, n int64)       { a.now.addPart(p, n) }

// folder adds what it is told to one slot of sums, by single dimensions.
type folder struct {
	to *slot
}

func (folder) slot(int) bool                { return true }
func (a folder) joint(f *facts, n int64)    { a.to.fold(*f, n) }
func (a folder) folded(bot uint32, n int64) { a.to.foldTotal(bot, n) }
func (folder) wants(int) bool               { return true }
func (a folder) part(p part, n int64)       { a.to.addPart(p, n) }
