package httpapi

import (
	"context"
	"strconv"

	"github.com/valyala/fasthttp"

	"snowlink/internal/apikey"
	"snowlink/internal/link"
)

// linksPath is the start of the paths at which links are managed.
const linksPath = "/links/"

// read answers GET /links/{code} with the link as it is now, even if it is expired or disabled, and
// with its version as the ETag.
func (a *API) read(ctx *fasthttp.RequestCtx) {
	within := a.deadline(ctx)
	key, ok := a.authorize(ctx, within, apikey.ScopeRead)
	if !ok {
		return
	}
	code := managedCode(ctx)
	s, err := a.readManaged(within, key, code)
	if err != nil {
		a.fail(ctx, err)
		return
	}
	a.writeState(ctx, code, s)
}

// managedCode returns the code in a path below linksPath.
func managedCode(ctx *fasthttp.RequestCtx) string {
	return string(ctx.Request.URI().PathOriginal()[len(linksPath):])
}

// readOwned reads the link for the key from the store itself, past every cache. A link of others is
// errForeign. The link may be deleted.
func (a *API) readOwned(within context.Context, key *apikey.Key, code string) (link.State, error) {
	if !link.CouldBeCode(code) {
		return link.State{}, link.ErrNotFound
	}
	s, err := a.Store.Read(within, code)
	if err == nil {
		err = owns(key, s.Link)
	}
	return s, err
}

// readManaged is readOwned, to which a deleted link is link.ErrGone.
func (a *API) readManaged(within context.Context, key *apikey.Key, code string) (link.State, error) {
	s, err := a.readOwned(within, key, code)
	if err == nil && s.Options != nil && s.Deleted {
		err = link.ErrGone
	}
	return s, err
}

// writeState answers with a link as it stands in the store.
func (a *API) writeState(ctx *fasthttp.RequestCtx, code string, s link.State) {
	b := appendLink(nil, a.BaseURL+"/"+code, code, s.Link, createdAt(code, s.Link))
	if s.Limit() > 0 {
		b = append(b, `,"visits_left":`...)
		b = strconv.AppendInt(b, s.VisitsLeft, 10)
	}
	ctx.Response.Header.Set(fasthttp.HeaderETag, etag(s))
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	ctx.SetContentType(contentJSON)
	ctx.SetBody(append(b, '}'))
}
