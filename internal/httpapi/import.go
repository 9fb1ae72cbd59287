package httpapi

import (
	"bufio"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"snowlink/internal/apikey"
	"snowlink/internal/link"
	"snowlink/internal/shorten"
)

const (
	importBatch = 500 // rows that are looked up and stored together

	// maxRows bounds what is kept of an import until its answer is sent. An export has no more rows
	// than the journal of its key, which is half as long unless JOURNAL_MAX says otherwise.
	maxRows = 2_000_000

	// maxReport bounds the same in bytes. Compressed, the answer to 2,000,000 rows takes 14 MiB
	// with minted codes, and 90 MiB with random codes of 64 characters.
	maxReport = 32 << 20
)

// importRequest is a row of an import: what an export writes of a link.
type importRequest struct {
	changeRequest
	Code      string        `json:"code"`
	ShortURL  string        `json:"short_url"`
	Owner     field[string] `json:"owner"`
	CreatedAt field[string] `json:"created_at"`
}

// A rowReader reads the rows of an import. After io.EOF or a *bodyError there are no more. Any
// other error is about one row only.
type rowReader interface {
	read(*importRequest) (line int, err error)
}

// importLinks answers POST /links/import. It stores links under the codes they had, from an export
// or from the CSV of another service, and holds one batch of rows at a time. A row that cannot be
// stored does not affect the others, and a link that exists is left alone. So an import that broke
// off can be sent again.
//
// The answer has a line for each row, which says what became of it, and a summary at the end. It is
// sent after all rows have been read, so that its status can tell whether the import broke off.
//
// The links belong to the key that imports them. Only an administrator's may say otherwise.
func (a *API) importLinks(ctx *fasthttp.RequestCtx, key *apikey.Key, body io.Reader) {
	dryRun, err := parseImportQuery(ctx.QueryArgs())
	if err != nil {
		a.fail(ctx, err)
		return
	}
	rows, err := newRowReader(body)
	if err != nil {
		a.fail(ctx, err)
		return
	}
	if !dryRun {
		if err := a.Shortener.FinishImport(a.ctx, key.Name); err != nil {
			a.fail(ctx, err)
			return
		}
	}
	report := newImportReport()
	done := 0
	for ended := false; !ended; {
		var batch []shorten.Row
		if batch, ended, err = a.readRows(rows, key, ctx.Time()); err == nil {
			err = a.Shortener.Import(a.ctx, key.Name, batch, dryRun)
		}
		if err == nil && (done+len(batch) > maxRows || report.lines.size > maxReport) {
			err = &bodyError{problemBodyTooLarge, "An import may have at most " + thousands(maxRows) + " rows, and fewer if their codes are long. Send the rest in another one."}
		}
		if err != nil {
			p, detail := a.explain(err)
			if done > 0 {
				detail += fmt.Sprintf(" The import broke off after %s rows, which are done; it can be sent again.", thousands(done))
			}
			writeProblem(ctx, p, detail)
			return
		}
		done += len(batch)
		report.add(batch)
	}
	report.end(dryRun)
	a.stream(ctx, contentNDJSON, importTime, report.writeTo)
}

// parseImportQuery reads the parameter of an import. Its error is a *fieldError.
func parseImportQuery(args *fasthttp.Args) (dryRun bool, err error) {
	for name, value := range args.All() {
		switch {
		case string(name) != "dry_run":
			return false, unknownParameter(name)
		case string(value) != "true" && string(value) != "false":
			return false, fieldErrorf(`The parameter "dry_run" must be true or false.`)
		}
		dryRun = string(value) == "true"
	}
	return dryRun, nil
}

// newRowReader finds out what the body is. Lines of JSON begin with a brace, and a header row of
// CSV does not.
func newRowReader(body io.Reader) (rowReader, error) {
	r := bufio.NewReaderSize(body, MaxBody)
	first, err := firstByte(r)
	if err != nil {
		return nil, err
	}
	if first == '{' {
		return &jsonRows{r: r}, nil
	}
	return newCSVRows(r)
}

// jsonRows reads rows of JSON, one a line.
type jsonRows struct {
	r    *bufio.Reader
	line int
}

func (j *jsonRows) read(into *importRequest) (int, error) {
	for {
		line, err := readLine(j.r)
		j.line++
		if err == errLongLine {
			return j.line, &fieldError{errLongLine.Error()}
		}
		if err != nil {
			return j.line, err
		}
		if len(line) == 0 {
			continue
		}
		if err := decodeObject("line", line, into); err != nil {
			return j.line, &fieldError{err.Error()} // of this row only
		}
		return j.line, nil
	}
}

// readRows reads the next rows: a full batch, or fewer at the end.
func (a *API) readRows(rows rowReader, key *apikey.Key, now time.Time) (batch []shorten.Row, ended bool, err error) {
	batch = make([]shorten.Row, 0, importBatch)
	for len(batch) < importBatch {
		var request importRequest
		line, err := rows.read(&request)
		if err == io.EOF {
			return batch, true, nil
		}
		if body, ok := errors.AsType[*bodyError](err); ok {
			return nil, false, body
		}
		r := shorten.Row{Line: line, Coded: link.Coded{Code: request.Code}}
		if err == nil {
			r.Coded, err = request.coded(a.OwnHosts, now)
		}
		if err == nil {
			r.For, err = request.owner(key)
		}
		if err != nil {
			r.Result, r.Err = shorten.ResultInvalid, err
		}
		batch = append(batch, r)
	}
	return batch, false, nil
}

// coded returns the link that the row describes, with its code.
func (r *importRequest) coded(own link.Hosts, now time.Time) (link.Coded, error) {
	c := link.Coded{Code: r.Code}
	if c.Code == "" {
		c.Code = lastSegment(r.ShortURL)
	}
	if _, err := link.ParseImported(c.Code); err != nil {
		return c, err
	}
	var err error
	if c.Link, err = r.changed(link.Link{}, own, now); err != nil {
		return c, err
	}
	if c.Target == "" { // the row has no URL: say so
		_, err := r.target(own)
		return c, err
	}
	created, given := now, r.CreatedAt.given()
	if given {
		if err := created.UnmarshalText([]byte(r.CreatedAt.value)); err != nil || created.After(now) {
			return c, fieldErrorf(`The field "created_at" must be a time in the past such as 2025-12-31T23:59:59Z (RFC 3339).`)
		}
	}
	return shorten.Imported(c.Code, c.Link, created, given, now), nil
}

// owner returns whose the link becomes, or "" if the row does not say.
func (r *importRequest) owner(key *apikey.Key) (string, error) {
	owner := r.Owner.value
	switch {
	case owner == "" || owner == key.Name:
	case !apikey.IsName(owner):
		return "", fieldErrorf(`The field "owner" must be the name of a key: 1 to 64 letters, digits, dots, hyphens and underscores.`)
	case !key.Scopes.Has(apikey.ScopeAdmin):
		return "", fieldErrorf(`The field "owner" names another key, which takes the scope admin. Without the field the link becomes yours.`)
	}
	return owner, nil
}

// lastSegment returns what follows the last slash of a short URL, which may lack a scheme.
func lastSegment(shortURL string) string {
	shortURL, _, _ = strings.Cut(shortURL, "?")
	_, path, ok := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(shortURL, "https://"), "http://"), "/")
	if !ok {
		return ""
	}
	return path[strings.LastIndexByte(path, '/')+1:]
}

// importReport keeps the answer to an import until it can be sent. It is compressed to some ten
// bytes a row, because rows are many and their lines are alike.
type importReport struct {
	lines  pieces
	to     *flate.Writer
	counts map[shorten.Result]int
	b      []byte
}

func newImportReport() *importReport {
	r := &importReport{counts: make(map[shorten.Result]int)}
	r.to, _ = flate.NewWriter(&r.lines, flate.BestSpeed) // the level is valid
	return r
}

func (r *importReport) add(rows []shorten.Row) {
	r.b = r.b[:0]
	for _, row := range rows {
		r.counts[row.Result]++
		r.b = fmt.Appendf(r.b, `{"line":%d,"code":`, row.Line)
		r.b = appendString(r.b, abbreviated(row.Code))
		r.b = fmt.Appendf(r.b, `,"result":"%s"`, row.Result)
		if row.Result == shorten.ResultConflict {
			r.b = append(r.b, `,"detail":"Another link has this code, or had it within the last 30 days."`...)
		} else if row.Err != nil {
			r.b = append(r.b, `,"detail":`...)
			r.b = appendString(r.b, row.Err.Error())
		}
		r.b = append(r.b, "}\n"...)
	}
	_, _ = r.to.Write(r.b) // into memory, which cannot fail
}

func (r *importReport) end(dryRun bool) {
	b := fmt.Appendf(nil, `{"summary":{"created":%d,"exists":%d,"conflict":%d,"invalid":%d,"dry_run":%t}}`+"\n",
		r.counts[shorten.ResultCreated], r.counts[shorten.ResultExists], r.counts[shorten.ResultConflict], r.counts[shorten.ResultInvalid], dryRun)
	_, _ = r.to.Write(b)
	_ = r.to.Close()
}

func (r *importReport) writeTo(w io.Writer) error {
	_, err := io.Copy(w, flate.NewReader(&r.lines))
	return err
}

// pieces is a buffer that grows piece by piece and frees the pieces that have been read. A
// bytes.Buffer doubles its memory, and holds the old one too while it copies.
type pieces struct {
	all  [][]byte
	size int // of all that was written, in bytes
}

func (p *pieces) Write(b []byte) (n int, err error) {
	const piece = 64 << 10
	n = len(b)
	p.size += n
	for len(b) > 0 {
		last := len(p.all) - 1
		if last < 0 || len(p.all[last]) == cap(p.all[last]) {
			p.all = append(p.all, make([]byte, 0, piece))
			continue
		}
		room := min(len(b), cap(p.all[last])-len(p.all[last]))
		p.all[last] = append(p.all[last], b[:room]...)
		b = b[room:]
	}
	return n, nil
}

func (p *pieces) Read(b []byte) (n int, err error) {
	if len(p.all) == 0 {
		return 0, io.EOF
	}
	n = copy(b, p.all[0])
	if p.all[0] = p.all[0][n:]; len(p.all[0]) == 0 {
		p.all[0] = nil
		p.all = p.all[1:]
	}
	return n, nil
}
