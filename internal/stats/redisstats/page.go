package redisstats

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"

	"github.com/axiomhq/hyperloglog"

	"snowlink/internal/clicks"
)

// A page is what a key holds: the sums of some scopes on one day, or the totals of some links. In
// Redis it is a sequence of segments, one behind the other. Whoever applies a batch appends one to
// each page that it concerns. Whoever reads a page adds them up, and leaves out those that were
// appended before. Now and then all segments of a page are rewritten as one.
//
//	segment     length (4 bytes, of what follows), nonce (4 bytes), kind (1 byte), body
//	whole       producers, facts, scopes
//	delta       producer (8 bytes), ordered (1 byte), day, facts, groups to the end
//	producers   how many; of each: producer (8 bytes), ordered (1 byte), day, last, and, unless it is
//	            ordered, how many runs, and of each how far it begins behind the one before and its length
//	facts       length; how many texts; the texts; of each combination a number whose bits say which
//	            dimensions have a text that is not empty, and for each of them the number of the text
//	group       number of the batch or count, length, scopes
//	scopes      of each: name, length, sums
//	sums        a byte that says which of the following lists there are; see appendSums
//
// Numbers without a length are of variable length (encoding/binary), and texts have such a number
// before them.

const (
	kindWhole byte = iota
	kindDelta

	headLength = 4 + 4 // length and nonce, which tell whether a page still begins as it did
)

// The lists of sums, in order.
const (
	hasHours byte = 1 << iota
	hasCombined
	hasSingle
	hasVisitors
	hasSketch
	hasCounted
	hasLinks
	hasLast
)

type page struct {
	producers map[uint64]*numbers
	facts     factsTable
	scopes    map[string]*sums
}

// factsTable gives combinations of facts numbers.
type factsTable struct {
	list   []clicks.Facts
	number map[clicks.Facts]int32 // made when it is needed
}

func (t *factsTable) add(f clicks.Facts) int32 {
	if t.number == nil {
		t.number = make(map[clicks.Facts]int32, len(t.list))
		for n, f := range t.list {
			t.number[f] = int32(n)
		}
	}
	n, ok := t.number[f]
	if !ok {
		n = t.addNew(f)
	}
	return n
}

// addNew adds facts that are not there yet.
func (t *factsTable) addNew(f clicks.Facts) int32 {
	n := int32(len(t.list))
	if t.list = append(t.list, f); t.number != nil {
		t.number[f] = n
	}
	return n
}

var errPage = errors.New("a page of clicks is not readable")

// reader takes a text apart. After an error it is empty.
type reader struct {
	text string
	err  error
}

func (r *reader) take(n uint64) string {
	if n > uint64(len(r.text)) {
		r.text, r.err = "", errPage
		return ""
	}
	taken := r.text[:n]
	r.text = r.text[n:]
	return taken
}

func (r *reader) byte() byte {
	if b := r.take(1); b != "" {
		return b[0]
	}
	return 0
}

func (r *reader) uvarint() (n uint64) {
	for i := 0; i < len(r.text) && i < binary.MaxVarintLen64; i++ {
		b := r.text[i]
		n |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			r.text = r.text[i+1:]
			return n
		}
	}
	r.text, r.err = "", errPage
	return 0
}

func (r *reader) string() string { return r.take(r.uvarint()) }

func (r *reader) uint64() (n uint64) {
	for i, b := range []byte(r.take(8)) {
		n |= uint64(b) << (8 * i)
	}
	return n
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// everyList is for readers who want all lists of sums.
const everyList byte = 0xff

// readPage reads a page, of the scopes only the one if that is not "", and of their sums only the
// lists that are wanted, unless that is less work.
func readPage(text, only string, want byte) (*page, error) {
	p := &page{producers: make(map[uint64]*numbers), scopes: make(map[string]*sums)}
	for r := (reader{text: text}); r.text != ""; {
		head := r.take(4)
		if r.err != nil {
			return nil, r.err
		}
		segment := reader{text: r.take(uint64(binary.LittleEndian.Uint32([]byte(head))))}
		segment.take(4)
		switch kind := segment.byte(); kind {
		case kindWhole:
			p.readProducers(&segment)
			p.readScopes(&segment, p.facts.reader(segment.string(), true), only, want, true)
		case kindDelta:
			producer, ordered, day := segment.uint64(), segment.byte() == 1, int(segment.uvarint())
			n := p.producers[producer]
			if n == nil {
				n = &numbers{ordered: ordered}
				p.producers[producer] = n
			}
			n.day = max(n.day, day)
			facts := p.facts.reader(segment.string(), false)
			for segment.text != "" {
				number := segment.uvarint()
				if group := (reader{text: segment.string()}); n.add(number) {
					p.readScopes(&group, facts, only, want, false)
					segment.err = cmp.Or(segment.err, group.err)
				}
			}
		default:
			return nil, fmt.Errorf("%w: it has a segment of kind %d", errPage, kind)
		}
		if err := cmp.Or(r.err, segment.err); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *page) readProducers(r *reader) {
	for range r.uvarint() {
		producer := r.uint64()
		n := &numbers{ordered: r.byte() == 1, day: int(r.uvarint()), last: r.uvarint()}
		if !n.ordered {
			at := uint64(0)
			for range r.uvarint() {
				from := at + r.uvarint()
				at = from + r.uvarint()
				n.runs = append(n.runs, run{from, at})
				if r.err != nil {
					return
				}
			}
		}
		if p.producers[producer] = n; r.err != nil {
			return
		}
	}
}

// factsReader turns the numbers of facts in a segment into those in the page. It reads each of them
// when it is asked for, since most questions need few.
type factsReader struct {
	table        *factsTable
	isNew        bool     // no other segment was read before: all of its facts are new
	text         string   // not read yet
	texts        []string // that combinations name
	combinations []string // as they are written
	to           []int32  // the number in the page, or -1 while that is not known
}

func (t *factsTable) reader(text string, whole bool) *factsReader {
	return &factsReader{table: t, isNew: whole && len(t.list) == 0, text: text}
}

func (f *factsReader) number(n uint64) (int32, error) {
	if f.text != "" {
		r := reader{text: f.text}
		f.text = ""
		for range r.uvarint() {
			if f.texts = append(f.texts, r.string()); r.err != nil {
				return 0, r.err
			}
		}
		for r.text != "" {
			whole := r.text
			for range bits.OnesCount64(r.uvarint()) {
				r.uvarint()
			}
			f.combinations, f.to = append(f.combinations, whole[:len(whole)-len(r.text)]), append(f.to, -1)
		}
		if r.err != nil {
			return 0, r.err
		}
	}
	if n >= uint64(len(f.to)) {
		return 0, errPage
	}
	if f.to[n] < 0 {
		r := reader{text: f.combinations[n]}
		has := r.uvarint()
		var facts clicks.Facts
		for d := range facts {
			if has&(1<<d) == 0 {
				continue
			}
			at := r.uvarint()
			if at >= uint64(len(f.texts)) {
				return 0, errPage
			}
			facts[d] = f.texts[at]
		}
		if f.isNew {
			f.to[n] = f.table.addNew(facts)
		} else {
			f.to[n] = f.table.add(facts)
		}
	}
	return f.to[n], nil
}

func (p *page) readScopes(r *reader, facts *factsReader, only string, want byte, whole bool) {
	for r.text != "" {
		name, body := r.string(), reader{text: r.string()}
		if only != "" && name != only || r.err != nil {
			continue
		}
		s := p.scopes[name]
		if s == nil {
			s = &sums{isTidy: whole}
			p.scopes[name] = s
		} else {
			s.isTidy = false
		}
		s.read(&body, facts, want)
		r.err = cmp.Or(r.err, body.err)
	}
}

// read adds the sums of a segment to s.
func (s *sums) read(r *reader, facts *factsReader, want byte) {
	has := r.byte()
	if has&hasHours != 0 {
		for range r.uvarint() {
			s.hours = append(s.hours, hourSum{r.byte(), tally{int64(r.uvarint()), int64(r.uvarint())}})
			if r.err != nil {
				return
			}
		}
	}
	if has&hasCombined != 0 {
		for range r.uvarint() {
			hour, number, n := r.byte(), r.uvarint(), int64(r.uvarint())
			if r.err != nil {
				return
			}
			if want&hasCombined != 0 {
				combination, err := facts.number(number)
				if r.err = err; err != nil {
					return
				}
				s.addCombined(combinedSum{combination, hour, n})
			}
		}
	}
	if has&hasSingle != 0 {
		for range r.uvarint() {
			v := valueSum{dimension: r.byte(), value: r.string()}
			for range r.uvarint() {
				h := hourSum{r.byte(), tally{int64(r.uvarint()), int64(r.uvarint())}}
				if r.err != nil || v.dimension >= clicks.Dimensions {
					r.err = errPage
					return
				}
				if want&hasSingle != 0 {
					v.hours = append(v.hours, h)
				}
			}
			if r.err != nil {
				return
			}
			if want&hasSingle != 0 {
				s.single = append(s.single, v)
			}
		}
	}
	if has&hasVisitors != 0 {
		for range r.uvarint() {
			if v := r.uint64(); want&hasVisitors != 0 {
				s.visitors = append(s.visitors, v)
			}
			if r.err != nil {
				return
			}
		}
	}
	if has&hasSketch != 0 {
		text := r.string()
		if want&hasSketch != 0 {
			other := hyperloglog.New14()
			err := other.UnmarshalBinary([]byte(text))
			if s.sketch == nil {
				s.sketch = other
			} else if err == nil {
				err = s.sketch.Merge(other)
			}
			if r.err = cmp.Or(r.err, err); r.err != nil {
				return
			}
		}
	}
	if has&hasCounted != 0 {
		s.counted += int64(r.uvarint())
	}
	if has&hasLinks != 0 {
		for range r.uvarint() {
			l := linkSum{r.string(), tally{int64(r.uvarint()), int64(r.uvarint())}}
			if r.err != nil {
				return
			}
			if want&hasLinks != 0 {
				s.links = append(s.links, l)
			}
		}
		if len(s.links) > 10*linksMost {
			s.tidyLinks()
		}
	}
	if has&hasLast != 0 {
		s.last = max(s.last, int(r.uvarint()))
	}
}

// factsWriter gives the facts that a segment uses numbers of their own.
type factsWriter struct {
	list         []clicks.Facts
	to           map[int32]uint64
	combinations []byte
	textTo       map[string]uint64
	texts        []byte
}

func newFactsWriter(list []clicks.Facts) *factsWriter {
	return &factsWriter{list: list, to: make(map[int32]uint64), textTo: make(map[string]uint64)}
}

func (f *factsWriter) of(facts int32) uint64 {
	n, ok := f.to[facts]
	if !ok {
		n = uint64(len(f.to))
		f.to[facts] = n
		has := uint64(0)
		for d, text := range f.list[facts] {
			if text != "" {
				has |= 1 << d
			}
		}
		f.combinations = binary.AppendUvarint(f.combinations, has)
		for _, text := range f.list[facts] {
			if text != "" {
				f.combinations = binary.AppendUvarint(f.combinations, f.text(text))
			}
		}
	}
	return n
}

func (f *factsWriter) text(text string) uint64 {
	n, ok := f.textTo[text]
	if !ok {
		n = uint64(len(f.textTo))
		f.textTo[text], f.texts = n, appendString(f.texts, text)
	}
	return n
}

// append appends the facts, once all are known.
func (f *factsWriter) append(b []byte) []byte {
	if len(f.to) == 0 {
		return append(b, 0)
	}
	number := binary.AppendUvarint(nil, uint64(len(f.textTo)))
	b = binary.AppendUvarint(b, uint64(len(number)+len(f.texts)+len(f.combinations)))
	return append(append(append(b, number...), f.texts...), f.combinations...)
}

// appendSums appends what read reads.
func appendSums(b []byte, s *sums, facts *factsWriter) []byte {
	at := len(b)
	b = append(b, 0)
	list := func(flag byte, n int) bool {
		if n > 0 {
			b[at] |= flag
			b = binary.AppendUvarint(b, uint64(n))
		}
		return n > 0
	}
	appendTally := func(t tally) {
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(t.people)), uint64(t.bots))
	}
	if list(hasHours, len(s.hours)) {
		for _, h := range s.hours {
			b = append(b, h.hour)
			appendTally(h.tally)
		}
	}
	if list(hasCombined, len(s.combined)) {
		for _, c := range s.combined {
			b = append(b, c.hour)
			b = binary.AppendUvarint(b, facts.of(c.facts))
			b = binary.AppendUvarint(b, uint64(c.clicks))
		}
	}
	if list(hasSingle, len(s.single)) {
		for _, v := range s.single {
			b = append(b, v.dimension)
			b = appendString(b, v.value)
			b = binary.AppendUvarint(b, uint64(len(v.hours)))
			for _, h := range v.hours {
				b = append(b, h.hour)
				appendTally(h.tally)
			}
		}
	}
	if list(hasVisitors, len(s.visitors)) {
		for _, v := range s.visitors {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
	}
	if s.sketch != nil {
		text, err := s.sketch.MarshalBinary()
		if err != nil {
			panic(err) // it has no reason to fail
		}
		list(hasSketch, len(text))
		b = append(b, text...)
	}
	list(hasCounted, int(s.counted))
	if list(hasLinks, len(s.links)) {
		for _, l := range s.links {
			b = appendString(b, l.code)
			appendTally(l.tally)
		}
	}
	list(hasLast, s.last)
	return b
}

// appendScope appends a scope. It uses body for a while and returns it for the next one.
func appendScope(b, body []byte, name string, s *sums, facts *factsWriter) (_, _ []byte) {
	body = appendSums(body[:0], s, facts)
	b = appendString(b, name)
	return append(binary.AppendUvarint(b, uint64(len(body))), body...), body
}

// beginSegment appends what every segment begins with. endSegment has to follow.
func beginSegment(b []byte, kind byte) []byte {
	b = append(b, 0, 0, 0, 0)
	return append(binary.LittleEndian.AppendUint32(b, rand.Uint32()), kind)
}

// endSegment enters the length of the segment that began at from.
func endSegment(b []byte, from int) []byte {
	binary.LittleEndian.PutUint32(b[from:], uint32(len(b)-from-4))
	return b
}

// appendWhole appends the page, which is tidy, as one segment.
func (p *page) appendWhole(b []byte) []byte {
	from := len(b)
	b = beginSegment(b, kindWhole)
	b = binary.AppendUvarint(b, uint64(len(p.producers)))
	for producer, n := range p.producers {
		b = binary.LittleEndian.AppendUint64(b, producer)
		ordered := byte(0)
		if n.ordered {
			ordered = 1
		}
		b = binary.AppendUvarint(append(b, ordered), uint64(n.day))
		b = binary.AppendUvarint(b, n.last)
		if n.ordered {
			continue
		}
		b = binary.AppendUvarint(b, uint64(len(n.runs)))
		at := uint64(0)
		for _, r := range n.runs {
			b = binary.AppendUvarint(binary.AppendUvarint(b, r.from-at), r.to-r.from)
			at = r.to
		}
	}
	var scopes, body []byte
	facts := newFactsWriter(p.facts.list)
	for name, s := range p.scopes {
		scopes, body = appendScope(scopes, body, name, s, facts)
	}
	return endSegment(append(facts.append(b), scopes...), from)
}

// draft is what is to be appended to a page for one batch.
type draft struct{ groups []group }

// group is what has one number.
type group struct {
	number uint64
	scopes []namedSums
}

type namedSums struct {
	name string
	*sums
}

// add adds the sums of a scope. Those of one number come one behind the other.
func (d *draft) add(number uint64, name string, s *sums) {
	if n := len(d.groups); n == 0 || d.groups[n-1].number != number {
		d.groups = append(d.groups, group{number: number})
	}
	g := &d.groups[len(d.groups)-1]
	g.scopes = append(g.scopes, namedSums{name, s})
}

// appendDelta appends the draft as a segment.
func (d *draft) appendDelta(b []byte, producer uint64, ordered bool, day int, list []clicks.Facts) []byte {
	from := len(b)
	b = binary.LittleEndian.AppendUint64(beginSegment(b, kindDelta), producer)
	if ordered {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(day))
	var groups, scopes, body []byte
	facts := newFactsWriter(list)
	for _, g := range d.groups {
		scopes = scopes[:0]
		for _, s := range g.scopes {
			scopes, body = appendScope(scopes, body, s.name, s.sums, facts)
		}
		groups = binary.AppendUvarint(groups, g.number)
		groups = append(binary.AppendUvarint(groups, uint64(len(scopes))), scopes...)
	}
	return endSegment(append(facts.append(b), groups...), from)
}
