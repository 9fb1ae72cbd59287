package httpapi

import (
	"slices"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	defaultLimit = 100
	maxLimit     = 1000

	// listFor is how long the journal is read to fill a page, which takes long
	// where few links have the tag, or many are gone. Then the page is short, and
	// the next goes on from there.
	listFor = 250 * time.Millisecond
)

// list answers GET /links with the links that the key made, newest first.
func (a *API) list(ctx *fasthttp.RequestCtx) {
	owner, ok := a.authorize(ctx, ScopeRead)
	if !ok {
		return
	}
	query, err := parseListQuery(ctx.QueryArgs())
	if err != nil {
		a.fail(ctx, err)
		return
	}
	b := []byte(`{"links":[`)
	cursor, listed := query.cursor, 0
	for listed < query.limit {
		links, next, err := a.Store.List(a.ctx, owner, cursor, query.limit-listed)
		if err != nil {
			a.fail(ctx, err)
			return
		}
		for _, l := range links {
			if query.tag != "" && (l.Options == nil || !slices.Contains(l.Tags, query.tag)) {
				continue
			}
			if listed++; listed > 1 {
				b = append(b, ',')
			}
			b = append(appendLink(b, a.BaseURL+"/"+l.Code, l.Code, l.Link, createdAt(l.Code, l.Link)), '}')
		}
		if cursor = next; cursor == "" || time.Since(ctx.Time()) > listFor {
			break
		}
	}
	b = append(b, ']')
	if cursor != "" {
		b = append(b, `,"next":`...)
		b = appendString(b, cursor)
	}
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	ctx.SetContentType(contentJSON)
	ctx.SetBody(append(b, '}'))
}

type listQuery struct {
	limit       int
	cursor, tag string
}

// parseListQuery reads the parameters of a list. Its error is a *fieldError; an
// unknown parameter is one, as an unknown field of a body is.
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
				return q, fieldErrorf(`The parameter "tag" is no tag that a link can have.`)
			}
			q.tag = value
		default:
			return q, fieldErrorf("The parameter %q is not known.", shorten(string(name)))
		}
	}
	return q, nil
}
