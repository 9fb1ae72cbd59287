package httpapi

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/valyala/fasthttp"

	"snowlink/internal/apikey"
	"snowlink/internal/link"
	"snowlink/snowflake"
)

// ErrNoNode is what Mint fails with while the process holds no node ID.
var ErrNoNode = errors.New("no node ID is held")

// errNoFreeCode is what a create fails with when every code it minted was taken.
var errNoFreeCode = errors.New("every code minted for a link was taken")

// mintTries is how often a code is minted for one link. A second try is a
// fault elsewhere (a shared node ID, a clock gone back); a third is bad luck on
// top of it.
const mintTries = 3

// createRequest is the body of a create.
type createRequest struct {
	fields
	Code string `json:"code"`
	// What older clients call it.
	CustomCode  string `json:"custom_code"`
	CustomPath  string `json:"custom_path"`
	CustomShort string `json:"custom_short"`
}

// made is a link that was created.
type made struct {
	link.Coded
	at time.Time
}

// create answers POST /links and POST /generate_url: it parses the target and
// the options, and stores the link under its own code or a minted one.
func (a *API) create(ctx *fasthttp.RequestCtx) {
	within := a.deadline(ctx)
	owner, ok := a.authorize(ctx, within, apikey.ScopeCreate)
	if !ok {
		return
	}
	body, key := ctx.PostBody(), ctx.Request.Header.Peek(headerIdempotencyKey)
	var m made
	var err error
	if url, ok := plainURL(body); ok && len(key) == 0 {
		m, err = a.createPlain(within, owner, url)
	} else {
		m, err = a.createDecoded(ctx, within, owner, key, body)
	}
	if err != nil {
		a.fail(ctx, err)
		return
	}

	shortURL := a.BaseURL + "/" + m.Code
	ctx.Response.Header.SetCanonical(headerLocation, []byte(shortURL))
	ctx.SetStatusCode(fasthttp.StatusCreated)
	ctx.SetContentType(contentJSON)
	b := appendLink(make([]byte, 0, 2*len(shortURL)+len(m.Target)+64), shortURL, m.Code, m.Link, m.at)
	ctx.Response.SetBodyRaw(append(b, '}'))
}

// createPlain stores a link that leads to the URL and has no options.
func (a *API) createPlain(ctx context.Context, owner, url string) (made, error) {
	target, err := link.ParseTarget(url, a.Own)
	if err != nil {
		return made{}, err
	}
	return a.createMinted(ctx, owner, link.Link{Target: target})
}

// createDecoded stores the link that the body describes.
func (a *API) createDecoded(ctx *fasthttp.RequestCtx, within context.Context, owner string, key, body []byte) (made, error) {
	var request createRequest
	if detail := decodeBody(body, &request); detail != "" {
		return made{}, &bodyError{problemInvalidJSON, detail}
	}
	if len(key) > 0 {
		return a.createOnce(within, owner, key, body, &request, ctx.Time())
	}
	return a.createNew(within, owner, &request, ctx.Time())
}

// createNew stores the link that the request describes, as of now.
func (a *API) createNew(ctx context.Context, owner string, r *createRequest, now time.Time) (made, error) {
	code, err := r.ownCode()
	if err != nil {
		return made{}, err
	}
	l, err := r.link(a.Own, now)
	if err != nil {
		return made{}, err
	}
	if code == "" {
		return a.createMinted(ctx, owner, l)
	}
	m := ownMade(code, l, now, newNonce())
	if err := a.Store.Create(ctx, owner, code, m.Link); err != nil {
		return made{}, err
	}
	a.Metrics.Created()
	return m, nil
}

// createMinted mints codes for l until one is free.
func (a *API) createMinted(ctx context.Context, owner string, l link.Link) (made, error) {
	for try := 1; ; try++ {
		id, err := a.Mint()
		if err != nil {
			return made{}, err
		}
		m := made{link.Coded{Code: snowflake.Encode(id), Link: l}, id.Time()}
		err = a.Store.Create(ctx, owner, m.Code, l)
		if err == nil {
			a.Metrics.Created()
			return m, nil
		}
		if !errors.Is(err, link.ErrExists) {
			return made{}, err
		}
		a.Metrics.Collision()
		if try == mintTries {
			return made{}, fmt.Errorf("%w: %w", errNoFreeCode, err)
		}
	}
}

// ownMade is l made under a code of its own at a time, which the record has to
// say then.
func ownMade(code string, l link.Link, at time.Time, nonce uint32) made {
	at = at.UTC().Truncate(time.Millisecond)
	if l.Options == nil {
		l.Options = new(link.Options)
	}
	l.Created, l.Nonce = at, nonce
	return made{link.Coded{Code: code, Link: l}, at}
}

// newNonce is never 0.
func newNonce() uint32 { return rand.Uint32() | 1 }

// link is the link that the request describes, as of now.
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

// ownCode is the one code of the request, under whichever name it came, or "" for
// a minted one.
func (r *createRequest) ownCode() (string, error) {
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
