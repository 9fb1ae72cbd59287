package clicks

// A table finds small numbers by hashes that strangers cannot foresee. Of a map it is the part that
// is needed here, and takes half the time: a click is looked up in four of them. A number that is
// put under a hash twice is found twice.
type table struct {
	hashes []uint64 // 0 is free; the length is a power of 2
	values []int32
	n      int
}

const minTable = 1 << 10

// find returns the first number under the hash that is right, or -1.
func (t *table) find(hash uint64, right func(int32) bool) int32 {
	hash = nonZero(hash)
	for i := hash; len(t.hashes) > 0; i++ {
		switch h := t.hashes[i&uint64(len(t.hashes)-1)]; {
		case h == 0:
			return -1
		case h == hash:
			if v := t.values[i&uint64(len(t.hashes)-1)]; right == nil || right(v) {
				return v
			}
		}
	}
	return -1
}

func (t *table) put(hash uint64, value int32) {
	if 2*t.n >= len(t.hashes) {
		old := *t
		size := max(minTable, 2*len(old.hashes))
		t.hashes, t.values = make([]uint64, size), make([]int32, size)
		for i, h := range old.hashes {
			if h != 0 {
				t.place(h, old.values[i])
			}
		}
	}
	t.place(nonZero(hash), value)
	t.n++
}

func (t *table) place(hash uint64, value int32) {
	i := hash
	for t.hashes[i&uint64(len(t.hashes)-1)] != 0 {
		i++
	}
	i &= uint64(len(t.hashes) - 1)
	t.hashes[i], t.values[i] = hash, value
}

// clear empties the table. It gives back its memory if that is much more than was needed.
func (t *table) clear() {
	if len(t.hashes) > minTable && 16*t.n < len(t.hashes) {
		*t = table{}
	}
	clear(t.hashes)
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
