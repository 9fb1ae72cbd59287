package httpapi

import (
	"context"
	"time"

	"github.com/valyala/fasthttp"
)

// RequestTime is how long a request may wait for the store in all, counted from when its body has
// arrived. Nginx waits for 2 s (proxy_read_timeout). If a request takes longer, Nginx answers 504
// although it may have been done, and counts the backend as failed.
const RequestTime = 1700 * time.Millisecond

// deadline returns the context for everything that a request asks of the store. A handler calls it
// once, when it begins. Bulks, imports and exports may take longer than other requests: they use it
// for their first step alone, and each later step has its own limit.
func (a *API) deadline(ctx *fasthttp.RequestCtx) context.Context {
	began := ctx.Time()
	if !ctx.IsGet() && !ctx.IsHead() { // its body may have arrived later
		began = time.Now()
	}
	return a.requests.From(began)
}
