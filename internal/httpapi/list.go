package httpapi

import (
	"context"
	"io"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/valyala/fasthttp"

	"snowlink/internal/apikey"
	"snowlink/internal/link"
)

const (
	defaultLimit = 100
	maxLimit     = 1000

	maxWords = 200 // characters of a search

	listPart = 64 << 10 // bytes of a page that are written at once
)

// list answers GET /links with the links that the key made, or others, as the query asks for them.
func (a *API) list(ctx *fasthttp.RequestCtx) {
	within := a.deadline(ctx)
	key, ok := a.authorize(ctx, within, apikey.ScopeRead)
	if !ok {
		return
	}
	query, err := parseListQuery(ctx.QueryArgs())
	if err == nil {
		query.Owner, err = ownerToList(key, query.Owner)
	}
	if err == nil && query.withClicks && a.Stats == nil {
		err = errClicksOff
	}
	var page link.Page
	if err == nil {
		page, err = a.Store.List(within, query.Query)
	}
	var clicked []int64
	if err == nil && query.withClicks {
		clicked, err = a.clicked(within, page.Links)
	}
	if err != nil {
		a.fail(ctx, err)
		return
	}
	a.sendLong(ctx, key, contentJSON, a.appendPage(nil, page, clicked))
}

// clicked returns how many clicks each of the links has had.
func (a *API) clicked(within context.Context, links []link.Coded) ([]int64, error) {
	codes := make([]string, len(links))
	for i, l := range links {
		codes[i] = l.Code
	}
	clicked, err := a.Stats.Totals(within, codes)
	return clicked, a.clicksError(err)
}

// sendLong answers the key with a body that may have some megabytes.
func (a *API) sendLong(ctx *fasthttp.RequestCtx, key *apikey.Key, contentType string, b []byte) {
	if len(b) > listPart { // it is held until the client has received it
		release, err := a.slots.take(routeList, key.Name, int64(len(b)))
		if err != nil {
			a.fail(ctx, err)
			return
		}
		defer func() { releaseAfter(ctx, release) }()
	}
	// The client has partTime to receive each part of it.
	a.stream(ctx, contentType, listTime, func(w io.Writer) error {
		for part := range slices.Chunk(b, listPart) {
			if _, err := w.Write(part); err != nil {
				return err
			}
		}
		return nil
	})
	ctx.Response.Header.SetContentLength(len(b))
}

// appendPage appends a page as JSON, with how often each link was clicked unless clicked is nil.
func (a *API) appendPage(b []byte, page link.Page, clicked []int64) []byte {
	b = append(b, `{"links":[`...)
	for i, l := range page.Links {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendLink(b, a.BaseURL+"/"+l.Code, l.Code, l.Link, createdAt(l.Code, l.Link))
		if clicked != nil {
			b = append(b, `,"clicks":`...)
			b = strconv.AppendInt(b, clicked[i], 10)
		}
		b = append(b, '}')
	}
	b = append(b, ']')
	if page.Next != "" {
		b = append(b, `,"next":`...)
		b = appendString(b, page.Next)
	}
	if page.Total != nil {
		b = append(b, `,"total":`...)
		b = strconv.AppendInt(b, page.Total.Links, 10)
		if page.Total.Estimate {
			b = append(b, `,"total_is_estimate":true`...)
		}
	}
	if page.Newest != nil {
		b = append(b, `,"newest_only":`...)
		b = strconv.AppendInt(b, int64(*page.Newest), 10)
	}
	if page.Incomplete {
		b = append(b, `,"incomplete":true`...)
	}
	return append(b, '}')
}

// everyone is the owner that stands for all owners. It is no name of a key.
const everyone = "*"

// listStates are the values of the parameter "state".
var listStates = map[string]link.States{"active": link.Active, "gone": link.Gone, "disabled": link.Disabled}

// A listQuery is what a request asks of a list.
type listQuery struct {
	link.Query
	withClicks bool
}

// parseListQuery reads the parameters of a list, with the owner as it was sent. Its error is a
// *fieldError.
func parseListQuery(args *fasthttp.Args) (listQuery, error) {
	q := listQuery{Query: link.Query{N: defaultLimit}}
	for name, value := range args.All() {
		var err error
		switch value := string(value); string(name) {
		case "limit":
			if q.N, err = strconv.Atoi(value); err != nil || q.N < 1 || q.N > maxLimit {
				return q, fieldErrorf(`The parameter "limit" must be from 1 to 1,000.`)
			}
		case "cursor":
			q.Cursor = value
		case "q":
			if utf8.RuneCountInString(value) > maxWords || len(link.Words(value)) == 0 {
				return q, fieldErrorf(`The parameter "q" must have words, in at most %d characters.`, maxWords)
			}
			q.Words = value
		case "tag":
			if !isTag(value) {
				return q, fieldErrorf(`The parameter "tag" must have `+tagRule, maxTag)
			}
			q.Tag = value
		case "owner":
			if q.Owner, err = parseOwner(value); err != nil {
				return q, err
			}
		case "state":
			var ok bool
			if q.States, ok = listStates[value]; !ok {
				return q, fieldErrorf(`The parameter "state" must be active, gone or disabled.`)
			}
		case "from":
			if q.From, err = parseTime("from", value); err != nil {
				return q, err
			}
		case "to":
			if q.To, err = parseTime("to", value); err != nil {
				return q, err
			}
		case "sort":
			if value != "newest" && value != "oldest" {
				return q, fieldErrorf(`The parameter "sort" must be newest or oldest.`)
			}
			q.Oldest = value == "oldest"
		case "with":
			if q.withClicks = value == "clicks"; !q.withClicks {
				return q, fieldErrorf(`The parameter "with" must be clicks.`)
			}
		default:
			return q, unknownParameter(name)
		}
	}
	if !q.To.IsZero() && !q.From.Before(q.To) {
		return q, fieldErrorf(`The parameter "to" must be later than "from": links made at "to" are not in the list.`)
	}
	return q, nil
}

// parseOwner reads the parameter "owner".
func parseOwner(value string) (string, error) {
	if value != everyone && !apikey.IsName(value) {
		return "", fieldErrorf(`The parameter "owner" must be the name of a key, of 1 to 64 letters, digits, dots, hyphens and underscores, or * for all.`)
	}
	return value, nil
}

// parseTime reads a time (RFC 3339), or a date, which is its midnight in UTC.
func parseTime(name, value string) (time.Time, error) {
	at, err := time.Parse(time.DateOnly, value)
	if err != nil {
		err = at.UnmarshalText([]byte(value))
	}
	if err != nil {
		return at, fieldErrorf(`The parameter %q must be a date such as 2026-11-21, or a time such as 2026-11-21T19:00:14Z (RFC 3339). A plus sign in it is written %%2B.`, name)
	}
	return at, nil
}

// unknownParameter is the error for a parameter that the route does not know. It is refused as an
// unknown field of a body is: a client must not believe that it had an effect.
func unknownParameter(name []byte) error {
	return fieldErrorf("The parameter %q is not known.", abbreviated(string(name)))
}
