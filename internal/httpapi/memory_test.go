//go:build !race

package httpapi_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"snowlink/internal/apikey"
	"snowlink/internal/httpapi"
	"snowlink/internal/link"
	"snowlink/internal/shorten"
	"snowlink/snowflake"
)

// weighed is a connection that measures how much memory is in use, after each MiB of a request and
// at each part of the answer.
type weighed struct {
	script
	read   int
	peak   uint64
	answer []byte // as it begins
}

func (c *weighed) weigh() {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	c.peak = max(c.peak, m.HeapAlloc)
}

func (c *weighed) Read(p []byte) (int, error) {
	n, err := c.script.Read(p)
	if before := c.read >> 20; (c.read+n)>>20 > before || err != nil {
		c.weigh()
	}
	c.read += n
	return n, err
}

func (c *weighed) Write(p []byte) (int, error) {
	if len(c.answer) < 1000 {
		c.answer = append(c.answer, p...)
		c.weigh()
	}
	return len(p), nil
}

// repeated returns a reader of n times what next makes, of at most limit bytes in all.
func repeated(n, limit int, next func(i int) string) io.Reader {
	i := 0
	var rest strings.Reader
	return readerFunc(func(p []byte) (int, error) {
		if rest.Len() == 0 {
			s := ""
			if i < n {
				s = next(i)
			}
			if i++; s == "" || len(s) > limit {
				return 0, io.EOF
			}
			limit -= len(s)
			rest.Reset(s)
		}
		return rest.Read(p)
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A slot is as much memory as the largest request takes. So what a fleet is told about its memory
// holds.
func TestSlotIsLargeEnough(t *testing.T) {
	_, own, err := link.ParseBaseURL(baseURL)
	if err != nil {
		t.Fatal(err)
	}
	generator, err := snowflake.NewGenerator(1)
	if err != nil {
		t.Fatal(err)
	}
	srv := httpapi.New(t.Context(), httpapi.Config{
		Store: echo{}, Shortener: shorten.New(echo{}, echo{}, func() (snowflake.ID, error) { return generator.Next(), nil }, prometheus.NewRegistry()),
		BaseURL: baseURL, OwnHosts: own, Keys: apikey.NewKeys(key), Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
	}).Server()
	title, tags := strings.Repeat("\U0001F600", 255), strings.Repeat("t", 50)
	random := rand.New(rand.NewPCG(1, 2))
	code := func() string {
		b := make([]byte, 64)
		for i := range b {
			b[i] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"[random.IntN(64)]
		}
		return string(b)
	}
	long := strings.Repeat("a", httpapi.MaxBulk/10_000-50)
	for _, tt := range []struct {
		name, path string
		body       io.Reader
		status     string
	}{
		{"long lines", "bulk", repeated(10_000, httpapi.MaxBulk, func(i int) string {
			return fmt.Sprintf(`{"url":"https://example.com/%05d%s"}`+"\n", i, long)
		}), "200"},
		{"targets that grow", "bulk", repeated(10_000, httpapi.MaxBulk, func(i int) string {
			return fmt.Sprintf(`{"url":"https://example.com/?%05d%s","title":"%s","tags":["%s"]}`+"\n", i, strings.Repeat("<", 660), title[:800], tags)
		}), "200"},
		{"one item", "bulk", io.MultiReader(strings.NewReader(`[{"url":"`), repeated(1<<30, httpapi.MaxBulk-100, func(int) string { return long })), "413"},
		{"one line", "bulk", io.MultiReader(strings.NewReader(`{"url":"`), repeated(1<<30, httpapi.MaxBulk-100, func(int) string { return long })), "200"},
		{"random codes", "import", repeated(2_000_000, httpapi.MaxImport, func(i int) string {
			return fmt.Sprintf(`{"code":"%s","url":"https://example.com/"}`+"\n", code())
		}), "413"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			request := "POST /links/" + tt.path + " HTTP/1.1\r\nHost: a\r\nAPI-Key: " + key + "\r\nTransfer-Encoding: chunked\r\n\r\n"
			c := &weighed{}
			c.in = io.MultiReader(strings.NewReader(request), chunks(tt.body), strings.NewReader("0\r\n\r\n"))
			c.weigh()
			before := c.peak
			_ = srv.ServeConn(c)
			t.Logf("%d MiB read, %.1f MiB held", c.read>>20, float64(c.peak-before)/(1<<20))
			if !bytes.HasPrefix(c.answer, []byte("HTTP/1.1 "+tt.status)) {
				t.Errorf("answered %s", c.answer)
			}
			if held := c.peak - before; held > httpapi.SlotMemory {
				t.Errorf("%d bytes were held, of a slot of %d", held, httpapi.SlotMemory)
			}
		})
	}
}

// chunks encodes a body of unknown length in chunks.
func chunks(body io.Reader) io.Reader {
	part := make([]byte, 1<<20)
	return repeated(1<<30, 1<<40, func(int) string {
		n, _ := io.ReadFull(body, part)
		if n == 0 {
			return ""
		}
		return fmt.Sprintf("%x\r\n%s\r\n", n, part[:n])
	})
}
