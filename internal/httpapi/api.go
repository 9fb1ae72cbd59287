// Package httpapi is the HTTP surface of a backend: the routes, a file a verb,
// and the one place where errors become answers.
//
// Its decisions: every answer that is not a success is an RFC 9457 problem, so
// that programs branch on its code and people read its detail; no handler hands
// its request context to the store, because fasthttp ends that one before it
// drains; and nothing is logged for a request, since /metrics counts it.
package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fasthttp/router"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"snowlink/internal/apikey"
	"snowlink/internal/deadline"
	"snowlink/internal/link"
	"snowlink/internal/shorten"
)

// Config is what an API is made of. Every field is required.
type Config struct {
	Store     link.Store
	Shortener *shorten.Shortener
	// Ready reports what is missing to serve every route, in words for people;
	// nothing means ready.
	Ready func(context.Context) (missing []string)
	// Degraded reports what the operator should see to while every route is
	// served, in words for people; "" means nothing.
	Degraded func() string
	// BaseURL is what short URLs begin with: scheme and host, no slash at the end.
	BaseURL string
	// OwnHosts are the hosts that a target may not point to.
	OwnHosts link.Hosts
	Keys     *apikey.Keys
	// TakeRequest takes one of the n requests that the keys named name may make in every
	// per, over the whole fleet. It returns how long to wait where none is left, and
	// 0 otherwise. Keys without a rate never come here.
	TakeRequest func(ctx context.Context, name string, n int, per time.Duration) (wait time.Duration, err error)
	// BulkMemory is what all bulks and imports together may take of memory, in bytes. There
	// is room for one of them whatever it says.
	BulkMemory int64
	// Registry takes the collectors of the requests.
	Registry prometheus.Registerer
	Log      *slog.Logger
}

// API answers the requests of one backend. All methods may be called
// concurrently.
type API struct {
	Config
	ctx      context.Context // the process's: see the package comment
	metrics  *requestMetrics
	requests *deadline.Shared
	handler  fasthttp.RequestHandler
	drawing  drawingRoom
	slots    *slots
	draining atomic.Bool
}

// New builds the API. Store operations of bulks, imports and exports run under ctx,
// which must outlive the last request; those of the others have RequestTime.
func New(ctx context.Context, c Config) *API {
	a := &API{
		Config: c, ctx: ctx, metrics: newRequestMetrics(c.Registry), requests: deadline.NewShared(RequestTime),
		drawing: newDrawingRoom(), slots: newSlots(c.BulkMemory, c.Registry),
	}
	router, named := a.routes()
	routed := router.Handler
	redirect, preview := a.observe(routeRedirect, a.redirect), a.observe(routePreview, a.preview)
	a.handler = func(ctx *fasthttp.RequestCtx) {
		if ctx.Request.IsBodyStream() && bodyLimit(ctx) == MaxBody && !a.readBody(ctx) {
			return
		}
		// The hot route takes a short cut: the router would make three
		// allocations to find it. Nor could it tell a preview from it.
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

// Drain makes /healthz answer 503 and every answer close its connection, so
// that whoever is in front goes elsewhere before the listener closes.
func (a *API) Drain() { a.draining.Store(true) }

// routes is the whole contract, with the paths that name no code beside it. GET
// routes answer HEAD too.
func (a *API) routes() (r *router.Router, named map[string]bool) {
	routes := []struct {
		method, path string
		route        route
		handler      fasthttp.RequestHandler
	}{
		{"POST", "/generate_url", routeCreate, a.create},
		{"POST", "/links", routeCreate, a.create},
		{"GET", "/links", routeList, a.list},
		{"POST", "/links/bulk", routeBulk, a.streamed(routeBulk, apikey.ScopeCreate, bulkTime, a.bulk)},
		{"GET", "/links/export", routeExport, a.export},
		{"POST", "/links/import", routeImport, a.streamed(routeImport, apikey.ScopeManage, importTime, a.importLinks)},
		{"GET", "/links/{code}", routeRead, a.read},
		{"PATCH", "/links/{code}", routeChange, a.change},
		{"DELETE", "/links/{code}", routeDelete, a.delete},
		{"GET", "/ping", routePing, a.ping},
		{"GET", "/healthz", routeHealthz, a.healthz},
		{"GET", "/openapi.yaml", routeOpenAPI, a.openapi},
		{"GET", "/{code}/qr", routeQR, a.qr},
		{"GET", "/{code}", routeRedirect, a.redirect}, // and /{code}+, routePreview, a.preview: see New
	}

	r = router.New()
	r.RedirectTrailingSlash = false
	r.RedirectFixedPath = false
	r.HandleOPTIONS = false
	r.HandleMethodNotAllowed = false // /{code} matches every path of GET: see below
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

// observe counts and times a handler, and lets a draining backend go.
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

// methodNotAllowed answers for a path of the contract with a method that is not. A
// path whose code, or what is before the plus sign, cannot be one is none.
func (a *API) methodNotAllowed(path, allow string) fasthttp.RequestHandler {
	hasCode := strings.Contains(path, "{code}")
	return func(ctx *fasthttp.RequestCtx) {
		if hasCode && !link.CouldBeCode(strings.TrimSuffix(ctx.UserValue("code").(string), "+")) {
			a.notFound(ctx)
			return
		}
		ctx.Response.Header.Set(fasthttp.HeaderAllow, allow)
		writeProblem(ctx, problemMethodNotAllowed, "This path takes "+allow+".")
	}
}

// recovered answers for a handler that panicked, where the router does not.
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

// fail answers with what explain makes of err.
func (a *API) fail(ctx *fasthttp.RequestCtx, err error) {
	p, detail := a.explain(err)
	writeProblem(ctx, p, detail)
}

// explain is the one mapping from errors to problems. What it does not know is a
// fault of ours: a plain 500, and a log line.
func (a *API) explain(err error) (p problem, detail string) {
	var target *link.TargetError
	var code *link.CodeError
	var field *fieldError
	var body *bodyError
	switch {
	case errors.Is(err, link.ErrNotFound):
		return problemNotFound, "No link has this code. It was never made, or it was evicted."
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
		return problemInvalidField, `The parameter "cursor" must be the "next" of another list.`
	case errors.Is(err, shorten.ErrNoFreeCode): // before ErrExists, which it wraps
		a.Log.Error("every code minted for a link was taken: two processes share a node ID or a clock went back", "err", err)
		return problemUnavailable, "No free code was found. Try again."
	case errors.Is(err, link.ErrExists):
		return problemCodeTaken, "The code stands for another link, or did until lately. Choose another."
	case errors.Is(err, shorten.ErrOtherBody):
		return problemIdempotency, "This Idempotency-Key came with another body within the last 24 hours. Send a new key, or the same body."
	case errors.Is(err, errPrecondition), errors.Is(err, link.ErrChanged):
		return problemPrecondition, "The link was changed meanwhile. Read it again, and change what it is now."
	case errors.Is(err, link.ErrFull):
		return problemFull, "The link store is full and takes no new links. Those it has go on working."
	case errors.Is(err, link.ErrUnreadable): // which the store has logged
		return problemUnavailable, "This link cannot be read. Someone has to mend it: to try again soon does not help."
	case errors.Is(err, context.DeadlineExceeded): // before ErrUnavailable, which wraps it
		return problemUnavailable, "The link store did not answer in time. Try again; what was to be made or changed may have been all the same."
	case errors.Is(err, link.ErrUnavailable):
		return problemUnavailable, "The link store does not answer. Try again."
	case errors.Is(err, errBusy):
		return problemUnavailable, "Too many QR codes are asked for at once. Try again."
	case errors.Is(err, shorten.ErrNoNode):
		return problemUnavailable, "This backend holds no node ID and cannot make links now. Try again."
	default:
		a.Log.Error("request failed", "err", err)
		return problemInternal, "Something went wrong on our side."
	}
}
