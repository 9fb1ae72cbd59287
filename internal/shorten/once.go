package shorten

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

// PromiseTime is how long the answer to an idempotency key stays the same.
const PromiseTime = 24 * time.Hour

// ErrOtherBody reports that an idempotency key came with another body before.
var ErrOtherBody = errors.New("another body came with this idempotency key")

// ErrReplaced reports that the link which an idempotency key made under a minted code is gone, and
// that another link has the code. It wraps [link.ErrExists].
var ErrReplaced = errors.New("another link has the code of the one that was made")

// Promises keeps, for a while, what was promised first. It is safe for concurrent use.
type Promises interface {
	// Promise stores the value under the key for the time ttl, unless the key has one already. It
	// decides and stores in one step, among all processes. It returns the value that was there
	// before, or "" if this one is the first.
	Promise(ctx context.Context, key, value string, ttl time.Duration) (before string, err error)
	// Promised returns the value of the key, or "".
	Promised(ctx context.Context, key string) (value string, err error)
	// Retract removes the promise if it still has this value.
	Retract(ctx context.Context, key, value string) error
}

// Request is a create that may be sent again.
type Request struct {
	// Key is the idempotency key, and Body is what came with it.
	Key, Body []byte
	// Code is from [link.ParseCode], or "" for a minted one.
	Code string
	// Link returns the link that the body asks for, as of a time, from which a time to live runs.
	// It fails if the body asks for something invalid.
	Link func(at time.Time) (link.Link, error)
}

// CreateOnce makes the link that the request asks for. If the same key and body are sent again
// within PromiseTime, it gives the first answer again, and finishes a create that was cut off. Its
// errors are ErrOtherBody, those of Create and CreateChosen, and those of Request.Link.
func (s *Shortener) CreateOnce(ctx context.Context, owner string, r Request, now time.Time) (Made, error) {
	name := digest([]byte(owner + "\x00" + string(r.Key)))
	for try := 1; ; try++ {
		p := promise{body: digest(r.Body), code: r.Code, at: now, nonce: newNonce()}
		if r.Code == "" {
			id, err := s.mint()
			if err != nil {
				// No new link can be made, but an earlier answer can be given again.
				if before, _ := s.promises.Promised(ctx, name); before != "" {
					return s.createAgain(ctx, owner, before, p.body, r)
				}
				return Made{}, err
			}
			p.code, p.at = snowflake.Encode(id), id.Time()
		}
		before, err := s.promises.Promise(ctx, name, p.String(), PromiseTime)
		if err != nil {
			return Made{}, err
		}
		if before != "" && before != p.String() { // an equal one is from this try: the answer to a write was lost
			return s.createAgain(ctx, owner, before, p.body, r)
		}
		m, err := s.fulfil(ctx, owner, p, r)
		if errors.Is(err, link.ErrUnavailable) {
			return Made{}, err // the link may be there or not: the next try finds out
		}
		if err != nil {
			// The key is free again. If that fails, the next try ends like this one.
			_ = s.promises.Retract(ctx, name, p.String())
		}
		if again, err := s.settle(err, r.Code == "", try); !again {
			return m, err
		}
	}
}

// createAgain gives the answer that was promised before. It finishes that create if it was cut off.
func (s *Shortener) createAgain(ctx context.Context, owner, before, body string, r Request) (Made, error) {
	first, err := parsePromise(before)
	if err != nil {
		return Made{}, err
	}
	if first.body != body {
		return Made{}, ErrOtherBody
	}
	m, err := s.fulfil(ctx, owner, first, r)
	if errors.Is(err, link.ErrExists) {
		err = s.became(ctx, m)
	}
	if errors.Is(err, link.ErrExists) && r.Code == "" {
		err = fmt.Errorf("%w: %w", ErrReplaced, err)
	}
	return m, err
}

// fulfil stores the link that was promised, or finds it stored.
func (s *Shortener) fulfil(ctx context.Context, owner string, p promise, r Request) (Made, error) {
	l, err := r.Link(p.at)
	if err != nil {
		return Made{}, err
	}
	l = l.OwnedBy(owner)
	var m Made
	if r.Code != "" {
		m = chosen(p.code, l, p.at, p.nonce)
	} else {
		var o link.Options
		if l.Options != nil {
			o = *l.Options
		}
		o.Nonce = p.nonce // by which became knows the link after a change
		l.Options = &o
		m = Made{link.Coded{Code: p.code, Link: l}, p.at}
	}
	return m, s.store.Create(ctx, owner, m.Code, m.Link)
}

// became returns nil if the link that has the code of m now is m after changes. It returns
// [link.ErrExists] if it is another link: somebody chose the code, or imported it after m was
// evicted. A change keeps the nonce, and an import has none.
func (s *Shortener) became(ctx context.Context, m Made) error {
	now, err := s.store.Read(ctx, m.Code)
	if err != nil {
		return err
	}
	if now.Options != nil && now.Nonce == m.Nonce && now.Created.Equal(m.Created) {
		return nil
	}
	// One without an owner may have been made before links had owners.
	theirs := now.Owner != "" && now.Owner != m.Owner
	if !m.Chosen() && !theirs && equalButCreated(now.Link, m.Link) {
		return nil // it was imported as it was, so the first answer still holds
	}
	return link.ErrExists
}

// promise is what is stored of the first create with an idempotency key: the part of its answer
// that another try could not work out. So the link is not stored twice, and the next try can finish
// a create that was cut off.
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
		return promise{}, fmt.Errorf("what was promised of a create, %q: %w", s, err)
	}
	p.at = time.UnixMilli(ms)
	return p, nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
