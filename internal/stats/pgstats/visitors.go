package pgstats

import (
	"encoding/binary"
	"slices"

	"github.com/axiomhq/hyperloglog"
)

// precision is that of the sketches: 2^14 registers, and so a standard error of 0.81 percent.
const precision = 14

// hashesMost is how many visitors are kept each by the hash. More are a sketch, which has no hash of
// anyone. A sketch of so few takes as much room.
const hashesMost = 64

// visitors are who clicked on a day. Once the day is old, they are a number.
type visitors struct {
	hashes []uint64
	sketch *hyperloglog.Sketch
	number uint64
}

func (v *visitors) add(hashes ...uint64) {
	if v.sketch != nil {
		for _, h := range hashes {
			v.sketch.InsertHash(h)
		}
		return
	}
	v.hashes = append(v.hashes, hashes...)
	if len(v.hashes) <= hashesMost {
		return
	}
	slices.Sort(v.hashes)
	v.hashes = slices.Compact(v.hashes)
	if len(v.hashes) <= hashesMost {
		return
	}
	v.sketch, _ = hyperloglog.NewSketch(precision, true) // the precision is one that it takes
	for _, h := range v.hashes {
		v.sketch.InsertHash(h)
	}
	v.hashes = nil
}

func (v *visitors) estimate() int64 {
	if v.sketch != nil {
		return int64(v.sketch.Estimate() + v.number)
	}
	slices.Sort(v.hashes)
	v.hashes = slices.Compact(v.hashes)
	return int64(uint64(len(v.hashes)) + v.number)
}

// The bytes of visitors begin with what they are.
const (
	asHashes byte = iota
	asSketch
)

// encode returns the bytes of the visitors, nil if there are none.
func (v *visitors) encode() []byte {
	if v.sketch != nil {
		b, _ := v.sketch.MarshalBinary() // it never fails
		return append([]byte{asSketch}, b...)
	}
	if len(v.hashes) == 0 {
		return nil
	}
	slices.Sort(v.hashes)
	v.hashes = slices.Compact(v.hashes)
	b := append(make([]byte, 0, 1+8*len(v.hashes)), asHashes)
	for _, h := range v.hashes {
		b = binary.LittleEndian.AppendUint64(b, h)
	}
	return b
}

// read adds the visitors that the bytes are.
func (v *visitors) read(b []byte) error {
	switch {
	case len(b) == 0:
		return nil
	case b[0] == asHashes && len(b)%8 == 1:
		hashes := make([]uint64, 0, len(b)/8)
		for b = b[1:]; len(b) > 0; b = b[8:] {
			hashes = append(hashes, binary.LittleEndian.Uint64(b))
		}
		v.add(hashes...)
		return nil
	case b[0] == asSketch:
		var s hyperloglog.Sketch
		if err := s.UnmarshalBinary(b[1:]); err != nil {
			return err
		}
		if v.sketch != nil {
			return v.sketch.Merge(&s)
		}
		v.sketch = &s
		hashes := v.hashes
		v.hashes = nil
		v.add(hashes...)
		return nil
	}
	return errCorrupt
}

// numbers are how many visitors there were, by the day of a month.
type numbers [slotsMost]uint64

func (n *numbers) encode() (b []byte) {
	for day, number := range n {
		if number > 0 {
			b = binary.AppendUvarint(b, uint64(day))
			b = binary.AppendUvarint(b, number)
		}
	}
	return b
}

func (n *numbers) read(b []byte) error {
	s := scanner{b: b}
	for s.more() {
		day, number := s.uvarint(), s.uvarint()
		if day >= uint64(len(n)) {
			return errCorrupt
		}
		n[day] += number
	}
	if s.failed {
		return errCorrupt
	}
	return nil
}
