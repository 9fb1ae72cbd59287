// Command limit sends the answers of a backend from constants: no routes, no Redis,
// no IDs. No fasthttp program can send these answers faster on the same machine. So a
// backend's speed is stated as a share of the limit's, measured in the same run. Both
// have the same server settings: httpapi.NewServer.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/valyala/fasthttp"

	"snowlink/internal/httpapi"
)

const (
	// The target is as long as those that the wrk scripts send, and the code as long as
	// those that backends mint: both sides read and write the same number of bytes.
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

// run serves until ctx ends. It reads LISTEN and BASE_URL and no other variable. With a
// BASE_URL as long as the backend's, its answers are as long too.
func run(ctx context.Context, listen, baseURL string) error {
	if listen == "" {
		listen = ":8000"
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	srv := httpapi.NewServer()
	srv.Handler = newHandler(baseURL)
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
			_ = ctx.PostBody() // which a streaming server reads only when asked
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
