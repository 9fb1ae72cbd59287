package httpapi

import (
	"context"
	"time"

	"github.com/valyala/fasthttp"

	"snowlink/internal/apikey"
	"snowlink/internal/link"
	"snowlink/internal/shorten"
)

// createRequest is the body of a create.
type createRequest struct {
	fields
	Code string `json:"code"`
	// Names that older clients use for the code.
	CustomCode  string `json:"custom_code"`
	CustomPath  string `json:"custom_path"`
	CustomShort string `json:"custom_short"`
}

// create answers POST /links and POST /generate_url: it parses the target and the options, and
// stores the link under a code that was chosen or minted.
func (a *API) create(ctx *fasthttp.RequestCtx) {
	within := a.deadline(ctx)
	presented, ok := a.authorize(ctx, within, apikey.ScopeCreate)
	if !ok {
		return
	}
	owner := presented.Name
	body, key := ctx.PostBody(), ctx.Request.Header.Peek(headerIdempotencyKey)
	var m shorten.Made
	var err error
	if url, ok := plainURL(body); ok && len(key) == 0 {
		m, err = a.createPlain(within, owner, url)
	} else {
		m, err = a.createDecoded(within, owner, key, body, ctx.Time())
	}
	if err != nil {
		a.fail(ctx, err)
		return
	}

	shortURL := a.BaseURL + "/" + m.Code
	ctx.Response.Header.SetCanonical(headerLocation, []byte(shortURL))
	ctx.SetStatusCode(fasthttp.StatusCreated)
	ctx.SetContentType(contentJSON)
	b := appendLink(make([]byte, 0, 2*len(shortURL)+len(m.Target)+64), shortURL, m.Code, m.Link, m.At)
	ctx.Response.SetBodyRaw(append(b, '}'))
}

// createPlain stores a link to the URL, without options.
func (a *API) createPlain(within context.Context, owner, url string) (shorten.Made, error) {
	target, err := link.ParseTarget(url, a.OwnHosts)
	if err != nil {
		return shorten.Made{}, err
	}
	return a.Shortener.Create(within, owner, link.Link{Target: target})
}

// createDecoded stores the link that the body describes, as of now.
func (a *API) createDecoded(within context.Context, owner string, key, body []byte, now time.Time) (shorten.Made, error) {
	var request createRequest
	if err := decodeBody(body, &request); err != nil {
		return shorten.Made{}, err
	}
	code, err := request.chosenCode()
	if err != nil {
		return shorten.Made{}, err
	}
	if len(key) > 0 {
		if !isIdempotencyKey(key) {
			return shorten.Made{}, fieldErrorf("The header Idempotency-Key must have 1 to %d printable ASCII characters.", maxIdempotencyKey)
		}
		return a.Shortener.CreateOnce(within, owner, shorten.Request{
			Key: key, Body: body, Code: code,
			Link: func(at time.Time) (link.Link, error) { return request.link(a.OwnHosts, at) },
		}, now)
	}
	l, err := request.link(a.OwnHosts, now)
	if err != nil {
		return shorten.Made{}, err
	}
	if code == "" {
		return a.Shortener.Create(within, owner, l)
	}
	return a.Shortener.CreateChosen(within, owner, code, l, now)
}

// link returns the link that the request describes, as of now.
func (r *createRequest) link(own link.Hosts, now time.Time) (link.Link, error) {
	target, err := r.target(own)
	if err != nil || !r.hasOptions() {
		return link.Link{Target: target}, err
	}
	var options link.Options
	if err := r.apply(&options, now); err != nil {
		return link.Link{}, err
	}
	return link.Link{Target: target, Options: orNil(options)}, nil
}

// chosenCode returns the code that the request chose, under whichever name it was sent, or "" if
// one is to be minted.
func (r *createRequest) chosenCode() (string, error) {
	code := ""
	for _, c := range [...]string{r.Code, r.CustomCode, r.CustomPath, r.CustomShort} {
		if c == "" || c == code {
			continue
		}
		if code != "" {
			return "", &link.CodeError{Detail: `The fields "code", "custom_code", "custom_path" and "custom_short" mean the same; send one of them.`}
		}
		code = c
	}
	if code == "" {
		return "", nil
	}
	return link.ParseCode(code)
}

const (
	headerIdempotencyKey = "Idempotency-Key"

	maxIdempotencyKey = 255 // bytes
)

func isIdempotencyKey(key []byte) bool {
	for _, b := range key {
		if b < ' ' || b > '~' {
			return false
		}
	}
	return len(key) > 0 && len(key) <= maxIdempotencyKey
}
