package httpapi

import (
	"github.com/valyala/fasthttp"

	"snowlink/snowflake"
)

// redirect answers GET and HEAD /{code} with the stored target.
func (a *API) redirect(ctx *fasthttp.RequestCtx) {
	code := codeOf(ctx)
	if !isCode(code) {
		a.notFound(ctx)
		return
	}
	l, err := a.Store.Get(a.ctx, code)
	if err != nil {
		a.fail(ctx, err)
		return
	}
	// Not ctx.Redirect, which rewrites the target: it would drop user info,
	// collapse "//" and resolve "..".
	ctx.Response.Header.Set(fasthttp.HeaderLocation, l.Target)
	// The link may change or go: a browser must ask again, and no shared cache
	// may answer for us.
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "private, max-age=0")
	ctx.SetStatusCode(fasthttp.StatusFound)
}

// codeOf is the code that the path names: all of it but the slash.
func codeOf(ctx *fasthttp.RequestCtx) string {
	return string(ctx.Request.URI().PathOriginal()[len("/"):])
}

// isCode reports whether code could have been minted. What could not be is
// answered before the store hears of it.
func isCode(code string) bool {
	_, err := snowflake.Decode(code)
	return err == nil
}
