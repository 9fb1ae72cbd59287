// Package shorten makes links: under a minted code, under a code that somebody chose, once for each
// idempotency key, many at a time, and from the lists of other services. It knows nothing of HTTP.
//
// It holds one decision: each process mints codes without asking others. So a minted code can be
// taken only after a fault: two processes share a node ID, or a clock went back. The store then
// refuses the second link, and the code is minted again. One function, settle, decides what follows
// from a refusal.
package shorten

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"snowlink/internal/link"
	"snowlink/snowflake"
)

// ErrNoNode reports that the process holds no node ID now, and so cannot mint a code.
var ErrNoNode = errors.New("no node ID is held")

// ErrNoFreeCode reports that every code that was minted for a link was taken. It wraps
// [link.ErrExists].
var ErrNoFreeCode = errors.New("every code minted for a link was taken")

// mintTries is how often a code is minted for one link. A second try means a fault, as the package
// comment says. A third is bad luck on top of it.
const mintTries = 3

// Made is a link that was made.
type Made struct {
	link.Coded
	At time.Time // to the millisecond
}

// Shortener makes links in a store. All methods may be called concurrently.
type Shortener struct {
	store    link.Store
	promises Promises
	mint     func() (snowflake.ID, error)

	created, collisions prometheus.Counter
}

// New makes a Shortener over the store. mint returns a new ID, or ErrNoNode if the process holds no
// node ID. The collectors are registered with reg.
func New(store link.Store, promises Promises, mint func() (snowflake.ID, error), reg prometheus.Registerer) *Shortener {
	s := &Shortener{
		store: store, promises: promises, mint: mint,
		created: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "snowlink_creates_total", Help: "Links stored and acknowledged."}),
		collisions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "snowlink_collisions_total", Help: "Minted codes that were taken and minted again. Above zero, two processes share a node ID or a clock went back."}),
	}
	reg.MustRegister(s.created, s.collisions)
	return s
}

// Create makes a link for the owner under a minted code. Its errors are those of
// [link.Store.Create] except [link.ErrExists], and ErrNoNode and ErrNoFreeCode.
func (s *Shortener) Create(ctx context.Context, owner string, l link.Link) (Made, error) {
	l = l.OwnedBy(owner)
	for try := 1; ; try++ {
		id, err := s.mint()
		if err != nil {
			return Made{}, err
		}
		m := Made{link.Coded{Code: snowflake.Encode(id), Link: l}, id.Time()}
		err = s.store.Create(ctx, owner, m.Code, l)
		if again, err := s.settle(err, true, try); !again {
			return m, err
		}
	}
}

// CreateChosen makes a link for the owner under a code from [link.ParseCode]. Its errors are those
// of [link.Store.Create].
func (s *Shortener) CreateChosen(ctx context.Context, owner, code string, l link.Link, now time.Time) (Made, error) {
	m := chosen(code, l.OwnedBy(owner), now, newNonce())
	_, err := s.settle(s.store.Create(ctx, owner, code, m.Link), false, 1)
	return m, err
}

// settle decides what follows when the try-th create of a link has ended with err: whether to mint
// another code, and if not, which error the create ends with. It counts links and collisions.
func (s *Shortener) settle(err error, minted bool, try int) (again bool, final error) {
	switch {
	case err == nil:
		s.created.Inc()
		return false, nil
	case !minted || !errors.Is(err, link.ErrExists):
		return false, err
	}
	s.collisions.Inc()
	if try == mintTries {
		return false, fmt.Errorf("%w: %w", ErrNoFreeCode, err)
	}
	return true, nil
}

// chosen returns the link as it is made at a time under a code that was not minted. Such a code
// does not say the time, and so the record does.
func chosen(code string, l link.Link, at time.Time, nonce uint32) Made {
	at = at.UTC().Truncate(time.Millisecond)
	var o link.Options // a copy, because others may be reading the one of l
	if l.Options != nil {
		o = *l.Options
	}
	o.Created, o.Nonce = at, nonce
	l.Options = &o
	return Made{link.Coded{Code: code, Link: l}, at}
}

// newNonce returns a random nonce, which is never 0.
func newNonce() uint32 { return rand.Uint32() | 1 }
