package httpapi

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// SlotMemory is how much memory a bulk or an import takes at most, in bytes, from the first byte of
// its body to the last of its answer. TestSlotIsLargeEnough measures it: 33 MiB for a bulk and 34
// MiB for an import, without what the store's client takes for a batch.
const SlotMemory = 40 << 20

// pageMemory is how much memory a page of an export takes at most, in bytes: its links, and their
// text. Links have 6 KiB at most.
const pageMemory = 12 << 20

// slotRules say how many requests of a route one key may have under way at one backend. More bulks
// at once would not be faster: one keeps the store busy.
var slotRules = map[route]struct {
	ofKey int
	what  string // in the plural, and how many
}{
	routeBulk:   {2, "two bulks"},
	routeImport: {1, "an import"},
	routeExport: {4, "four exports"},
	routeList:   {16, "16 long lists"},
	routeLive:   {16, "16 live views"},
}

// slots bound the memory of requests whose clients may take long: of bulks and imports, which hold
// what they have read while their clients send the rest, and of exports and long lists, which hold
// what their clients have not read yet. A request that finds no slot free is refused. If it waited
// instead, it would hold a connection for as long as other clients like.
type slots struct {
	inUse         prometheus.Gauge
	keyRefused    prometheus.Counter
	memoryRefused prometheus.Counter

	mu   sync.Mutex
	free int64           // memory, in bytes
	held map[slotsOf]int // above zero
}

type slotsOf struct {
	route route
	owner string
}

// newSlots makes slots that take the memory together, in bytes. There is room for one bulk at least.
func newSlots(memory int64, reg prometheus.Registerer) *slots {
	inUse := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "snowlink_slots_held", Help: "Bulks, imports, exports, long lists and live views under way."})
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "snowlink_slot_refusals_total", Help: "Bulks, imports, exports, long lists and live views answered 503: their key has as many under way as it may have, or all together take the memory that there is for them.",
	}, []string{"reason"})
	reg.MustRegister(inUse, refused)
	return &slots{
		inUse: inUse, keyRefused: refused.WithLabelValues("key"), memoryRefused: refused.WithLabelValues("memory"),
		free: max(SlotMemory, memory), held: make(map[slotsOf]int),
	}
}

// take takes a slot of so many bytes of memory for a request of the owner. The error is a *bodyError.
// Otherwise, release gives the slot back; calling it again does nothing.
func (s *slots) take(route route, owner string, memory int64) (release func(), err error) {
	rule, of := slotRules[route], slotsOf{route, owner}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.held[of] == rule.ofKey:
		s.keyRefused.Inc()
		return nil, &bodyError{problemUnavailable, "This key has " + rule.what + " under way at this backend, and may not have more at once. Nothing was done. Try again when one has ended."}
	case s.free < memory:
		s.memoryRefused.Inc()
		return nil, &bodyError{problemUnavailable, "Bulks, imports, exports, long lists and live views that are under way take all the memory that is set aside for them. Nothing was done. Try again."}
	}
	s.change(of, 1, memory)
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.change(of, -1, -memory)
	}), nil
}

// change counts n more slots of so many bytes in all as held, or fewer if both are negative. The
// caller holds s.mu.
func (s *slots) change(of slotsOf, n int, memory int64) {
	s.free -= memory
	if s.held[of] += n; s.held[of] == 0 {
		delete(s.held, of)
	}
	s.inUse.Add(float64(n))
}
