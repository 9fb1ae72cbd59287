package httpapi

import (
	"errors"

	"github.com/valyala/fasthttp"

	"snowlink/internal/apikey"
	"snowlink/internal/link"
)

// delete answers DELETE /links/{code}. A second delete gets the same answer as the first. For the
// time of link.Grace, the store remembers that there was a link, whose it was and which create
// made it. It forgets the target at once.
func (a *API) delete(ctx *fasthttp.RequestCtx) {
	within := a.deadline(ctx)
	key, ok := a.authorize(ctx, within, apikey.ScopeManage)
	if !ok {
		return
	}
	code := managedCode(ctx)
	_, err := a.update(ctx, within, key, code, func(l link.Link) (link.Link, error) {
		deleted := link.Options{Deleted: true}
		if l.Options != nil {
			deleted.Created, deleted.Nonce = l.Created, l.Nonce
		}
		return link.Link{Options: &deleted}, nil
	})
	if err != nil && !errors.Is(err, link.ErrGone) {
		a.fail(ctx, err)
		return
	}
	ctx.SetStatusCode(fasthttp.StatusNoContent)
}
