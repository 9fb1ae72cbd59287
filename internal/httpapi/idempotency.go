package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"snowlink/internal/link"
	"snowlink/snowflake"
)

const (
	headerIdempotencyKey = "Idempotency-Key"

	// idempotencyTime is how long the answer to an Idempotency-Key stays what it
	// was.
	idempotencyTime = 24 * time.Hour

	maxIdempotencyKey = 255 // bytes
)

// A Memory remembers for a while who was first. It is safe for concurrent use.
type Memory interface {
	// Remember keeps the value under the key for the time, unless there is one,
	// which it returns then; "" means that this one was the first. In one step
	// whoever else does.
	Remember(ctx context.Context, key, value string, ttl time.Duration) (first string, err error)
	// Recall returns what is remembered under the key, or "".
	Recall(ctx context.Context, key string) (value string, err error)
	// Forget ends it early, if it is still the value that is remembered.
	Forget(ctx context.Context, key, value string) error
}

// errOtherBody is what a create fails with whose Idempotency-Key came with another
// body before.
var errOtherBody = errors.New("another body came with this idempotency key")

// createOnce is createNew for a request with an Idempotency-Key: whoever sends the
// same key and body again gets the first answer again, as often as it takes.
func (a *API) createOnce(ctx context.Context, owner string, key, body []byte, r *createRequest, now time.Time) (made, error) {
	if !isIdempotencyKey(key) {
		return made{}, fieldErrorf("The header Idempotency-Key must be of 1 to %d printable ASCII characters.", maxIdempotencyKey)
	}
	own, err := r.ownCode()
	if err != nil {
		return made{}, err
	}
	name := digest([]byte(owner + "\x00" + string(key)))
	for try := 1; ; try++ {
		p := promise{body: digest(body), code: own, at: now, nonce: newNonce()}
		if own == "" {
			id, err := a.Mint()
			if err != nil {
				// Nothing can be made, but what was made can be answered again.
				if before, _ := a.Memory.Recall(ctx, name); before != "" {
					return a.createAgain(ctx, owner, before, p.body, r)
				}
				return made{}, err
			}
			p.code, p.at = snowflake.Encode(id), id.Time()
		}
		before, err := a.Memory.Remember(ctx, name, p.String(), idempotencyTime)
		if err != nil {
			return made{}, err
		}
		if before != "" && before != p.String() { // equal is ours: a write whose answer was lost
			return a.createAgain(ctx, owner, before, p.body, r)
		}
		m, err := a.fulfil(ctx, owner, p, r)
		switch {
		case err == nil:
			a.Metrics.Created()
			return m, nil
		case errors.Is(err, link.ErrUnavailable):
			return made{}, err // the link may be there or not: the next try finds out
		}
		// The key is free again. Should it not be forgotten, the next try comes to
		// the same end as this one.
		_ = a.Memory.Forget(ctx, name, p.String())
		if own != "" || !errors.Is(err, link.ErrExists) {
			return made{}, err
		}
		a.Metrics.Collision()
		if try == mintTries {
			return made{}, fmt.Errorf("%w: %w", errNoFreeCode, err)
		}
	}
}

// createAgain gives the answer that was promised before, and finishes that create
// if it was cut off.
func (a *API) createAgain(ctx context.Context, owner, before, body string, r *createRequest) (made, error) {
	first, err := parsePromise(before)
	if err != nil {
		return made{}, err
	}
	if first.body != body {
		return made{}, errOtherBody
	}
	m, err := a.fulfil(ctx, owner, first, r)
	if errors.Is(err, link.ErrExists) {
		err = a.became(ctx, m)
	}
	return m, err
}

// fulfil stores the link that was promised, or finds it stored.
func (a *API) fulfil(ctx context.Context, owner string, p promise, r *createRequest) (made, error) {
	l, err := r.link(a.Own, p.at)
	if err != nil {
		return made{}, err
	}
	if own, _ := r.ownCode(); own != "" {
		m := ownMade(own, l, p.at, p.nonce)
		return m, a.Store.Create(ctx, owner, m.Code, m.Link)
	}
	if l.Options == nil {
		l.Options = new(link.Options)
	}
	l.Nonce = p.nonce // by which became knows it, once it was changed
	m := made{link.Coded{Code: p.code, Link: l}, p.at}
	return m, a.Store.Create(ctx, owner, m.Code, m.Link)
}

// became returns nil if the other link that stands under the code of m is what
// changes made of m, and link.ErrExists if it is somebody else's: one who chose the
// code, or imported it after m was evicted. Every change leaves the nonce as it was,
// and an import has none.
func (a *API) became(ctx context.Context, m made) error {
	s, err := a.Store.Read(ctx, m.Code)
	if err != nil {
		return err
	}
	if s.Options != nil && s.Nonce == m.Nonce && s.Created.Equal(m.Created) {
		return nil
	}
	if !m.Chosen() && equalButCreated(s.Link, m.Link) {
		return nil // imported as it was: the first answer is true of it
	}
	return link.ErrExists
}

// promise is what is remembered of the first create with an Idempotency-Key: all
// of its answer that another try could not know. So the link need not be kept a
// second time, and a try that was cut off can be finished by the next.
type promise struct {
	body  string // its digest
	code  string
	at    time.Time // to the millisecond
	nonce uint32
}

func (p promise) String() string {
	return fmt.Sprintf("%s %s %d %d", p.body, p.code, p.at.UnixMilli(), p.nonce)
}

func parsePromise(s string) (promise, error) {
	var p promise
	var ms int64
	if _, err := fmt.Sscanf(s, "%s %s %d %d", &p.body, &p.code, &ms, &p.nonce); err != nil {
		return promise{}, fmt.Errorf("what was remembered of a create, %q: %w", s, err)
	}
	p.at = time.UnixMilli(ms)
	return p, nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func isIdempotencyKey(key []byte) bool {
	for _, b := range key {
		if b < ' ' || b > '~' {
			return false
		}
	}
	return len(key) > 0 && len(key) <= maxIdempotencyKey
}
