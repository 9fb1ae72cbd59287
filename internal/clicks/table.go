package clicks

// A table finds small numbers by hashes that strangers cannot foresee. Of a map it is the part that
// is needed here, and takes half the time: a click is looked up in four of them. A number that is
// put under a hash twice is found twice.
type table struct {
	slots []slot // the length is 0 or a power of 2, and at most half of them are used
	n     int
}

type slot struct {
	hash  uint64 // 0 is free
	value int32
}

const minTable = 1 << 10

// find returns the first number under the hash that is right, or -1. Without right, any is.
func (t *table) find(hash uint64, right func(int32) bool) int32 {
	if len(t.slots) == 0 {
		return -1
	}
	hash = nonZero(hash)
	for i := hash; ; i++ {
		s := &t.slots[i&uint64(len(t.slots)-1)]
		if s.hash == 0 {
			return -1
		}
		if s.hash == hash && (right == nil || right(s.value)) {
			return s.value
		}
	}
}

func (t *table) put(hash uint64, value int32) {
	if 2*t.n >= len(t.slots) {
		old := t.slots
		t.slots = make([]slot, max(minTable, 2*len(old)))
		for _, s := range old {
			if s.hash != 0 {
				t.place(s)
			}
		}
	}
	t.place(slot{nonZero(hash), value})
	t.n++
}

func (t *table) place(s slot) {
	i := s.hash
	for t.slots[i&uint64(len(t.slots)-1)].hash != 0 {
		i++
	}
	t.slots[i&uint64(len(t.slots)-1)] = s
}

// clear empties the table. It gives back its memory if that is much more than was needed.
func (t *table) clear() {
	if len(t.slots) > minTable && 16*t.n < len(t.slots) {
		t.slots = nil
	}
	clear(t.slots)
	t.n = 0
}

func nonZero(hash uint64) uint64 {
	if hash == 0 {
		return 1
	}
	return hash
}

// mixed makes a hash of a number that is none.
func mixed(n uint64) uint64 {
	n *= 0x9e3779b97f4a7c15 // 2^64 by the golden ratio
	return n ^ n>>32
}
