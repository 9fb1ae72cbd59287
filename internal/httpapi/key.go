package httpapi

import (
	"errors"

	"github.com/valyala/fasthttp"

	"snowlink/internal/apikey"
	"snowlink/internal/link"
)

// describeKey answers GET /key with what the key of the request may do. Any key may ask.
func (a *API) describeKey(ctx *fasthttp.RequestCtx) {
	key, ok := a.authorize(ctx, a.deadline(ctx), 0)
	if !ok {
		return
	}
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	writeJSON(ctx, fasthttp.StatusOK, contentJSON, struct {
		Name   string   `json:"name"`
		Scopes []string `json:"scopes"`
	}{key.Name, key.Scopes.Names()})
}

// describeCode answers GET /codes/{code}: whether somebody may choose the code for a link now. Whoever
// makes links could find that out by making one.
func (a *API) describeCode(ctx *fasthttp.RequestCtx) {
	within := a.deadline(ctx)
	if _, ok := a.authorize(ctx, within, apikey.ScopeCreate); !ok {
		return
	}
	code, err := link.ParseCode(ctx.UserValue("code").(string))
	free := false
	if err == nil {
		_, err = a.Store.Read(within, code) // a deleted link is there for as long as its code is taken
		if free = errors.Is(err, link.ErrNotFound); free {
			err = nil
		}
	}
	if err != nil {
		a.fail(ctx, err)
		return
	}
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	writeJSON(ctx, fasthttp.StatusOK, contentJSON, struct {
		Code string `json:"code"`
		Free bool   `json:"free"`
	}{code, free})
}
