package httpapi

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"snowlink/internal/link"
)

// Names of headers in the form in which they are sent. To convert them for every answer took a
// quarter of a redirect's time in the handler.
var (
	headerLocation     = []byte(fasthttp.HeaderLocation)
	headerCacheControl = []byte(fasthttp.HeaderCacheControl)
)

const (
	// notCached makes browsers ask again, because the link may change or go, and lets no shared
	// cache answer for us.
	notCached = "private, max-age=0"

	// maxCached is how long browsers may keep a permanent redirect. Without a limit they would keep
	// it for good, and the link could never be changed for them.
	maxCached = time.Hour

	// maxForwarded is the length of the longest Location with a forwarded query, in bytes. Nginx
	// takes 8 KiB for all of an answer's header.
	maxForwarded = 4096
)

// redirect answers GET and HEAD /{code} with the stored target.
func (a *API) redirect(ctx *fasthttp.RequestCtx) {
	code := codeOf(ctx)
	if !link.CouldBeCode(code) { // the store need not be asked
		a.notFound(ctx)
		return
	}
	within := a.deadline(ctx)
	l, err := a.Store.Get(within, code)
	if err != nil {
		a.noRedirect(ctx, code, err)
		return
	}
	if l.Options != nil {
		a.redirectOptions(ctx, within, code, l)
		return
	}
	a.record(ctx, code, l)
	redirectTo(ctx, l.Target, fasthttp.StatusFound, notCached)
}

// redirectOptions is redirect for a link with options, some of which may close it.
func (a *API) redirectOptions(ctx *fasthttp.RequestCtx, within context.Context, code string, l link.Link) {
	if l.Gone(ctx.Time()) {
		a.fail(ctx, link.ErrGone)
		return
	}
	target, ok := forwarded(ctx, l)
	if ok && l.Limit() > 0 { // a visit that would be refused is not taken
		// No cache may answer for a link whose visits are counted. Ours only tells that they are.
		// This header keeps Nginx from it.
		ctx.Response.Header.Set("X-Accel-Expires", "0")
		var err error
		if l, err = a.visit(ctx, within, code); err != nil {
			a.noRedirect(ctx, code, err)
			return
		}
		if l.Options == nil { // it is plain by now
			l.Options = new(link.Options)
		}
		target, ok = forwarded(ctx, l)
	}
	if !ok {
		writeProblem(ctx, problemURITooLong, "With the query of this request the target would be longer than 4,096 bytes.")
		return
	}
	status := l.Status
	if status == 0 {
		status = fasthttp.StatusFound
	}
	a.record(ctx, code, l)
	redirectTo(ctx, target, status, cacheControl(l, ctx.Time()))
}

// visit takes a visit of the link and returns the link as it is now. HEAD takes none: programs that
// check links send it, not visitors.
func (a *API) visit(ctx *fasthttp.RequestCtx, within context.Context, code string) (l link.Link, err error) {
	if ctx.IsHead() {
		l, err = a.uncounted(within, code)
	} else {
		l, err = a.Store.Visit(within, code)
	}
	if err == nil && l.Gone(ctx.Time()) { // since the near cache read it
		err = link.ErrGone
	}
	return l, err
}

// uncounted reads a link whose visits are counted, without taking one.
func (a *API) uncounted(within context.Context, code string) (link.Link, error) {
	s, err := a.Store.Read(within, code)
	if err == nil && s.Limit() > 0 && s.VisitsLeft < 1 {
		err = link.ErrGone
	}
	return s.Link, err
}

// cacheControl says how long a browser may follow the link without asking.
func cacheControl(l link.Link, now time.Time) string {
	permanent := l.Status == fasthttp.StatusMovedPermanently || l.Status == fasthttp.StatusPermanentRedirect
	if !permanent || l.Limit() > 0 {
		return notCached
	}
	most := maxCached
	if !l.Expires.IsZero() {
		most = min(most, l.Expires.Sub(now))
	}
	return "private, max-age=" + strconv.Itoa(int(most/time.Second))
}

// redirectTo answers with the target as it stands. It does not use ctx.Redirect, which rewrites the
// target: it drops user info, collapses "//" and resolves "..".
func redirectTo(ctx *fasthttp.RequestCtx, target string, status int, cacheControl string) {
	ctx.Response.Header.SetCanonical(headerLocation, []byte(target))
	ctx.Response.Header.SetCanonical(headerCacheControl, []byte(cacheControl))
	ctx.SetStatusCode(status)
}

// forwarded returns where the link leads this request, and false if that is too long for a
// Location. The query of our own QR codes is not meant for the target.
func forwarded(ctx *fasthttp.RequestCtx, l link.Link) (target string, ok bool) {
	query := ctx.URI().QueryString()
	if !l.ForwardQuery || string(query) == qrQuery {
		return l.Target, true
	}
	target = withQuery(l.Target, query)
	return target, len(target) <= maxForwarded
}

// withQuery appends the query to the target's own, before its fragment. Characters that no URL has
// in its query are percent-encoded, as browsers do: a stranger wrote the query.
func withQuery(target string, query []byte) string {
	if len(query) == 0 {
		return target
	}
	target, fragment, hasFragment := strings.Cut(target, "#")
	b := make([]byte, 0, len(target)+len(query)+len(fragment)+2)
	b = append(b, target...)
	switch last := target[len(target)-1]; {
	case !strings.Contains(target, "?"):
		b = append(b, '?')
	case last != '?' && last != '&':
		b = append(b, '&')
	}
	const hex = "0123456789ABCDEF"
	for _, c := range query {
		// The URL standard's special-query percent-encode set, and the backslash, which no target
		// has.
		if c <= ' ' || c > '~' || strings.IndexByte("\"#<>'\\", c) >= 0 {
			b = append(b, '%', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	if hasFragment {
		b = append(b, '#')
		b = append(b, fragment...)
	}
	return string(b)
}

// codeOf returns the code in the path, which is all of it but the slash.
func codeOf(ctx *fasthttp.RequestCtx) string {
	return string(ctx.Request.URI().PathOriginal()[len("/"):])
}
