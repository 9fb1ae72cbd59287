// Command limit answers what a backend answers, from constants: no routes, no
// Redis, no ID. What it reaches on a machine is the most that any fasthttp
// program can reach there with these answers, so a backend's speed is given as
// a share of it, measured in the same run. Its server has the settings of the
// backend's (internal/httpapi): a ratio between two different servers
// says nothing.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	// These are as long as those that the wrk scripts create and the
	// backends mint, so that both sides send and read the same number of bytes.
	target = "https://example.com/load/00000000/00/0000000000/some/long/page"
	code   = "0AbCdEfGhI"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Getenv("LISTEN"), os.Getenv("BASE_URL")); err != nil {
		fmt.Fprintln(os.Stderr, "limit:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends. LISTEN and BASE_URL are the whole of its
// configuration; a BASE_URL as long as the backend's makes answers as long.
func run(ctx context.Context, listen, baseURL string) error {
	if listen == "" {
		listen = ":8000"
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	srv := &fasthttp.Server{
		Handler:               newHandler(baseURL),
		ReadTimeout:           5 * time.Second,
		WriteTimeout:          5 * time.Second,
		IdleTimeout:           75 * time.Second,
		MaxRequestBodySize:    64 << 10,
		StreamRequestBody:     true,
		ReadBufferSize:        8 << 10,
		NoDefaultServerHeader: true,
		NoDefaultContentType:  true,
		CloseOnShutdown:       true,
		SecureErrorLogMessage: true,

		DisablePreParseMultipartForm: true,
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

func newHandler(baseURL string) fasthttp.RequestHandler {
	shortURL := baseURL + "/" + code
	created := `{"short_url":"` + shortURL + `","code":"` + code + `","url":"` + target +
		`","created_at":"2026-01-01T00:00:00.000Z"}`

	return func(ctx *fasthttp.RequestCtx) {
		switch {
		case ctx.IsPost():
			ctx.SetStatusCode(fasthttp.StatusCreated)
			ctx.SetContentType("application/json")
			ctx.Response.Header.Set(fasthttp.HeaderLocation, shortURL)
			ctx.SetBodyString(created)
		case string(ctx.Path()) == "/ping":
			ctx.SetContentType("text/plain; charset=utf-8")
			ctx.SetBodyString("pong")
		case string(ctx.Path()) == "/healthz":
			ctx.SetContentType("application/json")
			ctx.SetBodyString(`{"status":"ok"}`)
		default:
			ctx.SetStatusCode(fasthttp.StatusFound)
			ctx.Response.Header.Set(fasthttp.HeaderLocation, target)
			ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "private, max-age=0")
		}
	}
}
