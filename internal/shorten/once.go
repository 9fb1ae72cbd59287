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

// Promises remembers for a while what was promised first. It is safe for concurrent use.
type Promises interface {
	// Promise keeps the value under the key for the time, unless there is one already, in one step
	// whoever else does. It returns the one that was there, or "" if this one is the first.
	Promise(ctx context.Context, key, value string, ttl time.Duration) (before string, err error)
	// Promised returns what is promised under the key, or "".
	Promised(ctx context.Context, key string) (value string, err error)
	// Retract ends the promise early, if it still is the value.
	Retract(ctx context.Context, key, value string) error
}

// Request is a create that may be sent again.
type Request struct {
	// Key is the idempotency key, and Body is what came with it.
	Key, Body []byte
	// Code is from [link.ParseCode], or "" for a minted one.
	Code string
	// Link is the link that the body asks for, as of a time: it says from when a time to live runs. It
	// fails if the body asks for what cannot be.
	Link func(at time.Time) (link.Link, error)
}

// CreateOnce makes the link that the request asks for. Whoever sends the same key and body again
// within PromiseTime gets the first answer again, and a create that was cut off is finished. Its
// errors are ErrOtherBody, those of Create and CreateChosen, and those of Request.Link.
func (s *Shortener) CreateOnce(ctx context.Context, owner string, r Request, now time.Time) (Made, error) {
	name := digest([]byte(owner + "\x00" + string(r.Key)))
	for try := 1; ; try++ {
		p := promise{body: digest(r.Body), code: r.Code, at: now, nonce: newNonce()}
		if r.Code == "" {
			id, err := s.mint()
			if err != nil {
				// Nothing new can be made, but what was made can be answered again.
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
		if before != "" && before != p.String() { // an equal one is ours: a write whose answer was lost
			return s.createAgain(ctx, owner, before, p.body, r)
		}
		m, err := s.fulfil(ctx, owner, p, r)
		if errors.Is(err, link.ErrUnavailable) {
			return Made{}, err // the link may be there or not: the next try finds out
		}
		if err != nil {
			// The key is free again. If that fails, the next try comes to the same end as this one.
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
	return m, err
}

// fulfil stores the link that was promised, or finds it stored.
func (s *Shortener) fulfil(ctx context.Context, owner string, p promise, r Request) (Made, error) {
	l, err := r.Link(p.at)
	if err != nil {
		return Made{}, err
	}
	var m Made
	if r.Code != "" {
		m = chosen(p.code, l, p.at, p.nonce)
	} else {
		var o link.Options
		if l.Options != nil {
			o = *l.Options
		}
		o.Nonce = p.nonce // by which became knows the link once it was changed
		m = Made{link.Coded{Code: p.code, Link: link.Link{Target: l.Target, Options: &o}}, p.at}
	}
	return m, s.store.Create(ctx, owner, m.Code, m.Link)
}

// became returns nil if the other link that stands under the code of m is what changes made of m. It
// returns [link.ErrExists] if the link is somebody else's, who chose the code, or imported it after m
// was evicted. A change leaves the nonce as it was, and an import has none.
func (s *Shortener) became(ctx context.Context, m Made) error {
	now, err := s.store.Read(ctx, m.Code)
	if err != nil {
		return err
	}
	if now.Options != nil && now.Nonce == m.Nonce && now.Created.Equal(m.Created) {
		return nil
	}
	if !m.Chosen() && equalButCreated(now.Link, m.Link) {
		return nil // imported as it was: the first answer is true of it
	}
	return link.ErrExists
}

// promise is what is remembered of the first create with an idempotency key: all of its answer that
// another try could not know. So the link need not be kept a second time, and the next try can finish
// one that was cut off.
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
