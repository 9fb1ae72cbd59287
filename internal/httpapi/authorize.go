package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"snowlink/internal/apikey"
	"snowlink/internal/link"
)

// authorize returns the key of the request if it has the scope s and its rate allows the request.
// If not, it has answered with the problem. It waits for the store no longer than within.
func (a *API) authorize(ctx *fasthttp.RequestCtx, within context.Context, s apikey.Scope) (key *apikey.Key, ok bool) {
	if secret := presentedKey(ctx); len(secret) > 0 || !a.hasSession(ctx) {
		if key, ok = a.Keys.Find(secret); !ok {
			unauthorized(ctx, "No known API key was sent. Send one as API-Key: KEY, X-API-Key: KEY or Authorization: Bearer KEY.")
			return nil, false
		}
	} else if _, key, ok = a.signedIn(ctx, within); !ok {
		return nil, false
	}
	if missing := s &^ key.Scopes; missing != 0 {
		writeProblem(ctx, problemForbidden, fmt.Sprintf("This key may not do this: it lacks the scope %s.", missing))
		return nil, false
	}
	if key.Rate == (apikey.Rate{}) {
		return key, true
	}
	wait, err := a.TakeRequest(within, key.Name, key.Rate.N, key.Rate.Per)
	if err != nil {
		a.fail(ctx, err)
		return nil, false
	}
	if wait > 0 {
		tooMany(ctx, wait, fmt.Sprintf("The rate of this key is %s, counted over all backends.", key.Rate))
		return nil, false
	}
	return key, true
}

// unauthorized answers a request without a key.
func unauthorized(ctx *fasthttp.RequestCtx, detail string) {
	ctx.Response.Header.Set(fasthttp.HeaderWWWAuthenticate, "Bearer")
	writeProblem(ctx, problemUnauthorized, detail)
}

// tooMany answers a request that has to wait for the next one that is allowed.
func tooMany(ctx *fasthttp.RequestCtx, wait time.Duration, detail string) {
	ctx.Response.Header.Set(fasthttp.HeaderRetryAfter, strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	writeProblem(ctx, problemRateLimited, detail+" Wait for as many seconds as Retry-After says.")
}

// errForeign reports that the link belongs to others, and the key of the request is none of an
// administrator.
var errForeign = errors.New("the link belongs to others")

// owns returns errForeign if the key may not read or manage the link.
func owns(key *apikey.Key, l link.Link) error {
	if l.OwnerName() != key.Name && !key.Scopes.Has(apikey.ScopeAdmin) {
		return errForeign
	}
	return nil
}

// ownerToList returns whose links the request asks for, as [link.Query] has it. The parameter is ""
// for those of the key itself.
func ownerToList(key *apikey.Key, parameter string) (owner string, err error) {
	if parameter == "" || parameter == key.Name {
		return key.Name, nil
	}
	if !key.Scopes.Has(apikey.ScopeAdmin) {
		return "", errForeign
	}
	if parameter == everyone {
		return "", nil
	}
	return parameter, nil
}

// presentedKey returns the key of the request from one of three headers, which all mean the same.
// The bytes belong to the request.
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
