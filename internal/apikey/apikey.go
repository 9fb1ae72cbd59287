// Package apikey says who may use the API: keys with a name, scopes and a rate. It knows nothing of
// HTTP and takes a secret, not a request.
//
// It holds one decision: only the SHA-256 digest of a secret is kept, in memory and in a file, and
// neither can be used as a key. A secret with enough entropy needs no slower hash.
package apikey

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"snowlink/internal/link"
)

// DefaultOwner is the name of the keys of API_KEY. A named key may have this name too. It then
// shares their list of links, and so can take their place.
const DefaultOwner = link.DefaultOwner

// Key is an API key: whose it is, what it may do and how often.
type Key struct {
	// Name is the owner of the links that the key makes. Keys of one name are one owner with one
	// rate.
	Name   string
	Digest [sha256.Size]byte // of the secret
	Scopes Scope
	Rate   Rate // zero for no limit
}

// Keys are the API keys that a backend accepts. All methods may be called concurrently.
type Keys struct {
	fixed   []Key
	current atomic.Pointer[[]Key] // never changed, only replaced
}

// NewKeys returns keys that accept the secrets, each with all scopes, no limit and the name
// DefaultOwner.
func NewKeys(secrets ...string) *Keys {
	k := new(Keys)
	for _, secret := range secrets {
		k.fixed = append(k.fixed, Key{Name: DefaultOwner, Digest: sha256.Sum256([]byte(secret)), Scopes: scopeAll})
	}
	k.SetNamed(nil)
	return k
}

// SetNamed sets the named keys that are accepted beside the secrets of NewKeys, in place of those
// of the last call. If a secret is among both, its named key wins. The caller must not change the
// keys afterwards.
func (k *Keys) SetNamed(named []Key) {
	all := slices.Concat(k.fixed, named)
	k.current.Store(&all)
}

// All returns the keys that are accepted now. Of two with one secret, the last wins. The caller must
// not change them.
func (k *Keys) All() []Key { return *k.current.Load() }

// Owners returns the names of the keys that are accepted now.
func (k *Keys) Owners() []string {
	keys := *k.current.Load()
	names := make([]string, len(keys))
	for i := range keys {
		names[i] = keys[i].Name
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Find returns the key with the secret. It takes the same time whichever key matches, or none. The
// caller must not change the key.
func (k *Keys) Find(secret []byte) (key *Key, ok bool) {
	if len(secret) == 0 { // an empty secret has a digest too
		return nil, false
	}
	digest := sha256.Sum256(secret)
	keys, found := *k.current.Load(), -1
	for i := range keys {
		found = subtle.ConstantTimeSelect(same(&digest, &keys[i].Digest), i, found)
	}
	if found < 0 {
		return nil, false
	}
	return &keys[found], true
}

// same returns 1 if the digests are equal and 0 if not, in the same time. It runs for each key at
// every create, and subtle.ConstantTimeCompare would go byte by byte.
func same(a, b *[sha256.Size]byte) int {
	var diff uint64
	for i := 0; i < len(a); i += 8 {
		diff |= binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:])
	}
	return int((diff|-diff)>>63) ^ 1 // the top bit of x or of -x is set unless x is 0
}

// Scope is what a key may do: one thing, or several joined by |.
type Scope uint8

// The scopes. To follow a link takes none.
const (
	ScopeCreate Scope = 1 << iota // make links
	ScopeManage                   // change and delete one's own links, and import links
	ScopeRead                     // look up, list and export one's own links
	ScopeAdmin                    // extends ScopeManage and ScopeRead to everyone's links

	scopeAll = ScopeCreate | ScopeManage | ScopeRead | ScopeAdmin
)

// scopeNames are in the order of the bits.
var scopeNames = []string{"create", "manage", "read", "admin"}

// Has reports whether s has every scope of other.
func (s Scope) Has(other Scope) bool { return s&other == other }

// String returns the scopes as they are written in a keys file: create,read.
func (s Scope) String() string {
	return strings.Join(s.Names(), ",")
}

// Names returns the names of the scopes. The list is never nil.
func (s Scope) Names() []string {
	names := []string{}
	for i, name := range scopeNames {
		if s&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// Rate is how many requests a key may make: N in every Per, and N at once after a rest. Per is a
// second, a minute or an hour. A bulk or an import counts as one request, however long it is: if
// each of its links counted, a key could never send more links at once than its rate.
type Rate struct {
	N   int
	Per time.Duration
}

// rateUnits are the units that a rate may have.
var rateUnits = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}

// String returns the rate as it is written in a keys file: 100/s.
func (r Rate) String() string {
	for unit, per := range rateUnits {
		if per == r.Per {
			return strconv.Itoa(r.N) + "/" + unit
		}
	}
	return ""
}
