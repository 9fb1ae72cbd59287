package httpapi

import (
	"io"
	"slices"
	"strconv"

	"github.com/valyala/fasthttp"

	"snowlink/internal/apikey"
	"snowlink/internal/link"
)

const (
	defaultLimit = 100
	maxLimit     = 1000

	listPart = 64 << 10 // bytes of a page that are written at once
)

// list answers GET /links with the links that the key made, or another owner, newest first.
func (a *API) list(ctx *fasthttp.RequestCtx) {
	within := a.deadline(ctx)
	key, ok := a.authorize(ctx, within, apikey.ScopeRead)
	if !ok {
		return
	}
	query, err := parseListQuery(ctx.QueryArgs())
	if err != nil {
		a.fail(ctx, err)
		return
	}
	owner, err := ownerToList(key, query.owner)
	if err != nil {
		a.fail(ctx, err)
		return
	}
	page, err := a.Store.List(within, link.Query{Owner: owner, Tag: query.tag, Cursor: query.cursor, N: query.limit})
	if err != nil {
		a.fail(ctx, err)
		return
	}
	b := []byte(`{"links":[`)
	for i, l := range page.Links {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendLink(b, a.BaseURL+"/"+l.Code, l.Code, l.Link, createdAt(l.Code, l.Link)), '}')
	}
	b = append(b, ']')
	if page.Next != "" {
		b = append(b, `,"next":`...)
		b = appendString(b, page.Next)
	}
	b = append(b, '}')
	if len(b) > listPart { // it is held until the client has received it
		release, err := a.slots.take(routeList, key.Name, int64(len(b)))
		if err != nil {
			a.fail(ctx, err)
			return
		}
		defer func() { releaseAfter(ctx, release) }()
	}
	// A page may have some megabytes. The client has partTime to receive each part of it.
	a.stream(ctx, contentJSON, listTime, func(w io.Writer) error {
		for part := range slices.Chunk(b, listPart) {
			if _, err := w.Write(part); err != nil {
				return err
			}
		}
		return nil
	})
	ctx.Response.Header.SetContentLength(len(b))
}

type listQuery struct {
	limit              int
	cursor, tag, owner string
}

// parseListQuery reads the parameters of a list. Its error is a *fieldError.
func parseListQuery(args *fasthttp.Args) (listQuery, error) {
	q := listQuery{limit: defaultLimit}
	for name, value := range args.All() {
		switch value := string(value); string(name) {
		case "limit":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 || n > maxLimit {
				return q, fieldErrorf(`The parameter "limit" must be from 1 to 1,000.`)
			}
			q.limit = n
		case "cursor":
			q.cursor = value
		case "tag":
			if !isTag(value) {
				return q, fieldErrorf(`The parameter "tag" must have `+tagRule, maxTag)
			}
			q.tag = value
		case "owner":
			if !apikey.IsName(value) {
				return q, errOwner
			}
			q.owner = value
		default:
			return q, unknownParameter(name)
		}
	}
	return q, nil
}

var errOwner = fieldErrorf(`The parameter "owner" must be the name of a key: 1 to 64 letters, digits, dots, hyphens and underscores.`)

// unknownParameter is the error for a parameter that the route does not know. It is refused as an
// unknown field of a body is: a client must not believe that it had an effect.
func unknownParameter(name []byte) error {
	return fieldErrorf("The parameter %q is not known.", abbreviated(string(name)))
}
