package httpapi

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"

	"github.com/valyala/fasthttp"
)

// Keys are the API keys a backend accepts, as SHA-256 digests: what is kept for
// the life of the process cannot be used as a key. A key with enough entropy to
// be one needs no slower hash.
type Keys [][sha256.Size]byte

// NewKeys digests keys.
func NewKeys(keys ...string) Keys {
	digests := make(Keys, len(keys))
	for i, key := range keys {
		digests[i] = sha256.Sum256([]byte(key))
	}
	return digests
}

// allow reports whether the request carries one of the keys. It takes the same
// time whichever key matches, or none.
func (k Keys) allow(ctx *fasthttp.RequestCtx) bool {
	digest := sha256.Sum256(presentedKey(ctx))
	found := 0
	for i := range k {
		found |= subtle.ConstantTimeCompare(digest[:], k[i][:])
	}
	return found == 1
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
