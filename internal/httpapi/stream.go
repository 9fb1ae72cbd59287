package httpapi

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"snowlink/internal/apikey"
)

// Limits of the routes that take or give more than fits in memory. Nginx has the same limits of
// bytes.
const (
	// MaxBulk and MaxImport are the sizes of the largest bodies of these two, in bytes.
	MaxBulk   = 16 << 20
	MaxImport = 256 << 20

	// partTime is how long a slow client may take to send the next part of a body, or to receive a
	// part of an answer. The other times bound a whole body or answer.
	partTime   = 10 * time.Second
	listTime   = time.Minute
	bulkTime   = time.Minute
	importTime = 15 * time.Minute
	exportTime = time.Hour

	// prefetched is how much of a body of known length fasthttp has read before it calls a handler,
	// in bytes.
	prefetched = 8 << 10
)

// bodyLimits are the limits of the routes that read their bodies themselves, as they arrive. All of
// them take POST.
var bodyLimits = map[string]int{"/links/bulk": MaxBulk, "/links/import": MaxImport}

// bodyLimit returns how large the body of the request may be, in bytes.
func bodyLimit(ctx *fasthttp.RequestCtx) int {
	if ctx.IsPost() {
		if limit, ok := bodyLimits[string(ctx.Request.URI().PathOriginal())]; ok {
			return limit
		}
	}
	return MaxBody
}

// readBody reads the whole body, for the routes whose limit is MaxBody. If it returns false, it has
// answered.
func (a *API) readBody(ctx *fasthttp.RequestCtx) bool {
	n := ctx.Request.Header.ContentLength()
	if 0 <= n && n <= prefetched {
		return true // nothing is left that could fail
	}
	var body []byte
	var err error
	switch stream := ctx.RequestBodyStream(); {
	case n > MaxBody:
		err = fasthttp.ErrBodyTooLarge
	case n >= 0:
		body = make([]byte, n)
		_, err = io.ReadFull(stream, body)
	default:
		body, err = io.ReadAll(io.LimitReader(stream, MaxBody+1))
		if len(body) > MaxBody {
			err = fasthttp.ErrBodyTooLarge
		}
	}
	if err != nil {
		a.refuse(ctx, err)
		return false
	}
	ctx.Request.SetBodyRaw(body)
	return true
}

// A bodyError tells the client why its body cannot be used.
type bodyError struct {
	problem problem
	detail  string
}

func (e *bodyError) Error() string { return e.detail }

func tooLarge(limit int) string {
	return "The body may have at most " + thousands(limit) + " bytes."
}

// thousands writes n for people, as 65,536.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// streamed returns the handler of a route that reads its body as it arrives, within a time, and
// holds much of it in memory. Such a request needs a key with the scope, and a slot, which it keeps
// until its answer has been sent.
func (a *API) streamed(route route, scope apikey.Scope, within time.Duration, handler func(ctx *fasthttp.RequestCtx, key *apikey.Key, body io.Reader)) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		body := &arriving{
			ctx: ctx, stream: ctx.RequestBodyStream(), length: ctx.Request.Header.ContentLength(),
			limit: bodyLimit(ctx), until: ctx.Time().Add(within),
		}
		if body.stream == nil {
			body.err = io.EOF
		} else if body.length > body.limit {
			body.err = &bodyError{problemBodyTooLarge, tooLarge(body.limit)}
		}
		defer func() {
			if body.err != io.EOF {
				hangUp(ctx)
			}
		}()
		key, ok := a.authorize(ctx, a.deadline(ctx), scope)
		if !ok {
			return
		}
		release, err := a.slots.take(route, key.Name, SlotMemory)
		if err != nil {
			a.fail(ctx, err)
			return
		}
		defer func() { releaseAfter(ctx, release) }() // after a panic, too
		handler(ctx, key, body)
	}
}

var errBrokeOff = &bodyError{problemInvalidRequest, "The body broke off, or is not valid HTTP/1.1."}

// releaseAfter gives back what the answer was made with: once it has been sent, if it is streamed.
func releaseAfter(ctx *fasthttp.RequestCtx, release func()) {
	if answer, ok := ctx.Response.BodyStream().(*streamedAnswer); ok {
		answer.release = release
	} else {
		release()
	}
}

// arriving is a body that is read as it arrives. Each of its errors is io.EOF or a *bodyError.
type arriving struct {
	ctx           *fasthttp.RequestCtx
	stream        io.Reader
	length, limit int // in bytes; a length below 0 means that it is not known
	until         time.Time
	read          int
	err           error // once it has ended
}

func (b *arriving) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if err := b.ctx.Conn().SetReadDeadline(soonest(partTime, b.until)); err != nil {
		b.err = errBrokeOff
		return 0, b.err
	}
	n, err := b.stream.Read(p)
	b.read += n
	if b.read > b.limit {
		b.err = &bodyError{problemBodyTooLarge, tooLarge(b.limit)}
		return 0, b.err
	}
	if err == io.EOF && b.read < b.length { // fasthttp takes that for the end
		err = io.ErrUnexpectedEOF
	}
	var timeout net.Error
	switch {
	case err == nil || err == io.EOF:
		b.err = err
	case errors.As(err, &timeout) && timeout.Timeout():
		b.err = &bodyError{problemTimeout, "The body did not arrive in time: it stopped for 10 seconds, or took too long in all."}
	default:
		b.err = errBrokeOff
	}
	return n, b.err
}

// soonest returns the deadline of a step that may take so long, of something that must end by
// until.
func soonest(now time.Duration, until time.Time) time.Time {
	if t := time.Now().Add(now); t.Before(until) {
		return t
	}
	return until
}

// stream answers 200 with a body that write makes while it is sent. The client must have sent its
// whole request by then: neither Nginx nor most clients read an answer while they are sending.
//
// If write fails, the body breaks off without the end that HTTP gives it, and so the client
// notices. write must not touch the request.
func (a *API) stream(ctx *fasthttp.RequestCtx, contentType string, within time.Duration, write func(io.Writer) error) {
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	ctx.SetContentType(contentType)
	ctx.SetBodyStream(&streamedAnswer{
		api: a, conn: ctx.Conn(), began: ctx.Time(), until: time.Now().Add(within), write: write, status: fasthttp.StatusOK,
	}, -1)
}

var _ fasthttp.BodyWriterTo = (*streamedAnswer)(nil)

// streamedAnswer is the body of an answer that is made while it is sent, as fasthttp sees it.
type streamedAnswer struct {
	api          *API
	route        route
	conn         net.Conn
	began, until time.Time
	write        func(io.Writer) error
	status       int
	release      func() // gives back the slot of the request; nil if it has none
}

// WriteTo sends the answer, in chunks as large as write makes them.
func (s *streamedAnswer) WriteTo(w io.Writer) (n int64, err error) {
	out := &leaving{w: w, conn: s.conn, until: s.until}
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
		if err != nil && out.err == nil { // it was not the client who went away
			p, _ := s.api.explain(err)
			s.status = p.status
		}
		n = out.n
	}()
	return 0, s.write(out)
}

// SupportsBodyWriteTo makes fasthttp call WriteTo and never Read.
func (s *streamedAnswer) SupportsBodyWriteTo() bool { return true }

func (s *streamedAnswer) Read([]byte) (int, error) { return 0, errors.ErrUnsupported }

// Close counts the request, whose answer has ended. fasthttp calls it once, whether the answer was
// sent or, as for HEAD, not.
func (s *streamedAnswer) Close() error {
	if s.release != nil {
		s.release()
	}
	s.api.metrics.answered(s.route, s.status, time.Since(s.began))
	return nil
}

// leaving is an answer on its way to the client.
type leaving struct {
	w     io.Writer
	conn  net.Conn
	until time.Time
	n     int64
	err   error
}

func (l *leaving) Write(p []byte) (n int, err error) {
	if err = l.conn.SetWriteDeadline(soonest(partTime, l.until)); err == nil {
		n, err = l.w.Write(p)
	}
	l.n += int64(n)
	l.err = err
	return n, err
}
