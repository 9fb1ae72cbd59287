package httpapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"snowlink/internal/apikey"
	"snowlink/internal/clicks"
	"snowlink/internal/link"
	"snowlink/internal/stats"
)

const (
	// clicksDays is how many days a question is about that does not say: today, and those before.
	clicksDays = 30
	// clicksYears bounds the time of a question.
	clicksYears = 10
	// clicksRows is how many rows an answer has at most, if each part of its time has all that it may.
	clicksRows = 20_000

	maxBy     = 3   // dimensions that an answer is divided by
	maxValues = 20  // of a filter
	maxValue  = 100 // bytes
)

var (
	// errClicksOff reports that this service counts no clicks.
	errClicksOff = errors.New("clicks are not counted")
	// errClicksAway reports that the store of clicks cannot tell now.
	errClicksAway = errors.New("clicks are unavailable")
)

// clicksParameters are those of a question about the clicks of a link, beside its dimensions.
var clicksParameters = []string{"from", "to", "tz", "unit", "by", "bots", "compare", "limit"}

// linkClicks answers GET /links/{code}/clicks.
func (a *API) linkClicks(ctx *fasthttp.RequestCtx) {
	a.answerClicks(ctx, clicksParameters, func(within context.Context, key *apikey.Key, q *clicksQuery) error {
		q.Code = ctx.UserValue("code").(string)
		s, err := a.readOwned(within, key, q.Code)
		if err == nil && !key.Scopes.Has(apikey.ScopeAdmin) {
			// A code may have been another owner's, whose clicks are nobody else's business.
			q.made = createdAt(q.Code, s.Link).Truncate(time.Hour)
		}
		return err
	})
}

// allClicks answers GET /clicks: those of the links that the key made, or others, as the query asks.
func (a *API) allClicks(ctx *fasthttp.RequestCtx) {
	takes := slices.Concat(clicksParameters, []string{"owner", "tag"})
	a.answerClicks(ctx, takes, func(_ context.Context, key *apikey.Key, q *clicksQuery) (err error) {
		q.Owner, err = ownerToList(key, q.Owner)
		return err
	})
}

// answerClicks answers a question about clicks. scope completes it, or refuses it.
func (a *API) answerClicks(ctx *fasthttp.RequestCtx, takes []string, scope func(context.Context, *apikey.Key, *clicksQuery) error) {
	within := a.deadline(ctx)
	key, ok := a.authorize(ctx, within, apikey.ScopeRead)
	if !ok {
		return
	}
	q, err := a.parseClicks(ctx, takes)
	if err == nil {
		err = scope(within, key, &q)
	}
	var answer, before stats.Answer
	if err == nil {
		answer, err = a.ask(within, q)
		if err == nil && q.compare {
			before, err = a.ask(within, q.previous())
		}
		err = a.clicksError(err)
	}
	if err != nil {
		a.fail(ctx, err)
		return
	}
	contentType, b := contentJSON, []byte(nil)
	if prefersCSV(ctx.Request.Header.Peek(fasthttp.HeaderAccept)) {
		contentType, b = contentCSV, q.csv(answer, before)
	} else {
		b = a.appendClicks(nil, q, answer, before, ctx.Time())
	}
	a.sendLong(ctx, key, contentType, b)
}

// ask asks for what there was since the link was made.
func (a *API) ask(within context.Context, q clicksQuery) (stats.Answer, error) {
	if q.made.After(q.From) {
		q.From = q.made
	}
	if !q.From.Before(q.To) {
		return stats.Answer{}, nil
	}
	return a.Stats.Ask(within, q.Question)
}

// topLinks answers GET /clicks/top with the links that were clicked most.
func (a *API) topLinks(ctx *fasthttp.RequestCtx) {
	within := a.deadline(ctx)
	key, ok := a.authorize(ctx, within, apikey.ScopeRead)
	if !ok {
		return
	}
	q, err := a.parseClicks(ctx, []string{"from", "to", "tz", "bots", "limit", "owner", "tag"})
	if err == nil {
		q.Owner, err = ownerToList(key, q.Owner)
	}
	var top []stats.LinkClicks
	if err == nil {
		top, err = a.Stats.Top(within, q.Scope, q.From, q.To, q.Bots, q.Most)
		err = a.clicksError(err)
	}
	a.answerTop(ctx, key, q, "links", top, err)
}

// misses answers GET /clicks/misses with the codes that were asked for most of those without a link.
func (a *API) misses(ctx *fasthttp.RequestCtx) {
	within := a.deadline(ctx)
	key, ok := a.authorize(ctx, within, apikey.ScopeRead|apikey.ScopeAdmin)
	if !ok {
		return
	}
	q, err := a.parseClicks(ctx, []string{"from", "to", "tz", "limit"})
	var misses []stats.LinkClicks
	if err == nil {
		misses, err = a.Stats.Misses(within, q.From, q.To, q.Most)
		err = a.clicksError(err)
	}
	a.answerTop(ctx, key, q, "misses", misses, err)
}

// answerTop answers with a list of codes, under a name, unless there was an error. Only links have a
// short URL.
func (a *API) answerTop(ctx *fasthttp.RequestCtx, key *apikey.Key, q clicksQuery, name string, top []stats.LinkClicks, err error) {
	if err != nil {
		a.fail(ctx, err)
		return
	}
	if prefersCSV(ctx.Request.Header.Peek(fasthttp.HeaderAccept)) {
		rows := [][]string{{"code", "clicks"}}
		for _, l := range top {
			rows = append(rows, []string{quoteFormula(l.Code), strconv.FormatInt(l.Clicks, 10)})
		}
		a.sendLong(ctx, key, contentCSV, csvOf(rows))
		return
	}
	b := append(q.appendTime([]byte{'{'}), `,"`+name+`":[`...)
	for i, l := range top {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '{')
		if name == "links" {
			b = append(b, `"short_url":`...)
			b = appendString(b, a.BaseURL+"/"+l.Code)
			b = append(b, ',')
		}
		b = append(b, `"code":`...)
		b = appendString(b, l.Code)
		b = append(b, `,"clicks":`...)
		b = append(strconv.AppendInt(b, l.Clicks, 10), '}')
	}
	b = append(b, ']')
	a.sendLong(ctx, key, contentJSON, append(a.appendSince(b, ctx.Time()), '}'))
}

// forgetClicks answers DELETE /links/{code}/clicks. A link that is not there any more may have clicks
// all the same: an administrator may delete those.
func (a *API) forgetClicks(ctx *fasthttp.RequestCtx) {
	within := a.deadline(ctx)
	key, ok := a.authorize(ctx, within, apikey.ScopeManage)
	if !ok {
		return
	}
	code, err := ctx.UserValue("code").(string), error(nil)
	if a.Stats == nil {
		err = errClicksOff
	} else if _, err = a.readOwned(within, key, code); errors.Is(err, link.ErrNotFound) && link.CouldBeCode(code) && key.Scopes.Has(apikey.ScopeAdmin) {
		err = nil
	}
	if err == nil {
		err = a.clicksError(a.Stats.Forget(within, code))
	}
	if err != nil {
		a.fail(ctx, err)
		return
	}
	ctx.SetStatusCode(fasthttp.StatusNoContent)
}

// clicksError returns an error of the store of clicks, or nil, as an answer explains it.
func (a *API) clicksError(err error) error {
	switch {
	case errors.Is(err, link.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", errClicksAway, err)
	case errors.Is(err, stats.ErrTooFine):
		hours, _ := a.Stats.Since(time.Now())
		return fieldErrorf(`Hours, and several dimensions or filters at once, are kept since %s. Ask for a later "from", or for days by one dimension.`, hours.UTC().Format(time.RFC3339))
	}
	return err
}

// A clicksQuery is a question about clicks as a request asks it.
type clicksQuery struct {
	stats.Question
	compare bool      // with the time before
	made    time.Time // earlier clicks are not told; zero for all
}

// previous returns the same question about as long a time, which ends where q's begins.
func (q clicksQuery) previous() clicksQuery {
	q.From, q.To = q.From.Add(-q.To.Sub(q.From)), q.From
	return q
}

// parseClicks reads the parameters of a question, of which the route takes some.
func (a *API) parseClicks(ctx *fasthttp.RequestCtx, takes []string) (clicksQuery, error) {
	if a.Stats == nil {
		return clicksQuery{}, errClicksOff
	}
	return parseClicksQuery(ctx.QueryArgs(), ctx.Time(), takes...)
}

// Values of parameters.
var (
	clicksUnits = map[string]stats.Unit{"hour": stats.Hour, "day": stats.Day, "week": stats.Week, "month": stats.Month, "whole": stats.Whole}
	clicksBots  = map[string]stats.Bots{"include": stats.WithBots, "only": stats.OnlyBots}
)

// parseClicksQuery reads the parameters of a question that is asked now, with the owner as it was sent.
// It takes those that are named, and all dimensions if "by" is among them. Its error is a *fieldError.
func parseClicksQuery(args *fasthttp.Args, now time.Time, takes ...string) (q clicksQuery, err error) {
	q.Zone, q.Most = time.UTC, defaultLimit
	if args.Has("tz") { // dates depend on it
		if q.Zone, err = parseZone(string(args.Peek("tz"))); err != nil {
			return q, err
		}
	}
	unit, bots := false, false // are given
	for name, value := range args.All() {
		name, value := string(name), string(value)
		d, isDimension := clicks.DimensionOf(name)
		isDimension = isDimension && slices.Contains(takes, "by")
		if !isDimension && !slices.Contains(takes, name) {
			return q, unknownParameter([]byte(name))
		}
		var ok bool
		switch name {
		case "tz":
		case "from":
			q.From, err = parseHour(name, value, q.Zone, false)
		case "to":
			q.To, err = parseHour(name, value, q.Zone, true)
		case "unit":
			if q.Unit, unit = clicksUnits[value]; !unit {
				err = fieldErrorf(`The parameter "unit" must be hour, day, week, month or whole.`)
			}
		case "by":
			q.By, err = parseBy(value)
		case "bots":
			if q.Bots, bots = clicksBots[value]; !bots {
				err = fieldErrorf(`The parameter "bots" must be include or only. Without it, clicks of bots are left out.`)
			}
		case "compare":
			if q.compare = value == "previous"; !q.compare {
				err = fieldErrorf(`The parameter "compare" must be previous.`)
			}
		case "limit":
			if q.Most, err = strconv.Atoi(value); err != nil || q.Most < 1 || q.Most > maxLimit {
				err = fieldErrorf(`The parameter "limit" must be from 1 to 1,000.`)
			}
		case "owner":
			q.Owner, err = parseOwner(value)
		case "tag":
			if q.Tag = value; !isTag(value) {
				err = fieldErrorf(`The parameter "tag" must have `+tagRule, maxTag)
			}
		case "code":
			if q.Code = value; !link.CouldBeCode(value) {
				err = fieldErrorf(`The parameter "code" must be the code of a link.`)
			}
		default:
			if q.Where == nil {
				q.Where = make(map[clicks.Dimension][]string)
			}
			if q.Where[d], ok = parseValues(value); !ok {
				err = fieldErrorf("The parameter %q must have one to %d values, comma-separated, of at most %d bytes each. An empty one stands for clicks without a value.", name, maxValues, maxValue)
			}
		}
		if err != nil {
			return q, err
		}
	}
	if _, ok := q.Where[clicks.Bot]; !bots && (ok || slices.Contains(q.By, clicks.Bot)) {
		q.Bots = stats.WithBots // or there would be nothing to tell
	}
	return q, q.completeTime(now, unit)
}

// completeTime sets what the request does not say of the time, and checks it.
func (q *clicksQuery) completeTime(now time.Time, unit bool) error {
	if q.To.IsZero() {
		q.To = roundedUp(now)
	}
	if q.From.IsZero() {
		y, m, d := q.To.Add(-time.Nanosecond).In(q.Zone).Date()
		q.From = roundedUp(time.Date(y, m, d-clicksDays+1, 0, 0, 0, 0, q.Zone))
	}
	if !q.From.Before(q.To) {
		return fieldErrorf(`The parameter "to" must be later than "from": clicks at "to" are not counted.`)
	}
	if q.To.AddDate(-clicksYears, 0, 0).After(q.From) {
		return fieldErrorf(`The parameter "from" must be within %d years before "to".`, clicksYears)
	}
	hours := int(q.To.Sub(q.From) / time.Hour)
	if !unit && len(q.By) == 0 {
		switch {
		case hours <= 3*24:
			q.Unit = stats.Hour
		case hours <= 100*24:
			q.Unit = stats.Day
		default:
			q.Unit = stats.Month
		}
	}
	parts := map[stats.Unit]int{stats.Whole: 1, stats.Hour: hours, stats.Day: hours/24 + 2, stats.Week: hours/24/7 + 2, stats.Month: hours/24/28 + 2}[q.Unit]
	each := 1
	if len(q.By) > 0 {
		each = q.Most
	}
	if parts*each > clicksRows {
		return fieldErrorf(`The answer could have more than %s rows. Ask with a longer "unit", a later "from" or a lower "limit".`, thousands(clicksRows))
	}
	return nil
}

// parseZone returns the time zone of that name.
func parseZone(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil || name == "" || name == "Local" { // which would be this machine's
		return nil, fieldErrorf(`The parameter "tz" must be the name of a time zone, such as Europe/Berlin or UTC.`)
	}
	return zone, nil
}

// parseHour reads a time (RFC 3339), to the hour before or after it, or a date, which is its midnight in
// the zone. Clicks are counted by hours in UTC: where a day begins within one, it counts from the next.
func parseHour(name, value string, zone *time.Location, up bool) (time.Time, error) {
	if at, err := time.ParseInLocation(time.DateOnly, value, zone); err == nil {
		return roundedUp(at), nil
	}
	at, err := parseTime(name, value)
	if up {
		return roundedUp(at), err
	}
	return at.UTC().Truncate(time.Hour), err
}

func roundedUp(t time.Time) time.Time {
	return t.UTC().Add(time.Hour - time.Nanosecond).Truncate(time.Hour)
}

// parseBy reads the parameter "by".
func parseBy(value string) (by []clicks.Dimension, err error) {
	for name := range strings.SplitSeq(value, ",") {
		d, ok := clicks.DimensionOf(name)
		if !ok || slices.Contains(by, d) || len(by) == maxBy {
			return nil, fieldErrorf(`The parameter "by" must be up to %d different ones of %s, comma-separated.`, maxBy, dimensionNames())
		}
		by = append(by, d)
	}
	return by, nil
}

// dimensionNames returns the names of all dimensions, as text.
func dimensionNames() string {
	names := make([]string, clicks.Dimensions)
	for d := range clicks.Dimension(clicks.Dimensions) {
		names[d] = d.String()
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// parseValues reads the values of a filter.
func parseValues(value string) (values []string, ok bool) {
	values = strings.Split(value, ",")
	return values, len(values) <= maxValues && !slices.ContainsFunc(values, func(v string) bool { return len(v) > maxValue })
}

// unitName is the unit as the parameter has it.
func unitName(unit stats.Unit) string {
	for name, u := range clicksUnits {
		if u == unit {
			return name
		}
	}
	return ""
}

// appendTime appends the fields that say which time the answer is about.
func (q clicksQuery) appendTime(b []byte) []byte {
	b = append(b, `"from":"`...)
	b = q.From.In(q.Zone).AppendFormat(b, time.RFC3339)
	b = append(b, `","to":"`...)
	b = q.To.In(q.Zone).AppendFormat(b, time.RFC3339)
	return append(b, '"')
}

// appendSince appends since when clicks are kept, by hours and by days. What is not there is for ever.
func (a *API) appendSince(b []byte, now time.Time) []byte {
	hours, days := a.Stats.Since(now)
	b = append(b, `,"since":{"hours":"`...)
	b = hours.UTC().AppendFormat(b, time.RFC3339)
	b = append(b, '"')
	if !days.IsZero() {
		b = append(b, `,"days":"`...)
		b = days.UTC().AppendFormat(b, time.RFC3339)
		b = append(b, '"')
	}
	return append(b, '}')
}

// appendClicks appends an answer as JSON, with that about the time before if the question compares.
func (a *API) appendClicks(b []byte, q clicksQuery, answer, before stats.Answer, now time.Time) []byte {
	b = append(q.appendTime(append(b, '{')), `,"time_zone":`...)
	b = appendString(b, q.Zone.String())
	b = append(b, `,"unit":"`+unitName(q.Unit)+`"`...)
	b = q.appendRows(b, answer)
	if q.compare {
		b = append(b, `,"previous":{`...)
		b = append(q.previous().appendTime(b), q.appendRows(nil, before)...)
		b = append(b, '}')
	}
	return append(a.appendSince(b, now), '}')
}

// appendRows appends the sums and rows of an answer.
func (q clicksQuery) appendRows(b []byte, answer stats.Answer) []byte {
	b = append(b, `,"clicks":`...)
	b = strconv.AppendInt(b, answer.Clicks, 10)
	b = appendVisitors(b, answer.Visitors)
	b = append(b, `,"rows":[`...)
	for i, row := range answer.Rows {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '{')
		if q.Unit != stats.Whole {
			b = append(b, `"start":"`...)
			b = row.Start.In(q.Zone).AppendFormat(b, time.RFC3339)
			b = append(b, `",`...)
		}
		for i, d := range q.By {
			b = append(b, `"`+d.String()+`":`...)
			b = append(appendString(b, row.Values[i]), ',')
		}
		b = append(b, `"clicks":`...)
		b = strconv.AppendInt(b, row.Clicks, 10)
		b = append(appendVisitors(b, row.Visitors), '}')
	}
	return append(b, ']')
}

// appendVisitors appends how many people clicked, if that is known.
func appendVisitors(b []byte, n int64) []byte {
	if n < 0 {
		return b
	}
	return strconv.AppendInt(append(b, `,"visitors":`...), n, 10)
}

// csv returns an answer as CSV. With a comparison, the first column says which time a row is of.
func (q clicksQuery) csv(answer, before stats.Answer) []byte {
	header := []string{"start"}
	for _, d := range q.By {
		header = append(header, d.String())
	}
	rows := [][]string{append(header, "clicks", "visitors")}
	add := func(period string, from time.Time, a stats.Answer) {
		for _, r := range a.Rows {
			start := r.Start
			if q.Unit == stats.Whole {
				start = from
			}
			row := []string{start.In(q.Zone).Format(time.RFC3339)}
			for i := range q.By {
				row = append(row, quoteFormula(r.Values[i]))
			}
			visitors := ""
			if r.Visitors >= 0 {
				visitors = strconv.FormatInt(r.Visitors, 10)
			}
			row = append(row, strconv.FormatInt(r.Clicks, 10), visitors)
			if q.compare {
				row = append([]string{period}, row...)
			}
			rows = append(rows, row)
		}
	}
	if q.compare {
		rows[0] = append([]string{"period"}, rows[0]...)
		add("previous", q.previous().From, before)
	}
	add("current", q.From, answer)
	return csvOf(rows)
}

// csvOf returns rows as CSV.
func csvOf(rows [][]string) []byte {
	var b strings.Builder
	if err := writeCSV(&b, rows); err != nil {
		panic(fmt.Errorf("rows of text are no CSV: %w", err)) // they always are
	}
	return []byte(b.String())
}
