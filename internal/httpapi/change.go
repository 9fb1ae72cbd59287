package httpapi

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"snowlink/internal/apikey"
	"snowlink/internal/link"
)

// changeTries is how often a change is tried in all while others keep changing the link. With an
// If-Match it is tried once.
const changeTries = 3

// errPrecondition reports that the If-Match of a request names another version of the link.
var errPrecondition = errors.New("If-Match names another version")

// changeRequest is the body of a change, a JSON merge patch (RFC 7396): a field that is absent
// stays as it is, and null removes it.
type changeRequest struct {
	fields
	Disabled field[bool] `json:"disabled"`
}

// change answers PATCH /links/{code} with the link as it is afterwards.
func (a *API) change(ctx *fasthttp.RequestCtx) {
	within := a.deadline(ctx)
	key, ok := a.authorize(ctx, within, apikey.ScopeManage)
	if !ok {
		return
	}
	var request changeRequest
	if err := decodeBody(ctx.PostBody(), &request); err != nil {
		a.fail(ctx, err)
		return
	}
	code := managedCode(ctx)
	s, err := a.update(ctx, within, key, code, func(l link.Link) (link.Link, error) {
		return request.changed(l, a.OwnHosts, ctx.Time())
	})
	if err != nil {
		a.fail(ctx, err)
		return
	}
	a.writeState(ctx, code, s)
}

// changed returns l with the changes that the request asks for, as of now.
func (r *changeRequest) changed(l link.Link, own link.Hosts, now time.Time) (link.Link, error) {
	if r.URL.set || r.LongURL.set {
		target, err := r.target(own)
		if err != nil {
			return link.Link{}, err
		}
		l.Target = target
	}
	var options link.Options
	if l.Options != nil {
		options = *l.Options
	}
	if err := r.apply(&options, now); err != nil {
		return link.Link{}, err
	}
	if r.Disabled.set {
		options.Disabled = r.Disabled.value
	}
	l.Options = orNil(options)
	return l, nil
}

// update replaces the link by what change makes of it, if the If-Match of the request holds, and
// returns its new state. Without an If-Match, it tries again if the link has changed meanwhile.
func (a *API) update(ctx *fasthttp.RequestCtx, within context.Context, key *apikey.Key, code string, change func(link.Link) (link.Link, error)) (link.State, error) {
	ifMatch := ctx.Request.Header.PeekAll(fasthttp.HeaderIfMatch)
	for try := 1; ; try++ {
		s, err := a.readManaged(within, key, code)
		if err != nil {
			return link.State{}, err
		}
		if len(ifMatch) > 0 && !matches(ifMatch, etag(s)) {
			return link.State{}, errPrecondition
		}
		l, err := change(s.Link)
		if err != nil {
			return link.State{}, err
		}
		s, err = a.Store.Update(within, code, s.Version, l)
		if !errors.Is(err, link.ErrChanged) || len(ifMatch) > 0 || try == changeTries {
			return s, err
		}
	}
}

func etag(s link.State) string { return `"` + s.Version + `"` }

// matches reports whether an If-Match allows the version of the ETag: it is "*", or has the ETag,
// as a strong one, in its list. No version contains a comma.
func matches(ifMatch [][]byte, etag string) bool {
	for _, line := range ifMatch {
		for tag := range strings.SplitSeq(string(line), ",") {
			if tag = strings.TrimSpace(tag); tag == etag || tag == "*" {
				return true
			}
		}
	}
	return false
}
