package httpapi

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// SlotMemory is how much memory a bulk or an import takes at most, in bytes, from the first byte of
// its body to the last of its answer. TestSlotIsLargeEnough measures it: 33 MiB for a bulk and 34
// MiB for an import, without what the store's client takes for a batch.
const SlotMemory = 40 << 20

// Limits for one key at one backend. More at once would not be faster: one bulk keeps the store
// busy.
const (
	bulksOfKey   = 2
	importsOfKey = 1
)

// slots bound the memory of bulks and imports, which hold what they have read while their clients
// send the rest. A request that finds no slot free is refused before its body is read. If it waited
// instead, it would hold a connection for as long as other clients like.
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

// take takes a slot for a request of the owner. The error is a *bodyError. Otherwise, release gives
// the slot back; calling it again does nothing.
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
		return nil, &bodyError{problemUnavailable, "This key has " + what + " under way at this backend, and may not have more at once. Nothing was stored. Try again when one has ended."}
	case s.free == 0:
		s.memoryRefused.Inc()
		return nil, &bodyError{problemUnavailable, "The bulks and imports under way take all the memory that is set aside for them. Nothing was stored. Try again."}
	}
	s.change(of, 1)
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.change(of, -1)
	}), nil
}

// change counts n more slots as held, or -n fewer. The caller holds s.mu.
func (s *slots) change(of slotsOf, n int) {
	s.free -= n
	if s.held[of] += n; s.held[of] == 0 {
		delete(s.held, of)
	}
	s.inUse.Add(float64(n))
}
