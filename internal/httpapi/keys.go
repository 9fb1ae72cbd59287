package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// DefaultOwner is the name of the keys of API_KEY. A named key may have it too, and
// then has one list with them: so it can take their place.
const DefaultOwner = "default"

// Key is an API key: who it is, what it may do and how often. Only the SHA-256
// digest of its secret is kept: what stays in memory or in a file for long cannot
// be used as a key. A secret with enough entropy to be one needs no slower hash.
type Key struct {
	// Name owns the links that the key makes. Keys of one name are one owner with
	// one rate.
	Name   string
	Digest [sha256.Size]byte
	Scopes Scope
	Rate   Rate // zero for no limit
}

// Keys are the API keys a backend accepts. They may be replaced while requests
// are served.
type Keys struct {
	fixed   []Key
	current atomic.Pointer[[]Key] // never changed, only replaced
}

// NewKeys accepts secrets, each with all scopes, no limit and the name
// DefaultOwner.
func NewKeys(secrets ...string) *Keys {
	k := new(Keys)
	for _, secret := range secrets {
		k.fixed = append(k.fixed, Key{Name: DefaultOwner, Digest: sha256.Sum256([]byte(secret)), Scopes: scopeAll})
	}
	k.SetNamed(nil)
	return k
}

// SetNamed accepts named beside the secrets of NewKeys, in place of those of the
// last call. Where a secret is among both, what named says holds. The keys are
// not to be changed afterwards.
func (k *Keys) SetNamed(named []Key) {
	all := slices.Concat(k.fixed, named)
	k.current.Store(&all)
}

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

// find returns the key that the request carries. It takes the same time whichever
// key matches, or none. The key is not to be changed.
func (k *Keys) find(ctx *fasthttp.RequestCtx) (key *Key, ok bool) {
	secret := presentedKey(ctx)
	if len(secret) == 0 { // which has a digest, too
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

// same is 1 where two digests are equal and 0 elsewhere, in the same time. Every
// create pays it for every key, and subtle.ConstantTimeCompare goes byte by byte.
func same(a, b *[sha256.Size]byte) int {
	var diff uint64
	for i := 0; i < len(a); i += 8 {
		diff |= binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:])
	}
	return int((diff|-diff)>>63) ^ 1 // the top bit of x or of -x is set unless x is 0
}

// authorize returns the name of the request's key if that may do s now. If not,
// it has answered with the problem.
func (a *API) authorize(ctx *fasthttp.RequestCtx, within context.Context, s Scope) (owner string, ok bool) {
	key, ok := a.Keys.find(ctx)
	if !ok {
		ctx.Response.Header.Set(fasthttp.HeaderWWWAuthenticate, "Bearer")
		writeProblem(ctx, problemUnauthorized,
			"This needs an API key, as API-Key: KEY, X-API-Key: KEY or Authorization: Bearer KEY; the one sent, if any, is not known.")
		return "", false
	}
	if missing := s &^ key.Scopes; missing != 0 {
		writeProblem(ctx, problemForbidden, fmt.Sprintf("This key may not do this: it lacks the scope %s.", missing))
		return "", false
	}
	if key.Rate == (Rate{}) {
		return key.Name, true
	}
	wait, err := a.Take(within, key.Name, key.Rate.N, key.Rate.Per)
	if err != nil {
		a.fail(ctx, err)
		return "", false
	}
	if wait > 0 {
		ctx.Response.Header.Set(fasthttp.HeaderRetryAfter, strconv.Itoa(int(math.Ceil(wait.Seconds()))))
		writeProblem(ctx, problemRateLimited, fmt.Sprintf("This key may make %s requests, counted over all backends.", key.Rate))
		return "", false
	}
	return key.Name, true
}

// presentedKey reads the three header forms, which all mean the same. The bytes
// belong to the request.
func presentedKey(ctx *fasthttp.RequestCtx) []byte {
	header := &ctx.Request.Header
	if key := header.Peek("Api-Key"); len(key) > 0 {
		return key
	}
	if key := header.Peek("X-Api-Key"); len(key) > 0 {
		return key
	}
	scheme, key, _ := bytes.Cut(header.Peek(fasthttp.HeaderAuthorization), []byte(" "))
	if !bytes.EqualFold(scheme, []byte("Bearer")) {
		return nil
	}
	return bytes.TrimSpace(key)
}

// Scope is what a key may do: one thing, or several, joined by |.
type Scope uint8

// The scopes. Following a link takes none.
const (
	ScopeCreate Scope = 1 << iota // make links
	ScopeManage                   // change, delete and import links, whoever made them
	ScopeRead                     // look up, list and export links

	scopeAll = ScopeCreate | ScopeManage | ScopeRead
)

// scopeNames are in the order of the bits.
var scopeNames = []string{"create", "manage", "read"}

// String names the scopes as a keys file does: create,read.
func (s Scope) String() string {
	var text []byte
	for i, name := range scopeNames {
		if s&(1<<i) != 0 {
			if text != nil {
				text = append(text, ',')
			}
			text = append(text, name...)
		}
	}
	return string(text)
}

// Rate is how many requests a key may make: N in every Per, and as many at once
// after a rest. Per is a second, a minute or an hour. A bulk and an import are one
// request each, however long: were each link of them counted, a key could send none
// of more links than its rate has.
type Rate struct {
	N   int
	Per time.Duration
}

// rateUnits are what a rate may be counted by.
var rateUnits = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}

// String writes the rate as a keys file does: 100/s.
func (r Rate) String() string {
	for unit, per := range rateUnits {
		if per == r.Per {
			return strconv.Itoa(r.N) + "/" + unit
		}
	}
	return ""
}
