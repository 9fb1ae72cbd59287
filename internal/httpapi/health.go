package httpapi

import (
	"strings"

	"github.com/valyala/fasthttp"
)

// ping answers GET /ping, which tells that the process is alive. It depends on nothing else.
func (a *API) ping(ctx *fasthttp.RequestCtx) {
	ctx.SetContentType("text/plain; charset=utf-8")
	ctx.SetBodyString("pong")
}

// healthz answers GET /healthz: whether the backend can serve every route.
func (a *API) healthz(ctx *fasthttp.RequestCtx) {
	if a.draining.Load() {
		writeProblem(ctx, problemUnavailable, "This backend is shutting down.")
		return
	}
	if missing := a.Ready(a.deadline(ctx)); len(missing) > 0 {
		writeProblem(ctx, problemUnavailable, "Not ready: "+strings.Join(missing, ", ")+".")
		return
	}
	health := struct {
		Status string `json:"status"`
		Detail string `json:"detail,omitempty"`
	}{Status: "ok"}
	if detail := a.Degraded(); detail != "" {
		health.Status, health.Detail = "degraded", detail
	}
	writeJSON(ctx, fasthttp.StatusOK, contentJSON, health)
}
