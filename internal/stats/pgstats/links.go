package pgstats

import (
	"cmp"
	"encoding/binary"
	"slices"

	"snowlink/internal/stats"
)

// How many links of a scope are kept with their clicks: the most clicked ones of a day while it lasts,
// once it is over, and once it is old.
const (
	linksToday = 4096
	linksPast  = 1000
	linksOld   = 200
)

// both is clicks of people and of bots.
type both struct{ people, bots int64 }

func (b both) of(bots stats.Bots) int64 { return bots.Of(b.people, b.bots) }

// links are the clicks of links by code, or those of codes that have no link.
type links map[string]both

func (l links) add(code string, b both) {
	sum := l[code]
	l[code] = both{sum.people + b.people, sum.bots + b.bots}
}

// bound forgets all but the most clicked ones. No code of a link is longer than an index takes, and
// one that is can be nobody's.
func (l links) bound(most int) {
	if len(l) <= most {
		return
	}
	for _, code := range l.most(stats.WithBots)[most:] {
		delete(l, code)
	}
}

// most returns the codes, the most clicked ones first.
func (l links) most(bots stats.Bots) []string {
	type link struct {
		code   string
		clicks int64
	}
	all := make([]link, 0, len(l))
	for code, b := range l {
		all = append(all, link{code, b.of(bots)})
	}
	slices.SortFunc(all, func(a, b link) int {
		return cmp.Or(cmp.Compare(b.clicks, a.clicks), cmp.Compare(a.code, b.code))
	})
	codes := make([]string, len(all))
	for i := range all {
		codes[i] = all[i].code
	}
	return codes
}

// encode appends the bytes of the links under a day of a month, which is 0 in rows of a day: that
// number, how many there are, and for each the length of the code, the code and its clicks.
func (l links) encode(to []byte, slot int) []byte {
	if len(l) == 0 {
		return to
	}
	to = binary.AppendUvarint(to, uint64(slot))
	to = binary.AppendUvarint(to, uint64(len(l)))
	for code, b := range l {
		to = binary.AppendUvarint(to, uint64(len(code)))
		to = append(to, code...)
		to = binary.AppendVarint(to, b.people)
		to = binary.AppendVarint(to, b.bots)
	}
	return to
}

// readLinks adds what the bytes say to the links that of returns for a day of the month. If it
// returns nil, they are passed over.
func readLinks(b []byte, of func(slot int) links) error {
	s := scanner{b: b}
	for s.more() {
		slot := s.uvarint()
		if slot >= slotsMost {
			return errCorrupt
		}
		to := of(int(slot))
		for n := s.uvarint(); n > 0 && !s.failed; n-- {
			code, people, bots := s.bytes(), s.varint(), s.varint()
			if to == nil || s.failed {
				continue
			}
			sum := to[string(code)]
			to[string(code)] = both{sum.people + people, sum.bots + bots}
		}
	}
	if s.failed {
		return errCorrupt
	}
	return nil
}
