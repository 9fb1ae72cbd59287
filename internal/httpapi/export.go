package httpapi

import (
	"context"
	"encoding/csv"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"snowlink/internal/apikey"
	"snowlink/internal/deadline"
	"snowlink/internal/link"
)

const (
	contentCSV = "text/csv; charset=utf-8; header=present"

	// exportPage is how many links are in memory at a time.
	exportPage = 1000
	// wholeTries is how often a page of an export that has begun is read while the archive is behind,
	// and wholePause the time between: together half of what Nginx waits for more of an answer.
	wholeTries = 60
	wholePause = 500 * time.Millisecond
)

// exportColumns is the header row of a CSV. exportRow fills the columns.
var exportColumns = []string{
	"code", "short_url", "url", "created_at", "expires_at", "max_visits", "status", "forward_query", "title", "tags", "disabled", "owner",
}

// export answers GET /links/export with all links that the key made, or another owner, newest first,
// one a line: as JSON, like those of a list, or as CSV if the client prefers it.
func (a *API) export(ctx *fasthttp.RequestCtx) {
	within := a.deadline(ctx)
	key, ok := a.authorize(ctx, within, apikey.ScopeRead)
	if !ok {
		return
	}
	owner, err := parseExportQuery(ctx.QueryArgs())
	if err == nil {
		owner, err = ownerToList(key, owner)
	}
	if err != nil {
		a.fail(ctx, err)
		return
	}
	release, err := a.slots.take(routeExport, key.Name, pageMemory)
	if err != nil {
		a.fail(ctx, err)
		return
	}
	defer func() { releaseAfter(ctx, release) }()
	// The first page is read before the header is sent, so that an outage can still be answered
	// with its status.
	query := link.Query{Owner: owner, N: exportPage}
	page, err := a.whole(within, query, 1)
	if err != nil {
		a.fail(ctx, err)
		return
	}
	asCSV := prefersCSV(ctx.Request.Header.Peek(fasthttp.HeaderAccept))
	contentType, file := contentNDJSON, "links.ndjson"
	if asCSV {
		contentType, file = contentCSV, "links.csv"
	}
	ctx.Response.Header.Set(fasthttp.HeaderContentDisposition, `attachment; filename="`+file+`"`)
	a.stream(ctx, contentType, exportTime, func(w io.Writer) error {
		write := a.writeLines
		if asCSV {
			if err := writeCSV(w, [][]string{exportColumns}); err != nil {
				return err
			}
			write = a.writeRows
		}
		for {
			if err := write(w, page.Links); err != nil || page.Next == "" {
				return err
			}
			query.Cursor = page.Next
			if page, err = a.whole(a.ctx, query, wholeTries); err != nil {
				return err
			}
		}
	})
}

// errBehind reports that the archive is too far behind for a list that is whole.
var errBehind = errors.New("the archive is behind")

// whole returns a page that is not incomplete: an export could not say that it is.
func (a *API) whole(ctx context.Context, q link.Query, tries int) (link.Page, error) {
	for {
		page, err := a.Store.List(ctx, q)
		if tries--; err != nil || !page.Incomplete {
			return page, err
		}
		if tries == 0 || !deadline.Sleep(ctx, wholePause) {
			return page, errBehind
		}
	}
}

// parseExportQuery reads the parameter of an export. Its error is a *fieldError.
func parseExportQuery(args *fasthttp.Args) (owner string, err error) {
	for name, value := range args.All() {
		if string(name) != "owner" {
			return "", unknownParameter(name)
		}
		if owner, err = parseOwner(string(value)); err != nil {
			return "", err
		}
	}
	return owner, nil
}

func (a *API) writeLines(w io.Writer, links []link.Coded) error {
	var b []byte
	for _, l := range links {
		b = append(appendLink(b, a.BaseURL+"/"+l.Code, l.Code, l.Link, createdAt(l.Code, l.Link)), "}\n"...)
	}
	_, err := w.Write(b)
	return err
}

func (a *API) writeRows(w io.Writer, links []link.Coded) error {
	rows := make([][]string, len(links))
	for i, l := range links {
		rows[i] = a.exportRow(l)
	}
	return writeCSV(w, rows)
}

// writeCSV writes rows of CSV (RFC 4180), in one piece.
func writeCSV(w io.Writer, rows [][]string) error {
	var b strings.Builder
	c := csv.NewWriter(&b)
	c.UseCRLF = true
	if err := c.WriteAll(rows); err != nil {
		return err
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (a *API) exportRow(l link.Coded) []string {
	row := make([]string, len(exportColumns))
	row[0], row[1], row[2], row[3] = quoteFormula(l.Code), a.BaseURL+"/"+l.Code, l.Target, exportTimeOf(createdAt(l.Code, l.Link))
	row[11] = quoteFormula(l.Owner)
	if o := l.Options; o != nil {
		row[4] = exportTimeOf(o.Expires)
		if o.MaxVisits > 0 {
			row[5] = strconv.FormatInt(o.MaxVisits, 10)
		}
		if o.Status > 0 {
			row[6] = strconv.Itoa(o.Status)
		}
		if o.ForwardQuery {
			row[7] = "true"
		}
		row[8], row[9] = quoteFormula(o.Title), quoteFormula(strings.Join(o.Tags, ","))
		if o.Disabled {
			row[10] = "true"
		}
	}
	return row
}

func exportTimeOf(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strings.Trim(string(appendTime(nil, t)), `"`)
}

// formulaStarts are the characters that make a spreadsheet run a cell as a formula, which a
// stranger may have written, and the apostrophe that prevents it.
const formulaStarts = "=+-@'"

// quoteFormula makes a spreadsheet take the cell for text: it puts an apostrophe before what would
// start a formula. It puts one before an apostrophe too, so that unquoteFormula can tell the two
// apart.
func quoteFormula(cell string) string {
	if cell != "" && strings.IndexByte(formulaStarts, cell[0]) >= 0 {
		return "'" + cell
	}
	return cell
}

func unquoteFormula(cell string) string {
	if len(cell) > 1 && cell[0] == '\'' && strings.IndexByte(formulaStarts, cell[1]) >= 0 {
		return cell[1:]
	}
	return cell
}

// prefersCSV reports whether an Accept header prefers CSV to lines of JSON. It returns false if the
// header accepts neither.
func prefersCSV(accept []byte) bool {
	var csv, ndjson float64
	for part := range strings.SplitSeq(string(accept), ",") {
		kind, parameters, _ := strings.Cut(part, ";")
		q := 1.0
		for p := range strings.SplitSeq(parameters, ";") {
			if value, ok := strings.CutPrefix(strings.TrimSpace(p), "q="); ok {
				q, _ = strconv.ParseFloat(value, 64) // what is no number counts as 0
			}
		}
		switch strings.ToLower(strings.TrimSpace(kind)) {
		case "text/csv", "text/*":
			csv = max(csv, q)
		case contentNDJSON, contentJSON, "application/*":
			ndjson = max(ndjson, q)
		}
	}
	return csv > ndjson
}
