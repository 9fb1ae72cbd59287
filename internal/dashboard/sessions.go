package dashboard

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"snowlink/internal/apikey"
	"snowlink/internal/redisstore"
)

const (
	// SessionTime is how long somebody stays signed in.
	SessionTime = 12 * time.Hour
	// InviteTime is how long a token of Invite is valid.
	InviteTime = 15 * time.Minute

	// maxSessions is how many sessions the keys of a name have at once. One more ends the oldest.
	maxSessions = 50

	// Tries are how often one network may sign in wrongly in TriesPer: at first as often at once, then
	// one every TriesPer/Tries.
	Tries    = 10
	TriesPer = time.Minute
)

// ErrNoSession reports that there is no such session: it ended, was revoked, its key is not accepted
// any more, or it never was. It is also what a token of Invite fails with that was used before.
var ErrNoSession = errors.New("no such session")

// A Session is somebody who is signed in with a browser.
type Session struct {
	ID      string // the digest of its token, which it does not give away
	Name    string // of the key
	Created time.Time
	Expires time.Time
	Browser string // such as "Firefox on Linux"

	seal string // of the key: see seal
}

// kept is a session as Redis keeps it.
type kept struct {
	Name    string `json:"name"`
	Created int64  `json:"created"` // Unix milliseconds, as Expires
	Expires int64  `json:"expires"`
	Browser string `json:"browser"`
	Seal    string `json:"seal"`
}

// Sessions are who is signed in, at all backends. All methods may be called concurrently. Their
// errors wrap link.ErrUnavailable if Redis does not answer.
type Sessions struct {
	store *redisstore.Store
	keys  *apikey.Keys
}

// NewSessions returns the sessions in a store of what is no link, with the keys that are accepted.
func NewSessions(store *redisstore.Store, keys *apikey.Keys) *Sessions {
	return &Sessions{store, keys}
}

// Start begins a session of the key and returns its token. It deletes what ran out.
func (s *Sessions) Start(ctx context.Context, key *apikey.Key, browser string, now time.Time) (token string, session Session, err error) {
	all, ended, err := s.all(ctx, now)
	if err != nil {
		return "", Session{}, err
	}
	own := slices.DeleteFunc(all, func(o Session) bool { return o.Name != key.Name }) // the newest first
	for _, o := range own[min(maxSessions-1, len(own)):] {
		ended = append(ended, o.ID)
	}
	if err := s.store.DeleteSessions(ctx, ended...); err != nil {
		return "", Session{}, err
	}
	now = now.UTC().Truncate(time.Millisecond)
	token, id := newToken()
	session = Session{ID: id, Name: key.Name, Created: now, Expires: now.Add(SessionTime), Browser: browser}
	session.seal = seal(key, session.sealed())
	text, err := json.Marshal(kept{
		session.Name, session.Created.UnixMilli(), session.Expires.UnixMilli(), session.Browser, session.seal,
	})
	if err != nil {
		return "", Session{}, err
	}
	return token, session, s.store.SetSession(ctx, id, string(text))
}

// Find returns the session with the token, and its key as it is now. It fails with ErrNoSession.
func (s *Sessions) Find(ctx context.Context, token string, now time.Time) (Session, *apikey.Key, error) {
	id, ok := idOf(token)
	if !ok {
		return Session{}, nil, ErrNoSession
	}
	text, err := s.store.Session(ctx, id)
	if err != nil {
		return Session{}, nil, err
	}
	session, ok := parse(id, text)
	if !ok || !now.Before(session.Expires) {
		return Session{}, nil, ErrNoSession
	}
	key := s.keyOf(session)
	if key == nil {
		return Session{}, nil, ErrNoSession
	}
	return session, key, nil
}

// List returns the sessions of a key name, or all of them if the name is "", the newest first.
func (s *Sessions) List(ctx context.Context, name string, now time.Time) ([]Session, error) {
	all, _, err := s.all(ctx, now)
	return slices.DeleteFunc(all, func(o Session) bool {
		return s.keyOf(o) == nil || name != "" && o.Name != name
	}), err
}

// End ends the session with the ID. If name is not "", it must be that of its key. It fails with
// ErrNoSession.
func (s *Sessions) End(ctx context.Context, id, name string) error {
	text, err := s.store.Session(ctx, id)
	if err != nil {
		return err
	}
	if session, ok := parse(id, text); !ok || name != "" && session.Name != name {
		return ErrNoSession
	}
	return s.store.DeleteSessions(ctx, id)
}

// Invite returns a token with which somebody can sign in once with the key, for InviteTime.
func (s *Sessions) Invite(ctx context.Context, key *apikey.Key) (token string, err error) {
	token, id := newToken()
	return token, s.store.Invite(ctx, id, seal(key, inviteSealed+id), InviteTime)
}

// Invited returns the key of a token of Invite, for the first time. It fails with ErrNoSession.
func (s *Sessions) Invited(ctx context.Context, token string) (*apikey.Key, error) {
	id, ok := idOf(token)
	if !ok {
		return nil, ErrNoSession
	}
	found, err := s.store.Invited(ctx, id)
	if err != nil {
		return nil, err
	}
	if key := s.sealer(found, inviteSealed+id); key != nil {
		return key, nil
	}
	return nil, ErrNoSession
}

// Try takes one of the tries to sign in that the network of an address has. It returns 0, or how long
// to wait if none is left. A try that was right is given back: call right then.
//
// What is counted goes under a hash with the keys of the service, which Redis does not know: from it
// nobody learns the address.
func (s *Sessions) Try(ctx context.Context, address netip.Addr) (wait time.Duration, right func(), err error) {
	network := address.AsSlice()
	if address.Is6() { // whoever has one has all addresses of its network
		network = network[:8]
	}
	hash := sha256.New()
	for _, key := range s.keys.All() {
		hash.Write(key.Digest[:])
	}
	hash.Write(network)
	name := "sign-in/" + encode(hash.Sum(nil)) // no key has a slash in its name
	wait, err = s.store.TakeRequest(ctx, name, Tries, TriesPer)
	return wait, func() { _ = s.store.GiveBack(ctx, name, Tries, TriesPer) }, err // at worst it counts
}

// all returns the sessions that have not ended, the newest first, and the IDs of those that have.
func (s *Sessions) all(ctx context.Context, now time.Time) (all []Session, ended []string, err error) {
	texts, err := s.store.Sessions(ctx)
	for id, text := range texts {
		if session, ok := parse(id, text); ok && now.Before(session.Expires) {
			all = append(all, session)
		} else {
			ended = append(ended, id)
		}
	}
	slices.SortFunc(all, func(a, b Session) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	return all, ended, err
}

// keyOf returns the key of a session, or nil if it is not accepted now under that name.
func (s *Sessions) keyOf(session Session) *apikey.Key {
	if key := s.sealer(session.seal, session.sealed()); key != nil && key.Name == session.Name {
		return key
	}
	return nil
}

// sealed is what the key of a session seals: all of it.
func (s Session) sealed() string {
	return fmt.Sprintf("session %s %s %d %d %s", s.ID, s.Name, s.Created.UnixMilli(), s.Expires.UnixMilli(), s.Browser)
}

// inviteSealed is what the key of an invitation seals, before its ID.
const inviteSealed = "invite "

// sealer returns the key that sealed the text, or nil if none that is accepted now did.
func (s *Sessions) sealer(of, text string) *apikey.Key {
	keys := s.keys.All()
	for i := range slices.Backward(keys) {
		if hmac.Equal([]byte(seal(&keys[i], text)), []byte(of)) {
			return &keys[i]
		}
	}
	return nil
}

// seal returns a mark of the text that only those who have the digest of the key can make. Whoever can
// write to Redis makes no session with it, and whoever can read there learns no digest.
func seal(key *apikey.Key, text string) string {
	mac := hmac.New(sha256.New, key.Digest[:])
	mac.Write([]byte(text))
	return encode(mac.Sum(nil))
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// newToken returns a token of 32 random bytes, and its ID.
func newToken() (token, id string) {
	var random [32]byte
	rand.Read(random[:])
	token = encode(random[:])
	id, _ = idOf(token)
	return token, id
}

// idOf returns the ID of a token: its SHA-256 digest.
func idOf(token string) (id string, ok bool) {
	if len(token) != base64.RawURLEncoding.EncodedLen(32) {
		return "", false
	}
	digest := sha256.Sum256([]byte(token))
	return encode(digest[:]), true
}

// parse reads a session as Redis keeps it. There is none if the text is "", or no session.
func parse(id, text string) (Session, bool) {
	var k kept
	if err := json.Unmarshal([]byte(text), &k); err != nil {
		return Session{}, false
	}
	return Session{id, k.Name, time.UnixMilli(k.Created).UTC(), time.UnixMilli(k.Expires).UTC(), k.Browser, k.Seal}, true
}
