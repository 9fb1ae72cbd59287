// Package httpapi is the HTTP interface of a backend: the routes, one file for each verb, and the
// one function that turns errors into answers.
//
// It holds three decisions. Every answer that is not a success is a problem (RFC 9457): programs
// branch on its code, and people read its detail. No handler passes its request context to the
// store, because fasthttp ends that context before it drains. Nothing is logged for a request,
// since /metrics counts it.
package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/textproto"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fasthttp/router"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"snowlink/internal/apikey"
	"snowlink/internal/clicks"
	"snowlink/internal/dashboard"
	"snowlink/internal/deadline"
	"snowlink/internal/link"
	"snowlink/internal/shorten"
	"snowlink/internal/stats"
)

// Config is what New needs. Every field is required, but those about clicks and the dashboard.
type Config struct {
	Store     link.Store
	Shortener *shorten.Shortener
	// Ready returns what is missing to serve every route, in words for people. It returns nothing
	// when the backend is ready.
	Ready func(context.Context) (missing []string)
	// Degraded returns what the operator should attend to although every route is served, in words
	// for people, or "".
	Degraded func() string
	// BaseURL is what short URLs begin with: scheme and host, no slash at the end.
	BaseURL string
	// OwnHosts are the hosts that a target may not point to.
	OwnHosts link.Hosts
	Keys     *apikey.Keys
	// TakeRequest takes one of the n requests that the keys of a name may make in each period, over
	// the whole fleet. It returns 0, or how long to wait if none is left. It is not called for keys
	// without a rate.
	TakeRequest func(ctx context.Context, name string, n int, period time.Duration) (wait time.Duration, err error)
	// BulkMemory is how much memory bulks, imports, exports and long lists may take together, in
	// bytes. One bulk or import is always allowed.
	BulkMemory int64
	// Clicks takes note of visits. Nil takes none.
	Clicks Recorder
	// CountryHeader is the header in which a proxy says which country a visitor is in, or "".
	CountryHeader string
	// Stats answers questions about clicks, and Feed tells of them as they are added up. They are
	// nil if clicks are not counted.
	Stats stats.Store
	Feed  clicks.Feed
	// Country returns the country of a visitor, or "", by the value of the CountryHeader and the
	// address. Nil if clicks are not counted.
	Country func(header []byte, address netip.Addr) string
	// Service tells how the service is, for an operator. It ends when its context does.
	Service func(context.Context) Service
	// Sessions are who is signed in at the dashboard. Nil means that there is no dashboard.
	Sessions *dashboard.Sessions
	// RootURL is where / leads: a URL, or a path that begins with a slash. Nothing is there if it is "".
	RootURL string
	// Registry takes the collectors of the requests.
	Registry prometheus.Registerer
	Log      *slog.Logger
}

// API answers the requests of one backend. All methods may be called concurrently.
type API struct {
	Config
	ctx      context.Context // of the process; see the package comment
	metrics  *requestMetrics
	requests *deadline.Shared
	handler  fasthttp.RequestHandler
	drawing  drawingRoom
	slots    *slots
	live     *live
	draining atomic.Bool
	drained  chan struct{} // closed when draining begins

	countryHeader string           // as fasthttp spells it
	files         *dashboard.Files // nil without a dashboard
}

// New builds the API. Store operations of bulks, imports and exports run under ctx, which must
// outlive the last request. Those of all other requests end after RequestTime.
func New(ctx context.Context, c Config) *API {
	a := &API{
		Config: c, ctx: ctx, metrics: newRequestMetrics(c.Registry), requests: deadline.NewShared(RequestTime),
		drawing: newDrawingRoom(), slots: newSlots(c.BulkMemory, c.Registry), live: newLive(ctx, c.Feed),
		drained: make(chan struct{}), countryHeader: textproto.CanonicalMIMEHeaderKey(c.CountryHeader),
	}
	if a.Sessions != nil {
		a.files = dashboard.NewFiles()
	}
	router, named := a.routes()
	routed := router.Handler
	redirect, preview := a.observe(routeRedirect, a.redirect), a.observe(routePreview, a.preview)
	a.handler = func(ctx *fasthttp.RequestCtx) {
		if ctx.Request.IsBodyStream() && bodyLimit(ctx) == MaxBody && !a.readBody(ctx) {
			return
		}
		// The hot route takes a short cut. The router would make three allocations to find it, and
		// could not tell a preview from a redirect.
		path := ctx.Request.URI().PathOriginal()
		if !isSegment(path) || named[string(path)] || !ctx.IsGet() && !ctx.IsHead() {
			routed(ctx)
			return
		}
		defer a.recovered(ctx)
		if path[len(path)-1] == '+' {
			preview(ctx)
		} else {
			redirect(ctx)
		}
	}
	return a
}

// isSegment reports whether the path is a slash and one segment.
func isSegment(path []byte) bool {
	return len(path) > 1 && path[0] == '/' && bytes.IndexByte(path[1:], '/') < 0
}

// Drain makes /healthz answer 503 and every answer close its connection, so that clients and
// proxies go elsewhere before the listener closes. It ends live views.
func (a *API) Drain() {
	if !a.draining.Swap(true) {
		close(a.drained)
	}
}

// routes returns the router with every route of the contract, and the paths that are no codes, such
// as /ping. Each GET route answers HEAD too.
func (a *API) routes() (r *router.Router, named map[string]bool) {
	type path struct {
		method, path string
		route        route
		handler      fasthttp.RequestHandler
	}
	routes := []path{
		{"POST", "/generate_url", routeCreate, a.create},
		{"POST", "/links", routeCreate, a.create},
		{"GET", "/links", routeList, a.list},
		{"POST", "/links/bulk", routeBulk, a.streamed(routeBulk, apikey.ScopeCreate, bulkTime, a.bulk)},
		{"GET", "/links/export", routeExport, a.export},
		{"POST", "/links/import", routeImport, a.streamed(routeImport, apikey.ScopeManage, importTime, a.importLinks)},
		{"GET", "/links/{code}", routeRead, a.read},
		{"PATCH", "/links/{code}", routeChange, a.change},
		{"DELETE", "/links/{code}", routeDelete, a.delete},
		{"GET", "/links/{code}/clicks", routeClicks, a.linkClicks},
		{"DELETE", "/links/{code}/clicks", routeClicks, a.forgetClicks},
		{"GET", "/clicks", routeClicks, a.allClicks},
		{"GET", "/clicks/top", routeClicks, a.topLinks},
		{"GET", "/clicks/misses", routeClicks, a.misses},
		{"GET", "/clicks/live", routeLive, a.watchClicks},
		{"GET", "/key", routeKey, a.describeKey},
		{"GET", "/codes/{code}", routeCode, a.describeCode},
		{"GET", "/service", routeService, a.service},
		{"GET", "/service/you", routeService, a.describeYou},
		{"GET", "/ping", routePing, a.ping},
		{"GET", "/healthz", routeHealthz, a.healthz},
		{"GET", "/openapi.yaml", routeOpenAPI, a.openapi},
		{"GET", "/{code}/qr", routeQR, a.qr},
		{"GET", "/{code}", routeRedirect, a.redirect}, // and /{code}+, routePreview, a.preview: see New
	}
	if a.Sessions != nil {
		routes = append(routes, []path{
			{"GET", "/dashboard/{file:*}", routeDashboard, a.dashboardFile},
			{"POST", "/dashboard/session", routeSession, a.signIn},
			{"GET", "/dashboard/session", routeSession, a.whoIsSignedIn},
			{"DELETE", "/dashboard/session", routeSession, a.signOut},
			{"GET", "/dashboard/sessions", routeSession, a.listSessions},
			{"DELETE", "/dashboard/sessions/{id}", routeSession, a.endSession},
		}...)
	}
	if a.RootURL != "" {
		routes = append(routes, path{"GET", "/", routeRoot, a.root})
	}

	r = router.New()
	r.RedirectTrailingSlash = false
	r.RedirectFixedPath = false
	r.HandleOPTIONS = false
	r.HandleMethodNotAllowed = false // GET /{code} would match all of them: see below
	r.NotFound = a.observe(routeOther, a.notFound)
	r.PanicHandler = a.panicked
	named = make(map[string]bool)
	methods := make(map[string][]string) // by path
	for _, rt := range routes {
		taken := []string{rt.method}
		if rt.method == fasthttp.MethodGet {
			taken = append(taken, fasthttp.MethodHead)
		}
		for _, m := range taken {
			r.Handle(m, rt.path, a.observe(rt.route, rt.handler))
		}
		methods[rt.path] = append(methods[rt.path], taken...)
		named[rt.path] = true
	}
	if a.Sessions != nil {
		// The router does not take /dashboard beside /dashboard/{file:*}.
		named["/dashboard"] = true
		notFound, toDashboard := r.NotFound, a.observe(routeDashboard, a.toDashboard)
		r.NotFound = func(ctx *fasthttp.RequestCtx) {
			if string(ctx.Request.URI().PathOriginal()) == "/dashboard" && (ctx.IsGet() || ctx.IsHead()) {
				toDashboard(ctx)
			} else {
				notFound(ctx)
			}
		}
	}
	for path, taken := range methods {
		slices.Sort(taken)
		refuse := a.observe(routeOther, a.methodNotAllowed(path, strings.Join(taken, ", ")))
		// GET /generate_url would otherwise be looked up as a code.
		for _, m := range []string{fasthttp.MethodGet, fasthttp.MethodHead} {
			if !slices.Contains(taken, m) {
				r.Handle(m, path, refuse)
			}
		}
		r.ANY(path, refuse)
	}
	return r, named
}

// observe counts and times a handler. While the backend drains, it makes the answer close the
// connection.
func (a *API) observe(route route, handler fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		handler(ctx)
		if a.draining.Load() {
			ctx.SetConnectionClose()
		}
		if answer, ok := ctx.Response.BodyStream().(*streamedAnswer); ok {
			answer.route = route // it is counted when it ends
			return
		}
		a.metrics.answered(route, ctx.Response.StatusCode(), time.Since(ctx.Time()))
	}
}

func (a *API) notFound(ctx *fasthttp.RequestCtx) {
	writeProblem(ctx, problemNotFound, "There is nothing at this path.")
}

// methodNotAllowed answers a method that the path does not take. If {code}, without a trailing +,
// cannot be a code, the path does not exist: 404, not 405.
func (a *API) methodNotAllowed(path, allow string) fasthttp.RequestHandler {
	hasCode := strings.Contains(path, "{code}")
	return func(ctx *fasthttp.RequestCtx) {
		if hasCode && !link.CouldBeCode(strings.TrimSuffix(ctx.UserValue("code").(string), "+")) {
			a.notFound(ctx)
			return
		}
		ctx.Response.Header.Set(fasthttp.HeaderAllow, allow)
		writeProblem(ctx, problemMethodNotAllowed, "This path takes only "+allow+".")
	}
}

// recovered answers if a handler panicked that the router did not call.
func (a *API) recovered(ctx *fasthttp.RequestCtx) {
	if v := recover(); v != nil {
		a.panicked(ctx, v)
	}
}

func (a *API) panicked(ctx *fasthttp.RequestCtx, v any) {
	ctx.Response.Reset()
	a.fail(ctx, fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
	a.metrics.answered(routeOther, ctx.Response.StatusCode(), time.Since(ctx.Time()))
}

// fail answers with the problem that explain returns for err.
func (a *API) fail(ctx *fasthttp.RequestCtx, err error) {
	p, detail := a.explain(err)
	writeProblem(ctx, p, detail)
}

// explain is the one mapping from errors to problems. An error that it does not know is a fault of
// ours: it becomes a plain 500 and a line in the log.
func (a *API) explain(err error) (p problem, detail string) {
	var target *link.TargetError
	var code *link.CodeError
	var field *fieldError
	var body *bodyError
	switch {
	case errors.Is(err, errClicksOff):
		return problemClicksOff, "This service counts no clicks: its operator has set CLICKS=off."
	case errors.Is(err, errClicksAway): // before ErrUnavailable, which it may wrap
		return problemUnavailable, "The store of clicks does not answer. Try again."
	case errors.Is(err, link.ErrNotFound):
		return problemNotFound, "No link has this code. It was never made, or it was evicted."
	case errors.Is(err, dashboard.ErrNoSession):
		return problemNotFound, "There is no such session. It ended, or it never was."
	case errors.Is(err, errForeign):
		return problemForbidden, "Links of another key name take the scope admin."
	case errors.Is(err, link.ErrGone):
		return problemGone, "This link is gone: it expired, its visits are used up, or it was disabled or deleted."
	case errors.As(err, &target):
		return problemInvalidURL, target.Detail
	case errors.As(err, &code):
		return problemInvalidCode, code.Detail
	case errors.As(err, &body):
		return body.problem, body.detail
	case errors.As(err, &field):
		return problemInvalidField, field.detail
	case errors.Is(err, link.ErrCursor):
		return problemInvalidField, `The parameter "cursor" must be the "next" of an earlier answer.`
	case errors.Is(err, link.ErrEveryone):
		return problemInvalidField, `The parameter "owner" must be one name: without an archive, this service lists the links of one name at a time.`
	case errors.Is(err, shorten.ErrNoFreeCode): // before ErrExists, which it wraps
		a.Log.Error("every code minted for a link was taken: two processes share a node ID or a clock went back", "err", err)
		return problemUnavailable, "No free code was found. Try again."
	case errors.Is(err, shorten.ErrReplaced): // before ErrExists, which it wraps
		return problemCodeTaken, "The link that this Idempotency-Key made is gone, and another link has its code. To make a new one, send a new Idempotency-Key."
	case errors.Is(err, link.ErrExists):
		return problemCodeTaken, "Another link has this code, or had it within the last 30 days. Choose another code."
	case errors.Is(err, shorten.ErrOtherBody):
		return problemIdempotency, "This Idempotency-Key came with another body within the last 24 hours. Send a new key, or the same body."
	case errors.Is(err, errPrecondition), errors.Is(err, link.ErrChanged):
		return problemPrecondition, "The link has changed meanwhile. Read it again, then repeat the change."
	case errors.Is(err, link.ErrFull):
		return problemFull, "The link store is full and takes no new links. Existing links go on working."
	case errors.Is(err, link.ErrUnreadable): // which the store has logged
		return problemUnavailable, "The record of this link cannot be read. Trying again does not help until the operator has repaired it."
	case errors.Is(err, link.ErrArchive): // which is only asked before anything is written
		return problemUnavailable, "The archive of links does not answer, and what was asked for may be there. Try again."
	case errors.Is(err, context.DeadlineExceeded): // before ErrUnavailable, which wraps it
		return problemUnavailable, "The link store did not answer in time. What you asked for may have been done all the same. Try again."
	case errors.Is(err, link.ErrUnavailable):
		return problemUnavailable, "The link store does not answer. Try again."
	case errors.Is(err, errBehind):
		return problemUnavailable, "So many links were made or changed a moment ago that an export would not be whole. Try again."
	case errors.Is(err, errBusy):
		return problemUnavailable, "Too many QR codes are being drawn. Try again."
	case errors.Is(err, shorten.ErrNoNode):
		return problemUnavailable, "This backend holds no node ID and cannot make links now. Try again."
	default:
		a.Log.Error("request failed", "err", err)
		return problemInternal, "Something went wrong on our side."
	}
}
