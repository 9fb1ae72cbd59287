package httpapi

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// SlotMemory is what a bulk or an import may take of memory at most, in bytes, from its
// first byte to the last of its answer. TestSlotIsLargeEnough measures it: 33 MiB for a
// bulk and 34 MiB for an import, without what the store's client takes for a batch.
const SlotMemory = 40 << 20

// What one key may have under way at once at a backend. Several do not make it faster:
// one bulk keeps the store busy.
const (
	bulksOfKey   = 2
	importsOfKey = 1
)

// slots bound the memory of bulks and imports, which hold what they have read for as long
// as their clients take to send the rest. Whoever finds no slot free is refused before its
// body is read. To wait instead would hold a connection, and be for as long as others like.
type slots struct {
	inUse         prometheus.Gauge
	keyRefused    prometheus.Counter
	memoryRefused prometheus.Counter

	mu   sync.Mutex
	free int
	held map[slotsOf]int // above zero
}

type slotsOf struct {
	route route
	owner string
}

// newSlots makes as many slots as the memory has room for, and one at least.
func newSlots(memory int64, reg prometheus.Registerer) *slots {
	inUse := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "snowlink_slots_held", Help: "Bulks and imports under way."})
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "snowlink_slot_refusals_total", Help: "Bulks and imports answered 503 unread: their key has as many under way as it may have, or all together take the memory that there is for them.",
	}, []string{"reason"})
	reg.MustRegister(inUse, refused)
	return &slots{
		inUse: inUse, keyRefused: refused.WithLabelValues("key"), memoryRefused: refused.WithLabelValues("memory"),
		free: int(max(1, memory/SlotMemory)), held: make(map[slotsOf]int),
	}
}

// take takes a slot for a request of the owner's. The error is a *bodyError; without one,
// release gives the slot back, once however often it is called.
func (s *slots) take(route route, owner string) (release func(), err error) {
	most, what := bulksOfKey, "two bulks"
	if route == routeImport {
		most, what = importsOfKey, "an import"
	}
	of := slotsOf{route, owner}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.held[of] == most:
		s.keyRefused.Inc()
		return nil, &bodyError{problemUnavailable, "This key has " + what + " under way at this backend, which is all that it may have at once. Nothing was stored. Try again when that has ended."}
	case s.free == 0:
		s.memoryRefused.Inc()
		return nil, &bodyError{problemUnavailable, "The bulks and imports under way take all the memory that there is for them. Nothing was stored. Try again."}
	}
	s.change(of, 1)
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.change(of, -1)
	}), nil
}

// change counts one slot more, or one less, as held.
func (s *slots) change(of slotsOf, n int) {
	s.free -= n
	if s.held[of] += n; s.held[of] == 0 {
		delete(s.held, of)
	}
	s.inUse.Add(float64(n))
}
