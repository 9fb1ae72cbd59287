package httpapi

import (
	"github.com/go-json-experiment/json"
	"github.com/valyala/fasthttp"
)

const (
	contentJSON    = "application/json"
	contentProblem = "application/problem+json"

	// retryAfter is the Retry-After of a 503, in seconds. Redis or the node ID may be back at any
	// moment: this only keeps clients from trying again in a tight loop.
	retryAfter = "1"
)

// problem is a kind of failure: a status and the stable word that programs branch on. The words are
// part of the contract.
type problem struct {
	status int
	code   string
}

var (
	problemInvalidRequest   = problem{fasthttp.StatusBadRequest, "invalid_request"}
	problemInvalidJSON      = problem{fasthttp.StatusBadRequest, "invalid_json"}
	problemInvalidURL       = problem{fasthttp.StatusBadRequest, "invalid_url"}
	problemInvalidCode      = problem{fasthttp.StatusBadRequest, "invalid_code"}
	problemInvalidField     = problem{fasthttp.StatusBadRequest, "invalid_field"}
	problemUnauthorized     = problem{fasthttp.StatusUnauthorized, "unauthorized"}
	problemForbidden        = problem{fasthttp.StatusForbidden, "forbidden"}
	problemForeignOrigin    = problem{fasthttp.StatusForbidden, "foreign_origin"}
	problemNotFound         = problem{fasthttp.StatusNotFound, "not_found"}
	problemClicksOff        = problem{fasthttp.StatusNotFound, "clicks_off"}
	problemMethodNotAllowed = problem{fasthttp.StatusMethodNotAllowed, "method_not_allowed"}
	problemCodeTaken        = problem{fasthttp.StatusConflict, "code_taken"}
	problemGone             = problem{fasthttp.StatusGone, "gone"}
	problemPrecondition     = problem{fasthttp.StatusPreconditionFailed, "precondition_failed"}
	problemIdempotency      = problem{fasthttp.StatusUnprocessableEntity, "idempotency_mismatch"}
	problemTimeout          = problem{fasthttp.StatusRequestTimeout, "timeout"}
	problemBodyTooLarge     = problem{fasthttp.StatusRequestEntityTooLarge, "too_large"}
	problemURITooLong       = problem{fasthttp.StatusRequestURITooLong, "too_large"}
	problemHeadersTooLarge  = problem{fasthttp.StatusRequestHeaderFieldsTooLarge, "too_large"}
	problemRateLimited      = problem{fasthttp.StatusTooManyRequests, "rate_limited"}
	problemInternal         = problem{fasthttp.StatusInternalServerError, "internal"}
	problemFull             = problem{fasthttp.StatusInsufficientStorage, "storage_full"}
	problemUnavailable      = problem{fasthttp.StatusServiceUnavailable, "unavailable"}
)

// writeProblem answers with a problem (RFC 9457). The detail is one or two sentences for whoever
// made the request: what is wrong, and what would be right.
func writeProblem(ctx *fasthttp.RequestCtx, p problem, detail string) {
	if p.status == fasthttp.StatusServiceUnavailable {
		ctx.Response.Header.Set(fasthttp.HeaderRetryAfter, retryAfter)
	}
	// No cache may keep the answer: a free code may be taken, and most links that are gone may come
	// back.
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	writeJSON(ctx, p.status, contentProblem, p.body(detail))
}

// problemBody is a problem as it is sent.
type problemBody struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
}

func (p problem) body(detail string) problemBody {
	return problemBody{"about:blank", fasthttp.StatusMessage(p.status), p.status, detail, p.code}
}

// writeJSON answers with v, which must be one of this package's own structs: these always marshal.
func writeJSON(ctx *fasthttp.RequestCtx, status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	ctx.SetStatusCode(status)
	ctx.SetContentType(contentType)
	ctx.SetBody(body)
}
