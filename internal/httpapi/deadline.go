package httpapi

import (
	"context"
	"time"

	"github.com/valyala/fasthttp"
)

// RequestTime is how long a request may wait for the store, whatever it asks of it in
// turn, once its body has come. Nginx waits for 2 s (proxy_read_timeout): a request that
// takes longer is answered 504 there although it may be done, and its backend counts as
// one that failed.
const RequestTime = 1700 * time.Millisecond

// deadline is the context of all that a request asks of the store. A handler asks for it
// once, when it begins. A bulk, an import and an export need it for their first step
// alone: they take longer than a request may, and each step after it has its own limit.
func (a *API) deadline(ctx *fasthttp.RequestCtx) context.Context {
	began := ctx.Time()
	if !ctx.IsGet() && !ctx.IsHead() { // its body may have come after that
		began = time.Now()
	}
	return a.requests.From(began)
}
