package httpapi

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// Limits of the HTTP server. fasthttp has none by default.
const (
	// MaxBody and MaxHeaders are in bytes. Nginx in front is set to the same headers and a smaller
	// body.
	MaxBody    = 64 << 10 // but see MaxBulk and MaxImport
	MaxHeaders = 8 << 10

	requestTimeout = 5 * time.Second // to read a request whole, and to write an answer

	// idleTimeout must exceed the 60 s that Nginx keeps its side open, or a create meets a
	// connection we have just closed.
	idleTimeout = 75 * time.Second

	// A refused client is often still sending. To close at once would reset the connection, and the
	// client would lose our answer. So we read on for a while.
	lingerTime  = time.Second
	lingerBytes = 16 << 20
)

// Server makes the fasthttp server that serves the API. Serve it on a RefusalListener.
func (a *API) Server() *fasthttp.Server {
	srv := NewServer()
	srv.Handler = a.screen
	srv.ErrorHandler = a.refuse
	srv.ExpectHandler = a.expect
	srv.Logger = serverLogger{a.Log}
	return srv
}

// NewServer makes a fasthttp server with the limits of the API's and no handler. loadtest/limit
// serves with it too: a ratio between two different servers says nothing.
func NewServer() *fasthttp.Server {
	return &fasthttp.Server{
		ReadTimeout:                  requestTimeout,
		WriteTimeout:                 requestTimeout,
		IdleTimeout:                  idleTimeout,
		MaxRequestBodySize:           MaxBody,
		StreamRequestBody:            true, // the limit is ours to keep then: see readBody
		ReadBufferSize:               MaxHeaders,
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		DisablePreParseMultipartForm: true,
		CloseOnShutdown:              true,
		SecureErrorLogMessage:        true,
	}
}

// screen refuses a request that fasthttp accepts although a proxy might find its end elsewhere. It
// passes all others on.
func (a *API) screen(ctx *fasthttp.RequestCtx) {
	if ambiguous(&ctx.Request.Header) {
		a.refuse(ctx, nil)
		return
	}
	a.handler(ctx)
}

// ambiguous reports whether a request has a transfer coding other than chunked, both chunks and a
// length (RFC 9112, section 6.3), a folded line (5.2), or a version that is neither 1.0 nor 1.1. If
// a proxy in front reads one of these differently, a request can pass it hidden inside another one.
// Nginx refuses them all; not every proxy does. fasthttp has refused all other odd names and values
// before.
func ambiguous(h *fasthttp.RequestHeader) bool {
	if !h.IsHTTP11() && string(h.Protocol()) != "HTTP/1.0" {
		return true
	}
	var chunks, length bool
	for line, rest := []byte(nil), h.RawHeaders(); len(rest) > 0; {
		line, rest, _ = bytes.Cut(rest, []byte{'\n'})
		if len(line) == 0 {
			continue
		}
		switch line[0] { // this runs for every request, and the first byte rules out most lines
		case ' ', '\t':
			return true
		case 'c', 'C':
			_, is := fieldValue(line, "content-length")
			length = length || is
		case 't', 'T':
			if coding, is := fieldValue(line, "transfer-encoding"); is {
				if !bytes.EqualFold(bytes.Trim(coding, " \r"), []byte("chunked")) {
					return true
				}
				chunks = true
			}
		}
	}
	return chunks && length
}

// fieldValue returns the value of a header line, if the line has that name.
func fieldValue(line []byte, name string) (value []byte, is bool) {
	if len(line) <= len(name) || line[len(name)] != ':' || !bytes.EqualFold(line[:len(name)], []byte(name)) {
		return nil, false
	}
	return line[len(name)+1:], true
}

// refuse answers a client whose bytes never became a request.
func (a *API) refuse(ctx *fasthttp.RequestCtx, err error) {
	p, detail := problemInvalidRequest, "This is not a valid HTTP/1.1 request."
	var timeout net.Error
	var headersTooLarge *fasthttp.ErrSmallBuffer
	switch {
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		p, detail = problemBodyTooLarge, tooLarge(bodyLimit(ctx))
	case errors.As(err, &headersTooLarge):
		p, detail = problemHeadersTooLarge, "The request line and headers may have 8,192 bytes at most."
	case errors.As(err, &timeout) && timeout.Timeout():
		p, detail = problemTimeout, "The request did not arrive within 5 seconds."
	}
	ctx.Response.Reset()
	writeProblem(ctx, p, detail)
	hangUp(ctx)
	a.metrics.answered(routeRefused, p.status, 0)
}

// hangUp closes the connection after the answer. More of the request may follow, which must not be
// taken for the next one.
func hangUp(ctx *fasthttp.RequestCtx) {
	ctx.SetConnectionClose()
	if conn, ok := ctx.Conn().(*refusalConn); ok {
		conn.refused.Store(true)
	}
}

// expect answers Expect: 100-continue. It refuses a body that is too large before the client sends
// it.
func (a *API) expect(ctx *fasthttp.RequestCtx) int {
	if ctx.Request.Header.ContentLength() <= bodyLimit(ctx) {
		return fasthttp.StatusContinue
	}
	a.refuse(ctx, fasthttp.ErrBodyTooLarge)
	return ctx.Response.StatusCode()
}

// RefusalListener wraps a listener so that a client whose request was refused before it was read
// whole receives the answer.
func RefusalListener(l net.Listener) net.Listener { return refusalListener{l} }

type refusalListener struct{ net.Listener }

func (l refusalListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &refusalConn{Conn: conn}, nil
}

type refusalConn struct {
	net.Conn
	refused atomic.Bool // a shutdown may close the connection from another goroutine
}

// Close ends our side first if the request was refused. Then it reads what the client still sends,
// for lingerTime and lingerBytes at most.
func (c *refusalConn) Close() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && c.refused.Load() {
		if half.CloseWrite() == nil && c.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
			_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)
		}
	}
	return c.Conn.Close()
}

// serverLogger logs the messages of fasthttp itself, which are about connections and never about
// requests.
type serverLogger struct{ log *slog.Logger }

func (l serverLogger) Printf(format string, args ...any) {
	l.log.Debug("fasthttp", "format", format, "args", args)
}
