package clicks

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"log/slog"
	"sync"
	"time"

	"github.com/dchest/siphash"
	"github.com/prometheus/client_golang/prometheus"

	"snowlink/internal/outage"
)

// A Salt is what visitors are hashed with on one day. Whoever has it could find out who visited, by
// hashing every address there is.
type Salt [32]byte

// Salts are where the processes get the salt of a day from, which is the same for all of them.
type Salts interface {
	// Salt returns the salt of the day (UTC) that begins then. Whoever asks first makes it. It is gone
	// soon after the day. The error wraps link.ErrUnavailable.
	Salt(ctx context.Context, day time.Time) (Salt, error)
}

// SaltKept is how long after its day a salt may be kept at most: for processes whose clocks differ.
const SaltKept = time.Hour

const (
	day = 24 * 60 * 60 // seconds

	// nextSalt is how long before midnight a process asks for the salt of the next day, so that no
	// click of that day finds it without one.
	nextSalt = 5 * time.Minute
	// lastSalt is how long after midnight a process still has the salt of the day before, for clicks
	// that are in its buffers.
	lastSalt = time.Minute
	// saltEvery is how often a process looks whether it needs another salt.
	saltEvery = 5 * time.Second
)

// daySalt is the salt of a day in this process.
type daySalt struct {
	day    int64 // since 1970
	keys   [4]uint64
	shared bool // with all processes
}

func newDaySalt(day int64, s Salt, shared bool) *daySalt {
	d := &daySalt{day: day, shared: shared}
	for i := range d.keys {
		d.keys[i] = binary.LittleEndian.Uint64(s[8*i:])
	}
	return d
}

// agent hashes a user agent for visitor. It is a step of its own, because few user agents have many
// visitors.
func (s *daySalt) agent(userAgent []byte) uint64 {
	return siphash.Hash(s.keys[0], s.keys[1], userAgent)
}

// visitor hashes what agent made of a user agent, and the rest of what a visitor is told apart by.
// The result is the same in all processes.
func (s *daySalt) visitor(agent uint64, code, address []byte) uint64 {
	var b [8 + 64 + 1 + maxAddress]byte
	p := binary.LittleEndian.AppendUint64(b[:0], agent)
	p = append(p, code...)
	p = append(p, 0) // no code has it
	p = append(p, address...)
	return siphash.Hash(s.keys[2], s.keys[3], p)
}

// saltKeeper has the salts that this process needs now, and no others.
type saltKeeper struct {
	from   Salts
	away   *outage.Outage
	failed prometheus.Counter

	mu   sync.Mutex
	days map[int64]*daySalt
}

func newSaltKeeper(from Salts, log *slog.Logger, failed prometheus.Counter) *saltKeeper {
	return &saltKeeper{from: from, away: outage.New(log, "the salt of visitors"), failed: failed, days: make(map[int64]*daySalt)}
}

// of returns the salt of a day. If it did not come, it is one that only this process has: a visitor
// who comes to several processes counts several times then, and again once the salt has come.
func (k *saltKeeper) of(day int64) *daySalt {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.days[day]
	if s == nil {
		var own Salt
		rand.Read(own[:])
		s = newDaySalt(day, own, false)
		k.days[day] = s
	}
	return s
}

// keep asks for salts until ctx ends.
func (k *saltKeeper) keep(ctx context.Context) {
	tick := time.NewTicker(saltEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			k.refresh(ctx, now)
		case <-ctx.Done():
			return
		}
	}
}

// refresh asks for the salts that are needed at the time, and forgets all others.
func (k *saltKeeper) refresh(ctx context.Context, now time.Time) {
	today := now.Unix() / day
	first, last := now.Add(-lastSalt).Unix()/day, now.Add(nextSalt).Unix()/day
	k.mu.Lock()
	for d := range k.days {
		if d < first || d > last {
			delete(k.days, d)
		}
	}
	k.mu.Unlock()
	for d := today; d <= last; d++ {
		k.mu.Lock()
		s := k.days[d]
		k.mu.Unlock()
		if s != nil && s.shared {
			continue
		}
		salt, err := k.from.Salt(ctx, time.Unix(d*day, 0).UTC())
		if err != nil {
			if ctx.Err() == nil {
				k.failed.Inc()
				k.away.Observed(err)
			}
			return
		}
		k.away.Ended()
		k.mu.Lock()
		k.days[d] = newDaySalt(d, salt, true)
		k.mu.Unlock()
	}
}
