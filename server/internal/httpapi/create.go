package httpapi

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/valyala/fasthttp"

	"snowlink/server/internal/link"
	"snowlink/snowflake"
)

// ErrNoNode is what Mint fails with while the process holds no node ID.
var ErrNoNode = errors.New("no node ID is held")

// mintTries is how often a code is minted for one link. A second try is a
// fault elsewhere (a shared node ID, a clock gone back); a third is bad luck on
// top of it.
const mintTries = 3

// defaultOwner is whose journal the links of API_KEY are in.
const defaultOwner = "default"

type createRequest struct {
	URL     string `json:"url"`
	LongURL string `json:"long_url"` // what older clients call it
}

// appendCreated appends the answer to a create: the short URL, its code, the
// target as stored, which is as a browser will read it, and the time in the ID.
// By hand, since reflection took a sixth of the handler's time.
func appendCreated(b []byte, shortURL, code, target string, at time.Time) []byte {
	// AppendQuote fails on bad UTF-8 only, and URLs in their serialisation are ASCII.
	b = append(b, `{"short_url":`...)
	b, _ = jsontext.AppendQuote(b, shortURL)
	b = append(b, `,"code":"`...)
	b = append(b, code...)
	b = append(b, `","url":`...)
	b, _ = jsontext.AppendQuote(b, target)
	b = append(b, `,"created_at":"`...)
	b = at.AppendFormat(b, "2006-01-02T15:04:05.000Z07:00") // an ID carries milliseconds
	return append(b, `"}`...)
}

// create answers POST /generate_url: it parses the target, mints a code and
// stores the link under it.
func (a *API) create(ctx *fasthttp.RequestCtx) {
	if _, ok := a.authorize(ctx, ScopeCreate); !ok {
		return
	}
	var request createRequest
	if detail := decodeBody(ctx.PostBody(), &request); detail != "" {
		writeProblem(ctx, problemInvalidJSON, detail)
		return
	}
	raw, err := request.target()
	if err != nil {
		a.fail(ctx, err)
		return
	}
	target, err := link.ParseTarget(raw, a.Own)
	if err != nil {
		a.fail(ctx, err)
		return
	}
	id, code, err := a.store(a.ctx, link.Link{Target: target})
	if err != nil {
		a.fail(ctx, err)
		return
	}
	a.Metrics.Created()

	shortURL := a.BaseURL + "/" + code
	ctx.Response.Header.Set(fasthttp.HeaderLocation, shortURL)
	ctx.SetStatusCode(fasthttp.StatusCreated)
	ctx.SetContentType(contentJSON)
	ctx.Response.SetBodyRaw(appendCreated(make([]byte, 0, 2*len(shortURL)+len(target)+64), shortURL, code, target, id.Time().UTC()))
}

// store mints codes for l until one is free.
func (a *API) store(ctx context.Context, l link.Link) (snowflake.ID, string, error) {
	for try := 1; ; try++ {
		id, err := a.Mint()
		if err != nil {
			return 0, "", err
		}
		code := snowflake.Encode(id)
		err = a.Store.Create(ctx, defaultOwner, code, l)
		if errors.Is(err, link.ErrExists) {
			a.Metrics.Collision()
			if try < mintTries {
				continue
			}
		}
		return id, code, err
	}
}

// target is the one URL of the request, under whichever name it came.
func (r createRequest) target() (string, error) {
	switch {
	case r.URL == "" && r.LongURL == "":
		return "", &link.TargetError{Detail: `The field "url" is missing or empty.`}
	case r.URL != "" && r.LongURL != "" && r.URL != r.LongURL:
		return "", &link.TargetError{Detail: `The fields "url" and "long_url" differ; send one of them.`}
	case r.URL != "":
		return r.URL, nil
	}
	return r.LongURL, nil
}

// decodeBody reads one JSON object. What it returns is "" or, for the client,
// what is wrong and where; it repeats nothing of the body but names of fields.
// An unknown field is refused: a client that asks for what we do not do must
// not believe it was done.
func decodeBody(body []byte, into any) (detail string) {
	const example = `the body must be one JSON object such as {"url":"https://example.com/"}.`
	if len(body) == 0 {
		return "The body is empty; " + example
	}
	if !utf8.Valid(body) {
		return "The body is not UTF-8; " + example
	}
	err := json.Unmarshal(body, into, json.RejectUnknownMembers(true))
	if err == nil {
		return ""
	}
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return fmt.Sprintf("The field %q is there twice.", shorten(syntactic.JSONPointer.LastToken()))
		}
		return fmt.Sprintf("The body is not valid JSON at byte %d; %s", syntactic.ByteOffset, example)
	}
	if semantic, ok := errors.AsType[*json.SemanticError](err); ok {
		if field := semantic.JSONPointer.LastToken(); errors.Is(err, json.ErrUnknownName) {
			return fmt.Sprintf("The field %q is not known.", shorten(field))
		} else if field != "" {
			return fmt.Sprintf("The field %q must be a string.", shorten(field))
		}
	}
	return "The body is not a JSON object; " + example
}

// shorten keeps a client's own field name from filling the answer.
func shorten(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	for i := most; ; i-- {
		if utf8.RuneStart(s[i]) {
			return s[:i] + "…"
		}
	}
}
