package httpapi

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"snowlink/internal/apikey"
	"snowlink/internal/clicks"
	"snowlink/internal/dashboard"
)

const (
	dashboardPath = "/dashboard/"
	sessionCookie = "snowlink_session"

	// pageSecurity lets the page load what is its own, and nothing else.
	pageSecurity = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; " +
		"font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

// root answers GET /.
func (a *API) root(ctx *fasthttp.RequestCtx) {
	notAtTheEdge(ctx)
	redirectTo(ctx, a.RootURL, fasthttp.StatusFound, notCached)
}

// toDashboard answers GET /dashboard.
func (a *API) toDashboard(ctx *fasthttp.RequestCtx) {
	notAtTheEdge(ctx)
	redirectTo(ctx, dashboardPath, fasthttp.StatusFound, notCached)
}

// notAtTheEdge keeps Nginx's edge cache from answering for us: it would report a visit of a link.
func notAtTheEdge(ctx *fasthttp.RequestCtx) { ctx.Response.Header.Set("X-Accel-Expires", "0") }

// dashboardFile answers GET /dashboard/… with a file of the page.
func (a *API) dashboardFile(ctx *fasthttp.RequestCtx) {
	file, ok := a.files.Find(string(ctx.Request.URI().PathOriginal()[len(dashboardPath):]))
	if !ok {
		a.notFound(ctx)
		return
	}
	body := file.Body(string(ctx.Request.Header.Peek(fasthttp.HeaderAcceptEncoding)))
	header := &ctx.Response.Header
	header.Set(fasthttp.HeaderCacheControl, "no-cache") // the ETag makes asking cheap
	header.Set(fasthttp.HeaderETag, body.ETag)
	header.Set(fasthttp.HeaderVary, fasthttp.HeaderAcceptEncoding)
	header.Set(fasthttp.HeaderContentSecurityPolicy, pageSecurity)
	header.Set(fasthttp.HeaderXContentTypeOptions, "nosniff")
	header.Set(fasthttp.HeaderReferrerPolicy, "no-referrer")
	if hasETag(ctx.Request.Header.Peek(fasthttp.HeaderIfNoneMatch), body.ETag) {
		ctx.SetStatusCode(fasthttp.StatusNotModified)
		return
	}
	if body.Encoding != "" {
		header.SetContentEncoding(body.Encoding)
	}
	ctx.SetContentType(file.ContentType)
	ctx.Response.SetBodyRaw(body.Bytes)
}

// hasETag reports whether an If-None-Match names the ETag (RFC 9110, section 13.1.2).
func hasETag(ifNoneMatch []byte, etag string) bool {
	for tag := range bytes.SplitSeq(ifNoneMatch, []byte(",")) {
		if string(bytes.TrimPrefix(bytes.TrimSpace(tag), []byte("W/"))) == etag {
			return true
		}
	}
	return false
}

// sessionBody is a session as it is sent.
type sessionBody struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	Scopes  []string `json:"scopes,omitempty"`
	Created string   `json:"created_at"`
	Expires string   `json:"expires_at"`
	Browser string   `json:"browser,omitempty"`
	Current bool     `json:"current,omitzero"`
}

func bodyOf(s dashboard.Session) sessionBody {
	text := func(t time.Time) string { return strings.Trim(string(appendTime(nil, t)), `"`) }
	return sessionBody{ID: s.ID, Name: s.Name, Created: text(s.Created), Expires: text(s.Expires), Browser: s.Browser}
}

// writeSession answers with a session and what its key may do.
func writeSession(ctx *fasthttp.RequestCtx, status int, s dashboard.Session, key *apikey.Key) {
	body := bodyOf(s)
	body.Scopes = key.Scopes.Names()
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	writeJSON(ctx, status, contentJSON, body)
}

// signIn answers POST /dashboard/session: it turns an API key, or a token that was printed, into a
// session.
func (a *API) signIn(ctx *fasthttp.RequestCtx) {
	within := a.deadline(ctx)
	if a.foreign(ctx) { // or a page of others could sign somebody in as its author
		a.refuseForeign(ctx)
		return
	}
	var with struct {
		Key   field[string] `json:"key"`
		Token field[string] `json:"token"`
	}
	err := decodeBody(ctx.PostBody(), &with)
	if err == nil && with.Key.given() == with.Token.given() {
		err = fieldErrorf(`Send the field "key" with an API key, or "token" with a token that was printed.`)
	}
	if err != nil {
		a.fail(ctx, err)
		return
	}
	wait, right, err := a.Sessions.Try(within, addressOf(ctx))
	if err != nil {
		a.fail(ctx, err)
		return
	}
	if wait > 0 {
		tooMany(ctx, wait, "There were too many wrong keys from this network.")
		return
	}
	var key *apikey.Key
	if with.Token.given() {
		key, err = a.Sessions.Invited(within, with.Token.value)
		if errors.Is(err, dashboard.ErrNoSession) {
			unauthorized(ctx, "This link has signed somebody in already, or it is too old. Sign in with an API key.")
			return
		}
	} else {
		var ok bool
		if key, ok = a.Keys.Find([]byte(with.Key.value)); !ok {
			unauthorized(ctx, "This service has no such API key. Check that you copied all of it.")
			return
		}
	}
	var token string
	var session dashboard.Session
	if err == nil {
		right()
		token, session, err = a.Sessions.Start(within, key, browserOf(ctx), ctx.Time())
	}
	if err != nil {
		a.fail(ctx, err)
		return
	}
	a.setCookie(ctx, token, dashboard.SessionTime)
	writeSession(ctx, fasthttp.StatusCreated, session, key)
}

// browserOf names the browser of the request, such as "Firefox on Linux", as far as it is known.
func browserOf(ctx *fasthttp.RequestCtx) string {
	browser, system := clicks.BrowserOf(string(ctx.UserAgent()))
	if browser == "" || system == "" {
		return browser + system
	}
	return browser + " on " + system
}

// setCookie sets the cookie of a session for so long, or deletes it if that is 0.
func (a *API) setCookie(ctx *fasthttp.RequestCtx, token string, age time.Duration) {
	cookie := fasthttp.AcquireCookie()
	defer fasthttp.ReleaseCookie(cookie)
	cookie.SetKey(sessionCookie)
	cookie.SetValue(token)
	cookie.SetPath("/")
	cookie.SetHTTPOnly(true)
	cookie.SetSameSite(fasthttp.CookieSameSiteStrictMode)
	cookie.SetSecure(strings.HasPrefix(a.BaseURL, "https://"))
	if cookie.SetMaxAge(int(age.Seconds())); age == 0 {
		cookie.SetExpire(fasthttp.CookieExpireDelete)
	}
	ctx.Response.Header.SetCookie(cookie)
}

// whoIsSignedIn answers GET /dashboard/session.
func (a *API) whoIsSignedIn(ctx *fasthttp.RequestCtx) {
	if session, key, ok := a.signedIn(ctx, a.deadline(ctx)); ok {
		writeSession(ctx, fasthttp.StatusOK, session, key)
	}
}

// signOut answers DELETE /dashboard/session. It is done if nobody is signed in, too.
func (a *API) signOut(ctx *fasthttp.RequestCtx) {
	within := a.deadline(ctx)
	if !a.ours(ctx) {
		a.refuseForeign(ctx)
		return
	}
	session, _, err := a.Sessions.Find(within, string(ctx.Request.Header.Cookie(sessionCookie)), ctx.Time())
	if err == nil {
		err = a.Sessions.End(within, session.ID, "")
	}
	if err != nil && !errors.Is(err, dashboard.ErrNoSession) {
		a.fail(ctx, err)
		return
	}
	a.setCookie(ctx, "", 0)
	ctx.SetStatusCode(fasthttp.StatusNoContent)
}

// listSessions answers GET /dashboard/sessions with those of the key's own name, or with all if it may
// do everything.
func (a *API) listSessions(ctx *fasthttp.RequestCtx) {
	within := a.deadline(ctx)
	key, ok := a.authorize(ctx, within, 0)
	if !ok {
		return
	}
	sessions, err := a.Sessions.List(within, whose(key), ctx.Time())
	if err != nil {
		a.fail(ctx, err)
		return
	}
	current, _, _ := a.Sessions.Find(within, string(ctx.Request.Header.Cookie(sessionCookie)), ctx.Time())
	bodies := make([]sessionBody, len(sessions))
	for i, s := range sessions {
		bodies[i] = bodyOf(s)
		bodies[i].Current = s.ID == current.ID
	}
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	writeJSON(ctx, fasthttp.StatusOK, contentJSON, struct {
		Sessions []sessionBody `json:"sessions"`
	}{bodies})
}

// endSession answers DELETE /dashboard/sessions/{id}.
func (a *API) endSession(ctx *fasthttp.RequestCtx) {
	within := a.deadline(ctx)
	key, ok := a.authorize(ctx, within, 0)
	if !ok {
		return
	}
	if err := a.Sessions.End(within, ctx.UserValue("id").(string), whose(key)); err != nil {
		a.fail(ctx, err)
		return
	}
	ctx.SetStatusCode(fasthttp.StatusNoContent)
}

// whose returns the name of the sessions that the key may see and end, or "" for all.
func whose(key *apikey.Key) string {
	if key.Scopes.Has(apikey.ScopeAdmin) {
		return ""
	}
	return key.Name
}

// hasSession reports whether the request has the cookie of a session, be it valid or not.
func (a *API) hasSession(ctx *fasthttp.RequestCtx) bool {
	return a.Sessions != nil && len(ctx.Request.Header.Cookie(sessionCookie)) > 0
}

// signedIn returns the session of the request, and its key. If there is none, or a page of others sent
// the request, it has answered with the problem.
func (a *API) signedIn(ctx *fasthttp.RequestCtx, within context.Context) (session dashboard.Session, key *apikey.Key, ok bool) {
	if !ctx.IsGet() && !ctx.IsHead() && !a.ours(ctx) {
		a.refuseForeign(ctx)
		return session, nil, false
	}
	session, key, err := a.Sessions.Find(within, string(ctx.Request.Header.Cookie(sessionCookie)), ctx.Time())
	switch {
	case errors.Is(err, dashboard.ErrNoSession):
		unauthorized(ctx, "Nobody is signed in: the session ended, or was revoked, or its key changed. Sign in again.")
	case err != nil:
		a.fail(ctx, err)
	}
	return session, key, err == nil
}

// ours reports whether a page of our own sent the request, as the browser says. SameSite alone does not
// tell: another port of the same host is the same site.
func (a *API) ours(ctx *fasthttp.RequestCtx) bool {
	header := &ctx.Request.Header
	if site := header.Peek("Sec-Fetch-Site"); len(site) > 0 {
		return string(site) == "same-origin"
	}
	origin := strings.ToLower(string(header.Peek(fasthttp.HeaderOrigin)))
	_, host, ok := strings.Cut(origin, "://")
	if !ok { // also "null"
		return false
	}
	hosts := []string{string(header.Host()), string(header.Peek(fasthttp.HeaderXForwardedHost))}
	return origin == a.BaseURL || slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

// foreign reports whether a page of others sent the request, as the browser says. A program says
// nothing.
func (a *API) foreign(ctx *fasthttp.RequestCtx) bool {
	header := &ctx.Request.Header
	return len(header.Peek(fasthttp.HeaderOrigin))+len(header.Peek("Sec-Fetch-Site")) > 0 && !a.ours(ctx)
}

func (a *API) refuseForeign(ctx *fasthttp.RequestCtx) {
	writeProblem(ctx, problemForeignOrigin, "A session is only for pages of this service: send its Origin, or an API key.")
}
