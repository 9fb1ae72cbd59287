package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"snowlink/internal/apikey"
	"snowlink/internal/httpapi"
	"snowlink/internal/link"
	"snowlink/internal/shorten"
	"snowlink/snowflake"
)

// FuzzRequest: whatever bytes a client sends, the server does not panic and answers no 5xx. Its
// answers are whole HTTP responses: one to each request that it served, in order and to its own
// code, and at most one refusal, the last. If net/http accepts the same bytes as requests, it finds
// the same ones.
func FuzzRequest(f *testing.F) {
	code := snowflake.Encode(115394839571988480)
	get := "GET /" + code + " HTTP/1.1\r\nHost: a\r\n"
	post := "POST /generate_url HTTP/1.1\r\nHost: a\r\nAPI-Key: " + key + "\r\n"
	for _, request := range []string{
		get + "\r\n",
		get + "\r\n" + get + "Connection: close\r\n\r\n" + get + "\r\n",
		"HEAD /ping HTTP/1.0\r\n\r\n",
		"HEAD /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET http://a:b@c/%zz?d#e HTTP/1.1\r\nHost: a\r\n\r\n",
		post + "Content-Length: 30\r\n\r\n{\"url\":\"https://example.com/\"}" + get + "\r\n",
		post + "Transfer-Encoding: chunked\r\n\r\n5;a=b\r\n{\"url\r\n0\r\nX-A: b\r\n\r\n",
		post + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
		post + "Expect: 100-continue\r\nContent-Length: 70000\r\n\r\n",
		get + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
		get + "X-A: b\r\n c\r\n\r\n",
		"PUT /healthz HTTP/1.1\nHost: a\nAuthorization: Bearer\n\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 7\r\n\r\n--b--\r\n",
		post + "Idempotency-Key: k\r\nContent-Length: 43\r\n\r\n{\"url\":\"https://example.com/\",\"code\":\"abc\"}",
		"PATCH /links/" + code + " HTTP/1.1\r\nHost: a\r\nAPI-Key: " + key + "\r\nIf-Match: W/\"1\", \"0\"\r\nIf-Match: *\r\nContent-Length: 13\r\n\r\n{\"title\":\"t\"}",
		"DELETE /links/" + code + " HTTP/1.1\r\nHost: a\r\nAPI-Key: " + key + "\r\n\r\n",
		"GET /links?limit=1&cursor=%00&tag=a&q=%80b&state=gone&from=0000-01-01&to=9999-12-31T23:59:60Z&sort=oldest&owner=* HTTP/1.1\r\nHost: a\r\nAPI-Key: " + key + "\r\n\r\n",
		"GET /" + code + "+ HTTP/1.1\r\nHost: a\r\n\r\nGET /" + code + "/qr?format=png&size=128 HTTP/1.1\r\nHost: a\r\n\r\n",
		"\r\n\r\nGET / HTTP/9.9\r\n\r\n",
		strings.Replace(post, "generate_url", "links/bulk", 1) + "Content-Length: 30\r\n\r\n[{\"url\":\"https://a.test/\"},7 ]" + get + "\r\n",
		strings.Replace(post, "generate_url", "links/bulk", 1) + "Transfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n2\r\n{}\r\n0\r\n\r\n" + get + "\r\n",
		strings.Replace(post, "generate_url", "links/import?dry_run=true", 1) + "Content-Length: 34\r\n\r\nkeyword,url\nabc,\"https://a.test/\"\n" + get + "\r\n",
		"GET /links/export HTTP/1.1\r\nHost: a\r\nAPI-Key: " + key + "\r\nAccept: text/csv\r\n\r\n" + get + "\r\n",
	} {
		f.Add([]byte(request))
	}

	_, own, err := link.ParseBaseURL(baseURL)
	if err != nil {
		f.Fatal(err)
	}
	api := httpapi.New(context.Background(), httpapi.Config{
		Store: echo{}, Shortener: shorten.New(echo{}, echo{}, func() (snowflake.ID, error) { return 115394839571988480, nil }, prometheus.NewRegistry()),
		Ready: func(context.Context) []string { return nil }, Degraded: func() string { return "" },
		BaseURL: baseURL, OwnHosts: own, Keys: apikey.NewKeys(key), Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
	})
	srv := api.Server()
	handler := srv.Handler
	type served struct {
		method, uri, code string
		body              []byte // nil where the handler leaves none, or the connection ends with it
	}
	var requests []served
	srv.Handler = func(ctx *fasthttp.RequestCtx) {
		i, path := len(requests), string(ctx.URI().PathOriginal())
		requests = append(requests, served{method: string(ctx.Method()), uri: string(ctx.RequestURI()), code: strings.TrimPrefix(path, "/")})
		handler(ctx)
		if streams := ctx.IsPost() && (path == "/links/bulk" || path == "/links/import"); !streams && !ctx.Response.ConnectionClose() {
			requests[i].body = append([]byte{}, ctx.PostBody()...)
		}
	}

	f.Fuzz(func(t *testing.T, sent []byte) {
		requests = nil
		conn := &script{in: bytes.NewReader(sent)}
		_ = srv.ServeConn(conn) // what it returns is only logged

		answers := bufio.NewReader(&conn.out)
		for i, refused := 0, false; ; {
			if _, err := answers.Peek(1); err == io.EOF {
				if i < len(requests) {
					t.Fatalf("%d answers to %d requests", i, len(requests))
				}
				break
			}
			asked := served{method: "GET"}
			if i < len(requests) {
				asked = requests[i]
			}
			resp, err := http.ReadResponse(answers, &http.Request{Method: asked.method})
			if err != nil {
				t.Fatalf("answer %d: %v", i, err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatalf("answer %d: %v", i, err)
			}
			if resp.StatusCode == http.StatusContinue {
				continue
			}
			if refused {
				t.Fatalf("%d follows a refusal", resp.StatusCode)
			}
			refused = i >= len(requests)
			switch {
			case resp.StatusCode >= 500, refused && (resp.StatusCode < 400 || !resp.Close):
				t.Fatalf("answer %d is %s", i, resp.Status)
			case resp.StatusCode == http.StatusFound && resp.Header.Get("Location") != targetOf(asked.code):
				t.Fatalf("/%s leads to %q", asked.code, resp.Header.Get("Location"))
			case resp.StatusCode >= 400 && asked.method != "HEAD" && !json.Valid(body):
				t.Fatalf("%s with %q", resp.Status, body)
			}
			i++
		}

		reader := bufio.NewReader(bytes.NewReader(sent))
		for _, ours := range requests {
			theirs, err := http.ReadRequest(reader)
			if err != nil {
				break
			}
			body, err := io.ReadAll(theirs.Body)
			if err != nil {
				break
			}
			if ours.method != theirs.Method || ours.uri != theirs.RequestURI || ours.body != nil && !bytes.Equal(ours.body, body) {
				t.Fatalf("we read %+q, net/http %s %s with %q", ours, theirs.Method, theirs.RequestURI, body)
			}
		}
	})
}

// echo is a store in which every code has a link, each to its own target.
type echo struct{ link.Store }

func targetOf(code string) string { return "https://example.com/" + code }

func (echo) Get(_ context.Context, code string) (link.Link, error) {
	return link.Link{Target: targetOf(code)}, nil
}
func (e echo) Visit(ctx context.Context, code string) (link.Link, error) { return e.Get(ctx, code) }
func (e echo) Read(ctx context.Context, code string) (link.State, error) {
	l, err := e.Get(ctx, code)
	return link.State{Link: l, Version: "0"}, err
}
func (echo) Create(context.Context, string, string, link.Link) error { return nil }
func (echo) CreateAll(_ context.Context, _ string, links []link.Coded) []error {
	return make([]error, len(links))
}
func (echo) Update(_ context.Context, _, _ string, l link.Link) (link.State, error) {
	return link.State{Link: l, Version: "0"}, nil
}
func (echo) List(context.Context, link.Query) (link.Page, error) {
	return link.Page{Links: []link.Coded{{Code: "abc", Link: link.Link{Target: targetOf("abc")}}}}, nil
}

// Promise keeps nothing, so every create is the first.
func (echo) Promise(context.Context, string, string, time.Duration) (string, error) { return "", nil }
func (echo) Promised(context.Context, string) (string, error)                       { return "", nil }
func (echo) Retract(context.Context, string, string) error                          { return nil }

// script is the server's end of a connection whose client has sent everything.
type script struct {
	in  io.Reader
	out bytes.Buffer
}

func (c *script) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *script) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *script) Close() error                     { return nil }
func (c *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *script) SetDeadline(time.Time) error      { return nil }
func (c *script) SetReadDeadline(time.Time) error  { return nil }
func (c *script) SetWriteDeadline(time.Time) error { return nil }
