package shorten_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"testing"
	"time"

	"snowlink/internal/link"
	"snowlink/internal/shorten"
	"snowlink/snowflake"
)

func TestCreateOnce(t *testing.T) {
	s := newShop(t)
	s.ids = mintedIDs(4)
	now := time.Now()
	first, err := s.CreateOnce(t.Context(), owner, onceRequest("key", "body"), now)
	if err != nil {
		t.Fatal(err)
	}
	again := func(what string, r shorten.Request, want error) {
		t.Helper()
		m, err := s.CreateOnce(t.Context(), owner, r, now.Add(time.Hour))
		if !errors.Is(err, want) || want == nil && (m.Code != first.Code || !m.At.Equal(first.At)) {
			t.Errorf("%s: %q at %s, %v, want %q at %s, %v", what, m.Code, m.At, err, first.Code, first.At, want)
		}
	}
	again("the same", onceRequest("key", "body"), nil)
	again("another body", onceRequest("key", "other"), shorten.ErrOtherBody)
	if m, err := s.CreateOnce(t.Context(), "other", onceRequest("key", "body"), now); err != nil || m.Code == first.Code {
		t.Errorf("the same key of another owner: %q, %v", m.Code, err)
	}
	s.ids = nil
	again("the same without a node ID", onceRequest("key", "body"), nil)
	again("a new key without a node ID", onceRequest("new", "body"), shorten.ErrNoNode)
}

func TestCreateOnceOfARefusedLinkFreesTheKey(t *testing.T) {
	s := newShop(t)
	s.ids = mintedIDs(2)
	wrong := errors.New("a wrong link")
	r := onceRequest("key", "body")
	r.Link = func(time.Time) (link.Link, error) { return link.Link{}, wrong }
	if _, err := s.CreateOnce(t.Context(), owner, r, time.Now()); !errors.Is(err, wrong) {
		t.Errorf("got %v", err)
	}
	if _, err := s.CreateOnce(t.Context(), owner, onceRequest("key", "other"), time.Now()); err != nil {
		t.Errorf("the key with another body: %v", err)
	}
}

// A create that was cut off is finished by the next try, under the code and as of the time that
// were promised, whether the link had been stored or not.
func TestCreateOnceIsFinished(t *testing.T) {
	for name, before := range map[string]bool{"cut off before it was stored": false, "cut off after it was stored": true} {
		for _, code := range []string{"", "chosen"} {
			t.Run(name+" "+code, func(t *testing.T) {
				s := newShop(t)
				s.ids = mintedIDs(2)
				minted, began := s.ids[0], time.Now()
				s.store.create = func(ctx context.Context, owner, code string, l link.Link) error {
					if before {
						if err := s.store.Store.Create(ctx, owner, code, l); err != nil {
							t.Error(err)
						}
					}
					return link.ErrUnavailable
				}
				r := onceRequest("key", "body")
				r.Code = code
				if _, err := s.CreateOnce(t.Context(), owner, r, began); !errors.Is(err, link.ErrUnavailable) {
					t.Fatalf("got %v", err)
				}
				s.store.create = nil
				wantCode, wantAt := code, began.Truncate(time.Millisecond)
				if code == "" {
					wantCode, wantAt = snowflake.Encode(minted), minted.Time()
				}
				m, err := s.CreateOnce(t.Context(), owner, r, began.Add(time.Hour))
				if err != nil || m.Code != wantCode || !m.At.Equal(wantAt) {
					t.Errorf("again: %q at %s, %v, want %q at %s", m.Code, m.At, err, wantCode, wantAt)
				}
				s.wantTarget(wantCode, target)
			})
		}
	}
}

// A promise that an older release left is kept: its name and its form must not change.
func TestCreateOnceKeepsAnOlderPromise(t *testing.T) {
	digest := func(s string) string {
		sum := sha256.Sum256([]byte(s))
		return base64.RawURLEncoding.EncodeToString(sum[:])
	}
	s := newShop(t)
	promised := mintedIDs(3)
	s.ids = promised[1:]
	code, at := snowflake.Encode(promised[0]), promised[0].Time()
	value := fmt.Sprintf("%s %s %d 12345", digest("body"), code, at.UnixMilli())
	if _, err := s.store.Promise(t.Context(), digest(owner+"\x00key"), value, time.Hour); err != nil {
		t.Fatal(err)
	}
	m, err := s.CreateOnce(t.Context(), owner, onceRequest("key", "body"), time.Now())
	if err != nil || m.Code != code || !m.At.Equal(at) || m.Options == nil || m.Nonce != 12345 {
		t.Errorf("got %+v, %v, want %q at %s", m, err, code, at)
	}
	s.wantTarget(code, target)
	if _, err := s.CreateOnce(t.Context(), owner, onceRequest("key", "other"), time.Now()); !errors.Is(err, shorten.ErrOtherBody) {
		t.Errorf("another body: %v", err)
	}
}

// A repeat does not pass off as its own a link that another owner imported since, be it an equal
// one.
func TestCreateOnceAndAnotherOwnersImport(t *testing.T) {
	for importer, want := range map[string]error{owner: nil, "blog": shorten.ErrReplaced} {
		t.Run(importer, func(t *testing.T) {
			s := newShop(t)
			id := mintedIDs(1)[0]
			s.ids = []snowflake.ID{id}
			s.store.create = func(context.Context, string, string, link.Link) error { return link.ErrUnavailable }
			if _, err := s.CreateOnce(t.Context(), owner, onceRequest("key", "body"), time.Now()); !errors.Is(err, link.ErrUnavailable) {
				t.Fatalf("got %v", err)
			}
			s.store.create = nil
			if err := s.Import(t.Context(), importer, []shorten.Row{{Coded: link.Coded{Code: snowflake.Encode(id), Link: plain}}}, false); err != nil {
				t.Fatal(err)
			}
			if _, err := s.CreateOnce(t.Context(), owner, onceRequest("key", "body"), time.Now()); !errors.Is(err, want) {
				t.Errorf("again: %v, want %v", err, want)
			}
		})
	}
}
