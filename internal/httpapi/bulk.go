package httpapi

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"snowlink/internal/apikey"
	"snowlink/internal/shorten"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/valyala/fasthttp"
)

const (
	contentNDJSON = "application/x-ndjson"

	MaxItems  = 10_000 // links in a bulk
	bulkBatch = 1000   // links that are created between two parts of the answer

	maxArrayItem = 2 * MaxBody // bytes that are read for an item of an array
)

// bulk answers POST /links/bulk. The body holds creates, as a JSON array or one a line. The answer
// has the same form. It holds, in order, what each create would have been answered: the link or a
// problem. Nothing is stored before the whole body has been read.
func (a *API) bulk(ctx *fasthttp.RequestCtx, key *apikey.Key, body io.Reader) {
	if len(ctx.Request.Header.Peek(headerIdempotencyKey)) > 0 {
		a.fail(ctx, fieldErrorf("A bulk takes no Idempotency-Key. To send it twice safely, choose a code for each link."))
		return
	}
	items, isArray, err := a.readItems(body, ctx.Time())
	if err != nil {
		a.fail(ctx, err)
		return
	}
	contentType, opening, between, closing := contentNDJSON, "", "\n", "\n"
	if isArray {
		contentType, opening, between, closing = contentJSON, "[", ",", "]"
	}
	a.stream(ctx, contentType, bulkTime, func(w io.Writer) error {
		b := []byte(opening)
		for done := 0; done < len(items); {
			batch := items[done:min(done+bulkBatch, len(items))]
			a.Shortener.CreateAll(a.ctx, key.Name, batch)
			for i := range batch {
				if done+i > 0 {
					b = append(b, between...)
				}
				b = a.appendItem(b, done+i, &batch[i])
			}
			if done += len(batch); done < len(items) {
				if _, err := w.Write(b); err != nil {
					return err
				}
				b = b[:0]
			}
		}
		_, err := w.Write(append(b, closing...))
		return err
	})
}

// readItems reads the links to create, as of now. An item that cannot become a link has an error of
// its own. The error that readItems returns is about the whole body.
func (a *API) readItems(body io.Reader, now time.Time) (items []shorten.Item, isArray bool, err error) {
	r := bufio.NewReaderSize(body, MaxBody)
	first, err := firstByte(r)
	if err != nil {
		return nil, false, err
	}
	if isArray = first == '['; isArray {
		items, err = a.readArray(r, now)
	} else {
		items, err = a.readLines(r, now)
	}
	if len(items) > MaxItems {
		err = &bodyError{problemBodyTooLarge, "A bulk may have at most " + thousands(MaxItems) + " links. Send the rest in another one."}
	}
	return items, isArray, err
}

// readArray reads to the end, or until there is one item too many.
func (a *API) readArray(r io.Reader, now time.Time) (items []shorten.Item, err error) {
	// The decoder keeps a whole value in memory, and a body may be a single one.
	b := &budget{r: r, err: &bodyError{problemBodyTooLarge, "An item of an array, with the white space before it, may have at most " + thousands(maxArrayItem) + " bytes. Nothing was stored."}}
	b.left = maxArrayItem
	// decodeObject reports what is wrong within an item.
	d := jsontext.NewDecoder(b, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if _, err = d.ReadToken(); err != nil {
		return nil, notJSON(err, d)
	}
	for d.PeekKind() != ']' {
		b.left = maxArrayItem
		raw, err := d.ReadValue()
		if err != nil {
			return nil, notJSON(err, d)
		}
		b.left = maxArrayItem
		if items = append(items, a.parseItem(raw, now)); len(items) > MaxItems {
			return items, nil
		}
	}
	if _, err = d.ReadToken(); err != nil {
		return nil, notJSON(err, d)
	}
	if _, err = d.ReadToken(); err != io.EOF {
		return nil, notJSON(err, d)
	}
	return items, nil
}

// notJSON returns the error for an array that could not be read to its end.
func notJSON(err error, d *jsontext.Decoder) error {
	if body, ok := errors.AsType[*bodyError](err); ok {
		return body
	}
	return &bodyError{problemInvalidJSON, fmt.Sprintf("The body must be one JSON array, and is not valid at byte %d. Nothing was stored.", d.InputOffset())}
}

// readLines reads to the end, or until there is one item too many. Empty lines are no items.
func (a *API) readLines(r *bufio.Reader, now time.Time) (items []shorten.Item, err error) {
	for {
		line, err := readLine(r)
		switch {
		case err == io.EOF:
			return items, nil
		case err == errLongLine:
			items = append(items, shorten.Item{Err: err})
		case err != nil:
			return nil, err
		case len(line) > 0:
			items = append(items, a.parseItem(line, now))
		}
		if len(items) > MaxItems {
			return items, nil
		}
	}
}

func (a *API) parseItem(raw []byte, now time.Time) shorten.Item {
	var r createRequest
	if err := decodeObject("item", raw, &r); err != nil {
		return shorten.Item{Err: err}
	}
	code, err := r.chosenCode()
	if err != nil {
		return shorten.Item{Err: err}
	}
	l, err := r.link(a.OwnHosts, now)
	if err != nil {
		return shorten.Item{Err: err}
	}
	if code == "" {
		return shorten.MintedItem(l)
	}
	return shorten.ChosenItem(code, l, now)
}

func (a *API) appendItem(b []byte, index int, i *shorten.Item) []byte {
	if i.Err == nil {
		return append(appendLink(b, a.BaseURL+"/"+i.Code, i.Code, i.Link, i.At), '}')
	}
	p, detail := a.explain(i.Err)
	body, err := json.Marshal(struct {
		problemBody
		Index int `json:"index"`
	}{p.body(detail), index})
	if err != nil {
		panic(err)
	}
	return append(b, body...)
}

// errLongLine reports a line that is longer than the body of any other route may be.
var errLongLine error = &bodyError{problemBodyTooLarge, "A line may have at most " + thousands(MaxBody) + " bytes."}

// readLine returns the next line, without its end and the white space around it. The bytes are
// valid until the next call. A line that is too long is skipped, and the error is errLongLine.
// After the last line the error is io.EOF.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		for err == bufio.ErrBufferFull {
			_, err = r.ReadSlice('\n')
		}
		if err == nil || err == io.EOF {
			err = errLongLine
		}
		return nil, err
	}
	if err == io.EOF && len(line) > 0 {
		err = nil
	}
	return bytes.Trim(line, jsonSpace), err
}

// firstByte returns the first byte that is not white space, and leaves it to be read. It skips a
// byte order mark, which spreadsheets write.
func firstByte(r *bufio.Reader) (byte, error) {
	if mark, _ := r.Peek(3); string(mark) == "\uFEFF" {
		_, _ = r.Discard(len(mark))
	}
	for {
		b, err := r.ReadByte()
		if err == io.EOF {
			return 0, &bodyError{problemInvalidJSON, "The body is empty."}
		}
		if err != nil {
			return 0, err
		}
		if strings.IndexByte(jsonSpace, b) < 0 {
			return b, r.UnreadByte()
		}
	}
}
