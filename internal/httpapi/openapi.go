package httpapi

import (
	_ "embed"

	"github.com/valyala/fasthttp"
)

// openAPI is the contract of all routes. It is kept beside their handlers so that both change
// together. The tests check every request and answer against it.
//
//go:embed openapi.yaml
var openAPI []byte

// openapi answers GET /openapi.yaml.
func (a *API) openapi(ctx *fasthttp.RequestCtx) {
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "public, max-age=3600")
	ctx.SetContentType("application/yaml") // RFC 9512
	ctx.Response.SetBodyRaw(openAPI)
}
