package httpapi

import (
	"bufio"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"snowlink/internal/link"
	"snowlink/snowflake"
)

const (
	importBatch = 500 // rows that are looked up and stored together

	// maxRows bounds what is kept of an import until its answer is sent. A key
	// has no more links to export than its journal, which is half as long unless
	// JOURNAL_MAX says otherwise.
	maxRows = 2_000_000

	// maxReport bounds the same in bytes. Compressed, 2,000,000 rows with minted codes are
	// 14 MiB, and with random ones of 64 characters 90 MiB.
	maxReport = 32 << 20

	// A store that cannot tell is asked again, importTries times in all: an import
	// takes long enough to meet an outage of a moment.
	importTries = 4
	importWait  = 500 * time.Millisecond

	// unfinishedTime is how long it is remembered which rows an import broke off at.
	unfinishedTime = 7 * 24 * time.Hour
)

// importRequest is a row of an import: what an export writes of a link.
type importRequest struct {
	changeRequest
	Code      string        `json:"code"`
	ShortURL  string        `json:"short_url"`
	CreatedAt field[string] `json:"created_at"`
}

// row is a row of an import and what becomes of it.
type row struct {
	line int // of the body, the first being 1
	link.Coded
	result importResult
	err    error // why it is not stored
}

// importResult is what became of a row, or would.
type importResult string

const (
	resultCreated  importResult = "created"
	resultExists   importResult = "exists"   // an equal link has the code
	resultConflict importResult = "conflict" // another one has, or had it until lately
	resultInvalid  importResult = "invalid"
)

// A rowReader reads rows. An error that is io.EOF or a *bodyError ends them all;
// any other is that of one row.
type rowReader interface {
	read(*importRequest) (line int, err error)
}

// importLinks answers POST /links/import: links under the codes they had, from an
// export or from the CSV of another service. It holds a batch of rows at a time. A
// row that cannot be stored spoils no other, and what is there already is left
// alone, so that an import that broke off can be sent again.
//
// The answer says a line a row what became of it, and at last how many. It is sent
// when all has been read, and so has a status that tells whether it broke off.
func (a *API) importLinks(ctx *fasthttp.RequestCtx, owner string, body io.Reader) {
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
		if err := a.finishImport(owner); err != nil {
			a.fail(ctx, err)
			return
		}
	}
	report := newImportReport()
	done := 0
	for ended := false; !ended; {
		var batch []row
		if batch, ended, err = a.readRows(rows, ctx.Time()); err == nil {
			err = a.importRows(owner, batch, dryRun)
		}
		if err == nil && (done+len(batch) > maxRows || report.lines.size > maxReport) {
			err = &bodyError{problemBodyTooLarge, "An import may have " + thousands(maxRows) + " rows at most, and fewer if their codes are long; send the rest in another."}
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

func parseImportQuery(args *fasthttp.Args) (dryRun bool, err error) {
	for name, value := range args.All() {
		switch {
		case string(name) != "dry_run":
			return false, fieldErrorf("The parameter %q is not known.", shorten(string(name)))
		case string(value) != "true" && string(value) != "false":
			return false, fieldErrorf(`The parameter "dry_run" must be true or false.`)
		}
		dryRun = string(value) == "true"
	}
	return dryRun, nil
}

// newRowReader finds out what the body is: lines of JSON begin with a brace, and
// no header row does.
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

// jsonRows are rows of JSON, one a line.
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
		if detail := decodeObject("line", line, into); detail != "" {
			return j.line, &fieldError{detail}
		}
		return j.line, nil
	}
}

// readRows reads the next rows, fewer at the end.
func (a *API) readRows(rows rowReader, now time.Time) (batch []row, ended bool, err error) {
	batch = make([]row, 0, importBatch)
	for len(batch) < importBatch {
		var request importRequest
		line, err := rows.read(&request)
		if err == io.EOF {
			return batch, true, nil
		}
		if body, ok := errors.AsType[*bodyError](err); ok {
			return nil, false, body
		}
		r := row{line: line, Coded: link.Coded{Code: request.Code}}
		if err == nil {
			r.Coded, err = request.coded(a.Own, now)
		}
		if err != nil {
			r.result, r.err = resultInvalid, err
		}
		batch = append(batch, r)
	}
	return batch, false, nil
}

// coded is the link that the row describes, with its code.
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
	if c.Target == "" { // there was none that could have been wrong
		_, err := r.target(own)
		return c, err
	}
	created, given := now, r.CreatedAt.given()
	if given {
		if err := created.UnmarshalText([]byte(r.CreatedAt.value)); err != nil || created.After(now) {
			return c, fieldErrorf(`The field "created_at" must be a time in the past such as 2025-12-31T23:59:59Z (RFC 3339).`)
		}
	}
	// A minted code says when its link was made, and so the record need not. A word of
	// ten letters says a time, too, if seldom the one that the row has.
	if id, err := snowflake.Decode(c.Code); err == nil && link.MintedShape(c.Code) && !id.Time().After(now) && (!given || id.Time().Equal(created)) {
		return c, nil
	}
	c.Link = ownMade(c.Code, c.Link, created, 0).Link // the same row is the same link
	return c, nil
}

// lastSegment is what follows the last slash of a short URL, which need not have
// a scheme.
func lastSegment(shortURL string) string {
	shortURL, _, _ = strings.Cut(shortURL, "?")
	_, path, ok := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(shortURL, "https://"), "http://"), "/")
	if !ok {
		return ""
	}
	return path[strings.LastIndexByte(path, '/')+1:]
}

// importRows stores the rows that are valid and whose codes are free, unless it is
// a dry run, and says what became of each. An error is that of the whole import.
func (a *API) importRows(owner string, rows []row, dryRun bool) error {
	// Looked up together, they share round trips.
	var wg sync.WaitGroup
	errs := make([]error, len(rows))
	for i := range rows {
		if r := &rows[i]; r.err == nil {
			wg.Go(func() { errs[i] = a.lookUp(r) })
		}
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if dryRun {
		return nil
	}
	links := make([]link.Coded, 0, len(rows))
	free := make([]*row, 0, len(rows))
	codes := make([]string, 0, len(rows))
	for i := range rows {
		if r := &rows[i]; r.result == resultCreated {
			links, free, codes = append(links, r.Coded), append(free, r), append(codes, r.Code)
		}
	}
	if len(links) == 0 {
		return nil
	}
	if _, err := a.remember(owner, codes); err != nil {
		return err
	}
	for i, err := range a.createPatiently(owner, links) {
		switch {
		case err == nil:
			a.Metrics.Created()
		case errors.Is(err, link.ErrExists): // the row before it has it, or somebody was faster
			if err := a.lookUp(free[i]); err != nil {
				return err
			}
		default:
			return err
		}
	}
	return a.forget(owner, codes)
}

// finishImport lists what an import of the owner that broke off has stored. Some of
// it may be in no journal, and the rows, sent again, would find the links and leave
// them alone. Of two imports at once, one may list some links of the other twice.
func (a *API) finishImport(owner string) error {
	codes, err := a.remember(owner, nil)
	if err != nil {
		return err
	}
	if len(codes) == 0 {
		return a.forget(owner, codes)
	}
	states, errs := make([]link.State, len(codes)), make([]error, len(codes))
	var wg sync.WaitGroup
	for i, code := range codes { // not GetAll, by which the links would look used
		wg.Go(func() { states[i], errs[i] = a.Store.Read(a.ctx, code) })
	}
	wg.Wait()
	var stored []link.Coded
	for i, err := range errs {
		if err == nil {
			stored = append(stored, link.Coded{Code: codes[i], Link: states[i].Link})
		} else if !errors.Is(err, link.ErrNotFound) && !errors.Is(err, link.ErrUnreadable) { // which the import did not write
			return err
		}
	}
	for _, err := range a.createPatiently(owner, stored) { // again, which lists them
		if err != nil && !errors.Is(err, link.ErrExists) { // changed just now, and so no longer of that import
			return err
		}
	}
	return a.forget(owner, codes)
}

// importName is where an import of the owner remembers the codes that it is about
// to store. No other name has a colon.
func importName(owner string) string { return "import:" + owner }

// remember keeps the codes until forget, unless there are others, which it returns.
func (a *API) remember(owner string, codes []string) (before []string, err error) {
	var first string
	err = patiently(func() (err error) {
		first, err = a.Memory.Remember(a.ctx, importName(owner), rememberedCodes(codes), unfinishedTime)
		return err
	})
	return strings.FieldsFunc(first, func(r rune) bool { return r == ',' }), err
}

// forget ends what remember keeps, unless another import keeps other codes by now.
func (a *API) forget(owner string, codes []string) error {
	return patiently(func() error { return a.Memory.Forget(a.ctx, importName(owner), rememberedCodes(codes)) })
}

// rememberedCodes is never empty, which would mean that nothing is remembered.
func rememberedCodes(codes []string) string { return strings.Join(codes, ",") + "," }

// patiently is f that outlasts a short outage.
func patiently(f func() error) error {
	for try := 1; ; try++ {
		if err := f(); try == importTries || !isOutage(err) {
			return err
		}
		time.Sleep(importWait)
	}
}

// createPatiently is Store.CreateAll that outlasts a short outage.
func (a *API) createPatiently(owner string, links []link.Coded) (errs []error) {
	_ = patiently(func() error {
		errs = a.Store.CreateAll(a.ctx, owner, links) // to repeat one is safe
		if i := slices.IndexFunc(errs, isOutage); i >= 0 {
			return errs[i]
		}
		return nil
	})
	return errs
}

func isOutage(err error) bool { return errors.Is(err, link.ErrUnavailable) }

// lookUp says what becomes of the row if it is imported.
func (a *API) lookUp(r *row) error {
	var s link.State
	err := patiently(func() (err error) {
		s, err = a.Store.Read(a.ctx, r.Code)
		return err
	})
	switch {
	case errors.Is(err, link.ErrNotFound):
		r.result = resultCreated
	case errors.Is(err, link.ErrUnreadable): // it has the code, whatever it is
		r.result = resultConflict
	case err != nil:
		return err
	case equalButCreated(s.Link, r.Link):
		r.result = resultExists
	default:
		r.result = resultConflict
	}
	return nil
}

// equalButCreated reports whether two links are equal but for their creation: who
// imports a link without its time, twice, has two.
func equalButCreated(a, b link.Link) bool {
	plain := func(o *link.Options) (p link.Options) {
		if o != nil {
			p = *o
		}
		p.Created, p.Nonce = time.Time{}, 0
		return p
	}
	return a.Target == b.Target && reflect.DeepEqual(plain(a.Options), plain(b.Options))
}

// importReport is the answer to an import until it can be sent. It is compressed,
// to some ten bytes a row: rows are many, and their lines are alike.
type importReport struct {
	lines  pieces
	to     *flate.Writer
	counts map[importResult]int
	b      []byte
}

func newImportReport() *importReport {
	r := &importReport{counts: make(map[importResult]int)}
	r.to, _ = flate.NewWriter(&r.lines, flate.BestSpeed) // the level is valid
	return r
}

func (r *importReport) add(rows []row) {
	r.b = r.b[:0]
	for _, row := range rows {
		r.counts[row.result]++
		r.b = fmt.Appendf(r.b, `{"line":%d,"code":`, row.line)
		r.b = appendString(r.b, shorten(row.Code))
		r.b = fmt.Appendf(r.b, `,"result":"%s"`, row.result)
		if row.result == resultConflict {
			r.b = append(r.b, `,"detail":"The code stands for another link, or did until lately."`...)
		} else if row.err != nil {
			r.b = append(r.b, `,"detail":`...)
			r.b = appendString(r.b, row.err.Error())
		}
		r.b = append(r.b, "}\n"...)
	}
	_, _ = r.to.Write(r.b) // into memory
}

func (r *importReport) end(dryRun bool) {
	b := fmt.Appendf(nil, `{"summary":{"created":%d,"exists":%d,"conflict":%d,"invalid":%d,"dry_run":%t}}`+"\n",
		r.counts[resultCreated], r.counts[resultExists], r.counts[resultConflict], r.counts[resultInvalid], dryRun)
	_, _ = r.to.Write(b)
	_ = r.to.Close()
}

func (r *importReport) writeTo(w io.Writer) error {
	_, err := io.Copy(w, flate.NewReader(&r.lines))
	return err
}

// pieces is a buffer that grows by a piece at a time and gives back those that have been
// read. A bytes.Buffer doubles, and holds both halves meanwhile.
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
