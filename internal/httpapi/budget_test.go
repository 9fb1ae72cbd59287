//go:build !race

package httpapi_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttputil"

	"snowlink/internal/apikey"
	"snowlink/internal/httpapi"
	"snowlink/internal/link"
	"snowlink/internal/nearcache"
	"snowlink/internal/shorten"
	"snowlink/snowflake"
)

// allocations counts the allocations of one request over a connection that is kept.
func allocations(t *testing.T, srv *fasthttp.Server, request string) float64 {
	t.Helper()
	listener := fasthttputil.NewInmemoryListener()
	defer listener.Close()
	go srv.Serve(listener)
	conn, err := listener.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	var response fasthttp.Response
	return testing.AllocsPerRun(5000, func() {
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		if err := response.Read(reader); err != nil || response.StatusCode() >= 400 {
			t.Fatalf("%d %v", response.StatusCode(), err)
		}
	})
}

// The budget is what we add to the allocations of fasthttp itself. A server that gives the same
// answers from constants shows those. A redirect from the near cache may have one: codeOf makes a
// string of the code.
func TestRequestBudget(t *testing.T) {
	own, mint := link.Hosts{}, func() (snowflake.ID, error) { return 1 << 40, nil }
	m, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	cache := nearcache.New(oneLink{}, 1<<20, time.Hour, m)
	defer cache.Close()
	keys, lines := apikey.NewKeys(key), make([]string, 100)
	for i := range lines {
		lines[i] = keyLine("shop", strconv.Itoa(i), "scopes=create")
	}
	keys.SetNamed(parseKeys(t, lines...))
	api := httpapi.New(context.Background(), httpapi.Config{
		Store: cache, Shortener: shorten.New(cache, nil, mint, m), Ready: func(context.Context) []string { return nil },
		Degraded: func() string { return "" }, BaseURL: baseURL, OwnHosts: own, Keys: keys, Registry: m, Log: log,
		Clicks: discarded{}, CountryHeader: "CF-IPCountry",
	})
	ours := api.Server()
	bare := api.Server()
	bare.Handler = func(ctx *fasthttp.RequestCtx) {
		if ctx.IsGet() {
			ctx.SetStatusCode(fasthttp.StatusFound)
			ctx.Response.Header.Set("Location", "https://example.com/a/page?with=a&query=1")
			ctx.Response.Header.Set("Cache-Control", "private, max-age=0")
		}
	}

	code := snowflake.Encode(115394839571988480)
	body := `{"url":"https://example.com/a/page?with=a&query=1"}`
	for name, tt := range map[string]struct {
		request string
		most    float64
	}{
		"redirect": {"GET /" + code + "?utm_source=a HTTP/1.1\r\nHost: x\r\nUser-Agent: Mozilla/5.0\r\nReferer: https://example.com/\r\n" +
			"X-Forwarded-For: 192.0.2.1\r\nSec-Purpose: prefetch\r\nCF-IPCountry: DE\r\nCookie: a=b\r\n\r\n", 1},
		"create":                  {"POST /generate_url HTTP/1.1\r\nHost: x\r\nAPI-Key: " + key + "\r\nContent-Length: 51\r\n\r\n" + body, 8},
		"create with a named key": {"POST /generate_url HTTP/1.1\r\nHost: x\r\nAPI-Key: 99\r\nContent-Length: 51\r\n\r\n" + body, 8},
	} {
		if strings.HasPrefix(name, "create") && len(body) != 51 {
			t.Fatal(len(body))
		}
		got := allocations(t, ours, tt.request) - allocations(t, bare, tt.request)
		t.Logf("%s: %v allocations", name, got)
		if got > tt.most {
			t.Errorf("%s: %v allocations beyond fasthttp's, want %v at most", name, got, tt.most)
		}
	}
}
