package clicks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	"snowlink/internal/link"
)

// An encoded batch is a version, and then what Batch has, in its order. Numbers are varints. A text
// stands where it comes first; after that it is the number of that place, and so are Facts. A batch
// of 5,000 links, each clicked once by somebody, takes some 30 bytes a link.

// batchVersion is the first byte. A change that older versions cannot read raises it. A new dimension
// does not: a batch says how many it has.
const batchVersion = 1

// MaxEncoded is the length of the longest batch that ParseBatch reads, in bytes. Those of a Recorder
// are shorter than 2 MiB.
const MaxEncoded = 8 << 20

// Bounds of what ParseBatch returns. They are wide. They keep out what could not be stored.
const (
	maxText       = 256     // bytes of a producer, an owner or a tag
	maxTags       = 64      // of a count
	maxCounts     = 1 << 16 // of a batch
	maxFactCounts = 1 << 17 // of a batch
	maxHour       = 1 << 22 // since 1970: the year 2448
	maxClicks     = 1 << 40 // of a count
	maxDimensions = 64
)

const flagOrdered = 1

// ErrBatch reports bytes that are no batch, or one of a later version.
var ErrBatch = errors.New("not a batch of clicks")

// AppendBatch appends b to dst, for ParseBatch.
func AppendBatch(dst []byte, b *Batch) []byte {
	e := encoder{dst: append(dst, batchVersion), texts: map[string]uint64{"": 1}, facts: make(map[Facts]uint64)}
	e.text(b.Producer)
	e.number(b.Number)
	var flags uint64
	if b.Ordered {
		flags |= flagOrdered
	}
	e.number(flags)
	e.number(Dimensions)
	e.number(uint64(len(b.Counts)))
	for i := range b.Counts {
		e.count(&b.Counts[i], b.Ordered)
	}
	e.number(uint64(len(b.Misses)))
	for i := range b.Misses {
		m := &b.Misses[i]
		e.hour(m.Hour)
		e.bytes(m.Code)
		e.number(uint64(m.Clicks))
	}
	return e.dst
}

type encoder struct {
	dst   []byte
	texts map[string]uint64 // their places, from 1
	facts map[Facts]uint64
	last  int64 // the hour that was written last
}

func (e *encoder) count(c *Count, numbered bool) {
	if numbered {
		e.number(c.Number)
	}
	e.bytes(c.Code)
	e.text(c.Owner)
	e.number(uint64(len(c.Tags)))
	for _, tag := range c.Tags {
		e.text(tag)
	}
	e.hour(c.Hour)
	e.number(uint64(c.Clicks))
	e.number(uint64(c.Bots))
	e.number(uint64(len(c.Facts)))
	for i := range c.Facts {
		f := &c.Facts[i]
		place := e.facts[f.Facts]
		e.number(place)
		if place == 0 {
			e.facts[f.Facts] = uint64(len(e.facts) + 1)
			for _, value := range f.Facts {
				e.text(value)
			}
		}
		e.number(uint64(f.Clicks))
	}
	e.number(uint64(len(c.Visitors)))
	for _, v := range c.Visitors {
		e.dst = binary.LittleEndian.AppendUint64(e.dst, v)
	}
}

func (e *encoder) number(n uint64) { e.dst = binary.AppendUvarint(e.dst, n) }

func (e *encoder) bytes(s string) {
	e.number(uint64(len(s)))
	e.dst = append(e.dst, s...)
}

func (e *encoder) text(s string) {
	place := e.texts[s]
	e.number(place)
	if place == 0 {
		e.texts[s] = uint64(len(e.texts) + 1)
		e.bytes(s)
	}
}

// hour writes how far the hour is from the one before: mostly it is the same.
func (e *encoder) hour(t time.Time) {
	h := t.Unix() / 3600
	e.dst = binary.AppendVarint(e.dst, h-e.last)
	e.last = h
}

// ParseBatch reads what AppendBatch wrote, and keeps nothing of raw. Whoever wrote it, the batch is
// what this package says of batches: codes could exist, values are as Facts has them, and facts and
// visitors are no more than clicks. The error wraps ErrBatch.
func ParseBatch(raw []byte) (Batch, error) {
	if len(raw) == 0 || len(raw) > MaxEncoded {
		return Batch{}, fmt.Errorf("%w: %d bytes", ErrBatch, len(raw))
	}
	if raw[0] != batchVersion {
		return Batch{}, fmt.Errorf("%w: version %d, and this program reads version %d", ErrBatch, raw[0], batchVersion)
	}
	d := decoder{rest: raw[1:], texts: []string{""}}
	b := d.batch()
	if len(d.rest) > 0 {
		d.fail("more than a batch")
	}
	if d.err != nil {
		return Batch{}, d.err
	}
	return b, nil
}

// A decoder reads a batch. After the first error there is nothing left to read, and all that it
// returns is zero.
type decoder struct {
	rest  []byte
	err   error
	texts []string
	facts []Facts
	made  int // FactCounts
	last  int64
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrBatch, what)
	}
	d.rest = nil
}

func (d *decoder) batch() (b Batch) {
	b.Producer = d.text(maxText)
	b.Number = d.number(1<<64 - 1)
	flags := d.number(1<<64 - 1)
	b.Ordered = flags&flagOrdered != 0
	if flags&^flagOrdered != 0 {
		d.fail("an unknown flag")
	}
	dimensions := int(d.number(maxDimensions))
	if n := d.length(8); n > maxCounts { // the shortest count has 8 bytes
		d.fail("too many counts")
	} else if n > 0 {
		b.Counts = make([]Count, n)
		for i := range b.Counts {
			d.count(&b.Counts[i], b.Ordered, dimensions)
		}
	}
	if n := d.length(3); n > 0 {
		b.Misses = make([]Miss, n)
		for i := range b.Misses {
			b.Misses[i] = Miss{Hour: d.hour(), Code: d.code(), Clicks: int64(d.number(maxClicks))}
		}
	}
	return b
}

func (d *decoder) count(c *Count, numbered bool, dimensions int) {
	if d.err != nil {
		return
	}
	if numbered {
		c.Number = d.number(1<<64 - 1)
	}
	c.Code = d.code()
	c.Owner = d.text(maxText)
	if n := d.length(1); n > maxTags {
		d.fail("too many tags")
	} else if n > 0 {
		c.Tags = make([]string, n)
		for i := range c.Tags {
			c.Tags[i] = d.text(maxText)
		}
	}
	c.Hour = d.hour()
	c.Clicks = int64(d.number(maxClicks))
	c.Bots = int64(d.number(maxClicks))

	left := c.Clicks + c.Bots
	n := d.length(2)
	if d.made += n; d.made > maxFactCounts {
		d.fail("too many facts")
	} else if n > 0 {
		c.Facts = make([]FactCount, n)
		for i := range c.Facts {
			c.Facts[i] = FactCount{Facts: d.factsOf(dimensions), Clicks: int64(d.number(maxClicks))}
			if left -= c.Facts[i].Clicks; left < 0 {
				d.fail("more facts than clicks")
				return
			}
		}
	}
	if n = d.length(8); int64(n) > c.Clicks {
		d.fail("more visitors than clicks")
	} else if n > 0 {
		c.Visitors = make([]uint64, n)
		for i := range c.Visitors {
			c.Visitors[i] = binary.LittleEndian.Uint64(d.rest[8*i:])
		}
		d.rest = d.rest[8*n:]
	}
}

// factsOf reads facts of so many dimensions. It ignores those that this version does not know.
func (d *decoder) factsOf(dimensions int) (f Facts) {
	place := d.number(uint64(len(d.facts)))
	if place > 0 {
		return d.facts[place-1]
	}
	for i := range dimensions {
		if value := d.text(MaxValue); i < Dimensions {
			f[i] = value
		}
	}
	d.facts = append(d.facts, f)
	return f
}

// number reads a number of at most most.
func (d *decoder) number(most uint64) uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 || n > most {
		d.fail("a number is too large, or cut off")
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

// length reads how many things follow that have at least so many bytes each.
func (d *decoder) length(each int) int {
	n := d.number(1<<64 - 1)
	if n > uint64(len(d.rest)/each) {
		d.fail("cut off")
		return 0
	}
	return int(n)
}

func (d *decoder) hour() time.Time {
	delta, size := binary.Varint(d.rest)
	if size <= 0 || delta < -maxHour || delta > maxHour || d.last+delta < 0 || d.last+delta > maxHour {
		d.fail("no hour")
		return time.Time{}
	}
	d.rest = d.rest[size:]
	d.last += delta
	return time.Unix(d.last*3600, 0).UTC()
}

// bytes reads a text of at most so many bytes.
func (d *decoder) bytes(most int) string {
	n := d.length(1)
	if n > most {
		d.fail("a text is too long")
		return ""
	}
	s := string(d.rest[:n])
	d.rest = d.rest[n:]
	return s
}

func (d *decoder) code() string {
	code := d.bytes(link.MaxCode)
	if !link.CouldBeCode(code) {
		d.fail("no code")
	}
	return code
}

// text reads a text that stands here or, if it has come before, there.
func (d *decoder) text(most int) string {
	if place := d.number(uint64(len(d.texts))); place > 0 {
		if s := d.texts[place-1]; len(s) <= most {
			return s
		}
		d.fail("a text is too long")
		return ""
	}
	s := d.bytes(most)
	if !isText(s) {
		d.fail("a text is not UTF-8, or has control characters")
		return ""
	}
	d.texts = append(d.texts, s)
	return s
}

// isText reports whether s is valid UTF-8 without control characters.
func isText(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f {
			return isUnicodeText(s)
		}
	}
	return true
}

func isUnicodeText(s string) bool {
	for _, r := range s {
		if unicode.IsControl(r) {
			return false
		}
	}
	return utf8.ValidString(s)
}
