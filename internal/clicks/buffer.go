package clicks

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"snowlink/internal/link"
)

// What is recorded waits as bytes in chunks, until the aggregator comes around. Each stripe has a
// chunk that is being filled. A full one is put aside, and the stripe takes another from a pool of
// fixed size. The chunk that was put back last is taken first: as long as there is little to do, the
// same few are used again, and are in the processor's cache.

const (
	chunkSize = 64 << 10
	// maxEntry is more than the longest entry has, in bytes.
	maxEntry = 4 << 10
)

// Lengths to which parts of a click are cut before they are kept, in bytes. What is cut off would
// hardly tell more.
const (
	maxUserAgent = 512
	maxHost      = 255
	maxAddress   = 64
	maxParameter = 3 * MaxValue // each byte may be percent-encoded
	maxOwner     = 64
	// maxSearched is how much of a query is searched for parameters.
	maxSearched = 2 << 10
)

// buffers are striped so that goroutines on several processors seldom meet.
type buffers struct {
	stripes []stripe
	mask    uint32
	pool    pool
	wake    chan struct{} // chunks are running out
}

type stripe struct {
	mu      sync.Mutex
	chunk   []byte // what is filled of it; nil if there is none
	dropped atomic.Int64
	_       [88]byte // stripes share no cache line
}

// pool has all chunks that no stripe has. Its lock is shared by all stripes, but taken only once in
// hundreds of clicks.
type pool struct {
	mu    sync.Mutex
	free  [][]byte
	full  [][]byte
	spare [][]byte // in turns with full
	all   int
}

// newBuffers makes buffers of so many bytes. They take no memory before they are used.
func newBuffers(size, stripes int) *buffers {
	n := 1
	for n < stripes {
		n *= 2
	}
	b := &buffers{stripes: make([]stripe, n), mask: uint32(n - 1), wake: make(chan struct{}, 1)}
	b.pool.all = max(size/chunkSize, 2*n)
	memory := make([]byte, b.pool.all*chunkSize)
	for i := range b.pool.all {
		b.pool.free = append(b.pool.free, memory[i*chunkSize:i*chunkSize:(i+1)*chunkSize])
	}
	b.pool.full, b.pool.spare = make([][]byte, 0, b.pool.all), make([][]byte, 0, b.pool.all)
	return b
}

// swap puts the full chunk aside and returns an empty one, or nil if there is none.
func (p *pool) swap(full []byte) (empty []byte, low bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(full) > 0 {
		p.full = append(p.full, full)
	}
	if n := len(p.free); n > 0 {
		empty = p.free[n-1]
		p.free = p.free[:n-1]
	}
	return empty, len(p.free) < p.all/2
}

// takeFull returns the full chunks, until it is called again.
func (p *pool) takeFull() [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.full, p.spare = p.spare[:0], p.full
	return p.spare
}

func (p *pool) put(chunk []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, chunk[:0])
}

// take locks a stripe and returns it, with room for an entry in its chunk. It returns nil if there
// is no room, and then the loss is counted.
func (b *buffers) take() *stripe {
	first := rand.Uint32()
	var s *stripe
	for i := range uint32(len(b.stripes)) {
		// Somebody who holds a lock copies some bytes, unless the processor was taken from it.
		if s = &b.stripes[(first+i)&b.mask]; s.mu.TryLock() {
			if cap(s.chunk)-len(s.chunk) >= maxEntry || b.refill(s) {
				return s
			}
			s.mu.Unlock()
			break
		}
	}
	s.dropped.Add(1)
	return nil
}

func (b *buffers) refill(s *stripe) bool {
	empty, low := b.pool.swap(s.chunk)
	s.chunk = empty
	if low {
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
	return empty != nil
}

// drain calls entry with each entry that is there, and returns how many were dropped since it was
// called last. Only one may drain at a time. The bytes are valid only while entry runs.
func (b *buffers) drain(entry func([]byte)) (dropped int64) {
	for i := range b.stripes {
		s := &b.stripes[i]
		dropped += s.dropped.Swap(0)
		s.mu.Lock()
		if len(s.chunk) > 0 {
			s.chunk, _ = b.pool.swap(s.chunk)
		}
		s.mu.Unlock()
	}
	for _, chunk := range b.pool.takeFull() {
		for rest := chunk; len(rest) > 0; {
			n := binary.LittleEndian.Uint16(rest)
			entry(rest[:n])
			rest = rest[n:]
		}
		b.pool.put(chunk)
	}
	return dropped
}

// An entry is a click or a miss in a chunk:
//
//	0  length of the entry (2 bytes)     5  length of the address
//	2  kind                              6  length of the tags (2 bytes)
//	3  length of the code                8  time, Unix seconds (8 bytes)
//	4  length of the owner              16  code, owner, tags, address, profile
//
// Each tag has its length before it. A profile is all that facts are made of, but for the address.
// Its bytes are hashed as a whole:
//
//	0  length of the user agent (2 bytes)      4  lengths of three parameters (2 bytes each)
//	2  length of the referrer's authority     10  country (2 bytes, zero if there is none)
//	3  flags                                  12  user agent, authority, parameters
type entry []byte

const (
	entryHeader   = 16
	profileHeader = 12

	kindClick = 0
	kindMiss  = 1

	flagQR       = 1
	flagPrefetch = 2
)

func (e entry) kind() byte       { return e[2] }
func (e entry) at() int64        { return int64(binary.LittleEndian.Uint64(e[8:])) }
func (e entry) code() []byte     { return e[entryHeader:][:e[3]] }
func (e entry) owner() []byte    { return e[entryHeader+int(e[3]):][:e[4]] }
func (e entry) tags() []byte     { return e[entryHeader+int(e[3])+int(e[4]):][:e.tagsLen()] }
func (e entry) tagsLen() int     { return int(binary.LittleEndian.Uint16(e[6:])) }
func (e entry) addressAt() int   { return entryHeader + int(e[3]) + int(e[4]) + e.tagsLen() }
func (e entry) address() []byte  { return e[e.addressAt():][:e[5]] }
func (e entry) profile() profile { return profile(e[e.addressAt()+int(e[5]):]) }

// A profile is what an entry says of the visitor's browser and of where the visitor comes from.
type profile []byte

func (p profile) flags() byte       { return p[3] }
func (p profile) country() []byte   { return p[10:12] }
func (p profile) userAgent() []byte { return p[profileHeader:][:binary.LittleEndian.Uint16(p)] }

func (p profile) authority() []byte {
	return p[profileHeader+int(binary.LittleEndian.Uint16(p)):][:p[2]]
}

// parameters are the values of utm_source, utm_medium and utm_campaign, as they stand in the query.
func (p profile) parameters() (values [3][]byte) {
	rest := p[profileHeader+int(binary.LittleEndian.Uint16(p))+int(p[2]):]
	for i := range values {
		n := binary.LittleEndian.Uint16(p[4+2*i:])
		values[i], rest = rest[:n], rest[n:]
	}
	return values
}

// appendClick appends the entry of a click, which is shorter than maxEntry.
func appendClick(dst []byte, c *Click) []byte {
	start := len(dst)
	code := cut(c.Code, link.MaxCode)
	owner := cut(c.Link.Owner, maxOwner)
	address := c.Address[:min(len(c.Address), maxAddress)]
	dst = append(dst, 0, 0, kindClick, byte(len(code)), byte(len(owner)), byte(len(address)), 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(c.At.Unix()))
	dst = append(dst, code...)
	dst = append(dst, owner...)
	if c.Link.Options != nil && len(c.Link.Tags) > 0 {
		before := len(dst)
		dst = appendTags(dst, c.Link.Tags)
		binary.LittleEndian.PutUint16(dst[start+6:], uint16(len(dst)-before))
	}
	dst = append(dst, address...)

	p := len(dst)
	agent := c.UserAgent[:min(len(c.UserAgent), maxUserAgent)]
	from := authority(c.Referrer)
	dst = append(dst, byte(len(agent)), byte(len(agent)>>8), byte(len(from)), 0, 0, 0, 0, 0, 0, 0, 0, 0)
	dst = append(dst, agent...)
	dst = append(dst, from...)
	if len(c.Query) > 0 {
		if string(c.Query) == "qr" {
			dst[p+3] |= flagQR
		} else {
			dst = appendParameters(dst, p+4, c.Query)
		}
	}
	if len(c.Purpose) > 0 && isPrefetch(c.Purpose) {
		dst[p+3] |= flagPrefetch
	}
	if len(c.Country) == 2 {
		putCountry(dst[p+10:], c.Country)
	}
	binary.LittleEndian.PutUint16(dst[start:], uint16(len(dst)-start))
	return dst
}

// appendMiss appends the entry of a miss.
func appendMiss(dst []byte, code string, at int64) []byte {
	code = cut(code, link.MaxCode)
	dst = append(dst, byte(entryHeader+len(code)), 0, kindMiss, byte(len(code)), 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(at))
	return append(dst, code...)
}

func cut(s string, most int) string { return s[:min(len(s), most)] }

// maxTagBytes is how many bytes the tags of a link take at most; httpapi allows 10 tags of 50
// characters. What is beyond is left out.
const maxTagBytes = 10 * (1 + 4*50)

func appendTags(dst []byte, tags []string) []byte {
	most := len(dst) + maxTagBytes
	for _, tag := range tags {
		if len(tag) > 255 || len(dst)+1+len(tag) > most {
			continue
		}
		dst = append(dst, byte(len(tag)))
		dst = append(dst, tag...)
	}
	return dst
}

// authority returns what is between the scheme and the path of a URL, or nothing if it is too long
// to have a host.
func authority(referrer []byte) []byte {
	i := bytes.IndexByte(referrer[:min(len(referrer), 32)], ':') // schemes are shorter
	if i < 0 || len(referrer) < i+3 || string(referrer[i+1:i+3]) != "//" {
		return nil
	}
	rest := referrer[i+3:]
	rest = rest[:min(len(rest), maxHost+1)]
	for i, b := range rest {
		if b == '/' || b == '?' || b == '#' {
			return rest[:i]
		}
	}
	if len(rest) > maxHost {
		return nil
	}
	return rest
}

var parameterNames = [3]string{"source", "medium", "campaign"}

// appendParameters appends the values of three parameters of the query, and writes their lengths to
// dst[lengths:]. Of several with one name, the first counts.
func appendParameters(dst []byte, lengths int, query []byte) []byte {
	query = query[:min(len(query), maxSearched)]
	if !bytes.Contains(query, []byte("utm_")) {
		return dst
	}
	var values [3][]byte
	for len(query) > 0 {
		var parameter []byte
		parameter, query, _ = bytes.Cut(query, []byte{'&'})
		if len(parameter) < len("utm_") || string(parameter[:len("utm_")]) != "utm_" {
			continue
		}
		name, value, _ := bytes.Cut(parameter[len("utm_"):], []byte{'='})
		for i, n := range parameterNames {
			if string(name) == n && len(values[i]) == 0 {
				values[i] = value[:min(len(value), maxParameter)]
			}
		}
	}
	for i, value := range values {
		binary.LittleEndian.PutUint16(dst[lengths+2*i:], uint16(len(value)))
		dst = append(dst, value...)
	}
	return dst
}

// isPrefetch reports whether the header says that nobody has looked yet: the request is for a page
// that may be visited soon, or for a preview. Sec-Purpose says prefetch, and prerender after a
// semicolon; Purpose of older browsers prefetch; X-Purpose and X-moz preview or prefetch.
func isPrefetch(purpose []byte) bool {
	purpose = purpose[:min(len(purpose), 64)]
	return containsFold(purpose, "prefetch") || containsFold(purpose, "preview") || containsFold(purpose, "prerender")
}

// containsFold reports whether b has the word, which is in lower case, in any case.
func containsFold(b []byte, word string) bool {
	for ; len(b) >= len(word); b = b[1:] {
		i := 0
		for i < len(word) && b[i]|0x20 == word[i] {
			i++
		}
		if i == len(word) {
			return true
		}
	}
	return false
}

// putCountry writes the two letters of a country in upper case. XX is what Cloudflare sends if it
// does not know.
func putCountry(dst, country []byte) {
	a, b := country[0]&^0x20, country[1]&^0x20
	if 'A' <= a && a <= 'Z' && 'A' <= b && b <= 'Z' && !(a == 'X' && b == 'X') {
		dst[0], dst[1] = a, b
	}
}
