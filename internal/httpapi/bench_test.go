package httpapi_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"snowlink/internal/apikey"
	"snowlink/internal/clicks"
	"snowlink/internal/httpapi"
	"snowlink/internal/link"
	"snowlink/internal/nearcache"
	"snowlink/internal/shorten"
	"snowlink/snowflake"
)

// oneLink is a link.Store for budgets, which costs nothing itself.
type oneLink struct{ link.Store }

func (oneLink) Get(context.Context, string) (link.Link, error) {
	return link.Link{Target: "https://example.com/a/page?with=a&query=1", Owner: "shop"}, nil
}
func (oneLink) Create(context.Context, string, string, link.Link) error { return nil }

// BenchmarkHandler measures a request from when fasthttp has read it until fasthttp writes the
// answer, with a store that costs nothing. "constant" measures the same of a server with a constant
// answer.
func BenchmarkHandler(b *testing.B) {
	m := prometheus.NewRegistry()
	cache := nearcache.New(oneLink{}, 1<<20, time.Hour, m)
	defer cache.Close()
	generator, err := snowflake.NewGenerator(1)
	if err != nil {
		b.Fatal(err)
	}
	config := httpapi.Config{
		Store: cache, Shortener: shorten.New(cache, nil, func() (snowflake.ID, error) { return generator.Next(), nil }, m),
		Ready: func(context.Context) []string { return nil }, Degraded: func() string { return "" }, BaseURL: baseURL, OwnHosts: link.Hosts{},
		Keys: apikey.NewKeys(key), Registry: m, Log: slog.New(slog.DiscardHandler),
	}
	api := httpapi.New(context.Background(), config)
	config.Clicks, config.Registry = discarded{}, prometheus.NewRegistry()
	counting := httpapi.New(context.Background(), config)
	run := func(name string, handler fasthttp.RequestHandler, method, path, body string) {
		b.Run(name, func(b *testing.B) {
			var request fasthttp.Request
			request.Header.SetMethod(method)
			request.SetRequestURI("http://x" + path)
			request.Header.Set("API-Key", key)
			for _, h := range browser {
				name, value, _ := strings.Cut(h, ": ")
				request.Header.Set(name, value)
			}
			request.SetBodyString(body)
			var ctx fasthttp.RequestCtx
			ctx.Init(&request, nil, nil)
			b.ReportAllocs()
			for b.Loop() {
				handler(&ctx)
				ctx.Response.Reset()
			}
		})
	}
	handler := api.Server().Handler
	run("redirect", handler, "GET", "/"+snowflake.Encode(generator.Next()), "")
	run("redirect that is recorded", counting.Server().Handler, "GET", "/"+snowflake.Encode(generator.Next()), "")
	run("create", handler, "POST", "/generate_url", `{"url":"https://example.com/a/page?with=a&query=1"}`)
	run("constant", func(ctx *fasthttp.RequestCtx) {
		ctx.SetStatusCode(fasthttp.StatusFound)
		ctx.Response.Header.Set(fasthttp.HeaderLocation, "https://example.com/a/page?with=a&query=1")
		ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "private, max-age=0")
	}, "GET", "/x", "")
}

// discarded takes note of no visit.
type discarded struct{}

func (discarded) Record(clicks.Click)    {}
func (discarded) Miss(string, time.Time) {}
