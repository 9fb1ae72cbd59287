package clicks

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"
)

// An adder adds entries up in a tally. One goroutine has it.
type adder struct {
	tally   *tally
	without [Dimensions]bool
	geo     *GeoIP
	salts   *saltKeeper
	bytes   atomic.Int64 // of the tally, for whoever asks

	seed      maphash.Seed
	origins   cache[*origin]
	profiles  cache[*known]
	countries cache[[2]byte]
	database  uint64 // which one the countries are from
	facts     factReader
	hour      int64 // of the newest click
	salt      *daySalt
	other     map[string]*known // of people and bots, by Bot

	// Of one drain.
	room                                     int64
	clicks, dropped, lessFacts, lessVisitors int64
}

// known is what a profile was found to mean, in one hour.
type known struct {
	facts Facts  // the country only if a header told
	hash  uint64 // of facts
	agent uint64 // of the user agent, by salt
	salt  *daySalt
	less  bool // there were too many to find out
}

func (a *adder) init(o Options, salts *saltKeeper, m *metrics) {
	for _, d := range o.Without {
		a.without[d] = true
	}
	a.tally, a.salts, a.seed = newTally(), salts, maphash.MakeSeed()
	if !a.without[Country] {
		a.geo = o.GeoIP
	}
	a.origins = newCache[*origin](4 << 10)
	a.profiles, a.countries = newCache[*known](8<<10), newCache[[2]byte](16<<10)
	a.facts = newFactReader(a.without)
	a.other = make(map[string]*known)
	for _, bot := range []string{"", "crawler", "preview", "prefetch"} {
		k := &known{}
		for d := range k.facts {
			if !a.without[d] {
				k.facts[d] = Other
			}
		}
		k.facts[Bot] = bot
		k.hash = a.hashOf(&k.facts)
		a.other[bot] = k
	}
}

// start begins a drain. The tally may grow to so many bytes.
func (a *adder) start(room int64) {
	a.room, a.clicks, a.dropped, a.lessFacts, a.lessVisitors = room, 0, 0, 0, 0
	a.salt = nil // there may be another one by now
	a.facts.refill(time.Now())
	if a.geo != nil {
		if database := a.geo.loaded.Load(); database != a.database {
			a.database = database
			a.countries.clear()
		}
	}
}

func (a *adder) end() { a.bytes.Store(a.tally.bytes) }

// entry adds up an entry.
func (a *adder) entry(raw []byte) {
	e := entry(raw)
	at := e.at()
	hour := at / 3600
	if e.kind() == kindMiss {
		a.tally.miss(e.code(), hour)
		return
	}
	a.clicks++
	t := a.tally
	// What is known of clicks may fill half of the room. The rest is for links, so that they are
	// counted for longer.
	lean := t.bytes > a.room/2
	code := e.code()
	hash := maphash.Bytes(a.seed, code)
	i, head := t.count(hash, code, hour)
	if i < 0 {
		if t.bytes > a.room {
			a.dropped++
			return
		}
		i = t.newCount(hash, code, a.origin(e), hour, head)
	}
	if hour > a.hour {
		a.hour = hour
		a.facts.newHour()
		a.profiles.clear()
	}
	p := e.profile()
	k := a.known(p)
	bot := k.facts[Bot] != ""
	if bot {
		t.counts[i].bots++
	} else {
		t.counts[i].clicks++
	}
	a.addFacts(i, k, e.address(), lean)
	if !bot {
		a.addVisitor(i, k, p, e, at, lean)
	}
}

func (a *adder) addFacts(i int32, k *known, address []byte, lean bool) {
	t, hash := a.tally, k.hash
	var country [2]byte
	if a.geo != nil && k.facts[Country] == "" && len(address) > 0 {
		if country = a.country(address); country[0] != 0 {
			hash ^= (uint64(country[0])<<8 | uint64(country[1])) * 0x9e3779b97f4a7c15
		}
	}
	more := !lean && t.counts[i].combos < maxCombos
	combo := t.combo(hash)
	if combo < 0 && more {
		facts := k.facts
		if country[0] != 0 {
			facts[Country] = string(country[:])
		}
		combo = t.newCombo(hash, facts)
	}
	if combo >= 0 && t.fact(i, combo, more) {
		if k.less {
			a.lessFacts++
		}
		return
	}
	a.lessFacts++
	other := a.other[k.facts[Bot]]
	if combo = t.combo(other.hash); combo < 0 {
		combo = t.newCombo(other.hash, other.facts)
	}
	t.fact(i, combo, true)
}

func (a *adder) addVisitor(i int32, k *known, p profile, e entry, at int64, lean bool) {
	if a.salt == nil || a.salt.day != at/day {
		a.salt = a.salts.of(at / day)
	}
	if k.salt != a.salt {
		k.salt, k.agent = a.salt, a.salt.agent(p.userAgent())
	}
	if !a.tally.visitor(i, a.salt.visitor(k.agent, e.code(), e.address()), !lean) {
		a.lessVisitors++
	}
}

// origin returns what the entry says of its link.
func (a *adder) origin(e entry) *origin {
	hash := maphash.Bytes(a.seed, e.owner()) ^ mixed(maphash.Bytes(a.seed, e.tags()))
	o, ok := a.origins.get(hash)
	if !ok {
		o = newOrigin(e.owner(), e.tags())
		a.origins.put(hash, o)
	}
	return o
}

// known returns what the profile means.
func (a *adder) known(p profile) *known {
	hash := maphash.Bytes(a.seed, p)
	k, ok := a.profiles.get(hash)
	if ok {
		return k
	}
	k = new(known)
	k.less = !a.facts.read(p, &k.facts)
	k.hash = a.hashOf(&k.facts)
	if !k.less { // else it may be found out a second later
		a.profiles.put(hash, k)
	}
	return k
}

func (a *adder) hashOf(f *Facts) uint64 {
	var h maphash.Hash
	h.SetSeed(a.seed)
	for _, value := range f {
		h.WriteString(value)
		h.WriteByte(0)
	}
	return h.Sum64()
}

// country returns the country of an address, or zeros.
func (a *adder) country(address []byte) [2]byte {
	hash := maphash.Bytes(a.seed, address)
	c, ok := a.countries.get(hash)
	if !ok {
		var text [maxAddress]byte
		if ip, err := netip.ParseAddr(string(text[:copy(text[:], address)])); err == nil {
			c = a.geo.country(ip)
		}
		a.countries.put(hash, c)
	}
	return c
}

// A cache keeps what was used last by hashes that nobody outside can foresee. Once it is full, what
// was not used since it was full before is forgotten.
type cache[V any] struct {
	now, before map[uint64]V
	most        int // of each
}

func newCache[V any](most int) cache[V] {
	return cache[V]{now: make(map[uint64]V), before: make(map[uint64]V), most: most}
}

func (c *cache[V]) get(hash uint64) (V, bool) {
	v, ok := c.now[hash]
	if !ok {
		if v, ok = c.before[hash]; ok {
			c.put(hash, v)
		}
	}
	return v, ok
}

func (c *cache[V]) put(hash uint64, v V) {
	if len(c.now) >= c.most {
		c.now, c.before = c.before, c.now
		clear(c.now)
	}
	c.now[hash] = v
}

func (c *cache[V]) clear() {
	clear(c.now)
	clear(c.before)
}
