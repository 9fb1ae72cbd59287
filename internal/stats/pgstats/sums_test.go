package pgstats

import (
	"maps"
	"testing"

	"snowlink/internal/clicks"
)

// FuzzBytes: bytes are read without a panic, and what they say is the same once it is written again.
func FuzzBytes(f *testing.F) {
	s := newSums(newWords())
	s.at(3).add(s.facts(&clicks.Facts{clicks.Country: "DE", clicks.Bot: "crawler"}), 7)
	s.at(3).add(s.facts(&clicks.Facts{clicks.Country: clicks.Other}), -2)
	s.at(23).fold(s.facts(&clicks.Facts{clicks.Browser: "Firefox"}), 1000)
	f.Add(new(encoder).encode(s))
	f.Add([]byte{version, 1, 2, 'D', 'E', 0, 1, 1, 2, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = readLinks(b, func(int) links { return links{} })
		_ = new(numbers).read(b)
		w := newWords()
		first, again := newSums(w), newSums(w)
		d := decoder{words: w}
		if d.read(b, &adder{to: first}) != nil {
			return
		}
		if err := d.read(new(encoder).encode(first), &adder{to: again}); err != nil {
			t.Fatal(err)
		}
		for i, slot := range first.slots {
			if slot == nil || len(slot.joint)+len(slot.folded) == 0 {
				continue
			}
			if !maps.Equal(slot.joint, again.at(i).joint) || !maps.Equal(slot.folded, again.at(i).folded) || !maps.Equal(slot.parts, again.at(i).parts) {
				t.Errorf("slot %d: %+v became %+v", i, slot, again.at(i))
			}
		}
	})
}
