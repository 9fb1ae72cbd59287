package httpapi_test

import (
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"snowlink/internal/fleet/fleettest"
)

// begin sends the first 10,000 bytes of a body of 100,000. With fewer than 8 KiB of it, fasthttp
// would not call the handler yet.
func (b *backend) begin(path, key string) net.Conn {
	b.t.Helper()
	conn, err := b.client.Dial("backend")
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: a\r\nAPI-Key: %s\r\nContent-Length: 100000\r\n\r\n[%s", path, key, strings.Repeat(" ", 9_999)); err != nil {
		b.t.Fatal(err)
	}
	go io.Copy(io.Discard, conn) // or the answer could not be sent
	return conn
}

// scrape reads /metrics.
func (b *backend) scrape() string {
	page := httptest.NewRecorder()
	promhttp.HandlerFor(b.metrics, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	return page.Body.String()
}

// held waits until n bulks and imports are under way.
func (b *backend) held(n int) {
	b.t.Helper()
	fleettest.Eventually(b.t, 5*time.Second, fmt.Sprintf("%d are under way", n), func() bool {
		return strings.Contains(b.scrape(), fmt.Sprintf("\nsnowlink_slots_held %d\n", n))
	})
}

// A backend has three slots here. A key may hold two of them with bulks, and one with an import.
func TestSlots(t *testing.T) {
	b := newBackend(t)
	b.keys.SetNamed(parseKeys(t, keyLine("shop", "shop-key", "scopes=create"), keyLine("mall", "mall-key", "scopes=manage")))
	const body = `[{"url":"https://example.com/"}]`
	refused := func(path, key, why string) {
		t.Helper()
		// The body is never sent.
		a := b.raw("POST " + path + " HTTP/1.1\r\nHost: a\r\nAPI-Key: " + key + "\r\nTransfer-Encoding: chunked\r\n\r\n")
		if detail := wantProblem(t, a, 503, "unavailable"); !strings.Contains(detail, why) || !a.header.ConnectionClose() {
			t.Errorf("%s with %s: %s, and the connection is kept: %t", path, key, detail, !a.header.ConnectionClose())
		}
	}
	first, second := b.begin("/links/bulk", "shop-key"), b.begin("/links/bulk", "shop-key")
	b.held(2)
	refused("/links/bulk", "shop-key", "two bulks under way")
	if _, results := b.bulk(body); results[0].Status != 0 {
		t.Errorf("another key's bulk: %+v", results)
	}
	third := b.begin("/links/import", "mall-key")
	b.held(3)
	refused("/links/import", "mall-key", "an import under way")
	refused("/links/bulk", key, "all the memory")
	wantCreated(t, b.create(`{"url":"https://example.com/"}`))

	// A slot is free again after an answer, a client that went away, and a refusal.
	io.WriteString(first, strings.Repeat(" ", 89_999)+"]")
	b.held(2)
	second.Close()
	b.held(1)
	io.WriteString(third, strings.Repeat("a", 90_000))
	b.held(0)
	first.Close()
	third.Close()

	// It is free after a panic too, before the answer or while it is sent.
	b.store.panics = true
	if a := b.manage("POST", "/links/import", `{"code":"abc","url":"https://example.com/"}`); a.status != 500 {
		t.Errorf("an import that panics = %d", a.status)
	}
	conn, err := b.client.Dial("backend")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /links/bulk HTTP/1.1\r\nHost: a\r\nAPI-Key: %s\r\nContent-Length: %d\r\n\r\n%s", key, len(body), body)
	io.Copy(io.Discard, conn)
	b.held(0)
	b.store.panics = false
	if _, results := b.bulk(body); results[0].Status != 0 {
		t.Errorf("at last: %+v", results)
	}
	for why, n := range map[string]int{"key": 2, "memory": 1} { // TestSlotsOfReaders has those of exports and lists
		if want := fmt.Sprintf("snowlink_slot_refusals_total{reason=%q} %d\n", why, n); !strings.Contains(b.scrape(), want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

// Whoever reads slowly has what is not read yet held for it: also that is bounded.
func TestSlotsOfReaders(t *testing.T) {
	b := newBackend(t)
	const links = 3000 // more pages than the connection holds by itself
	lines := strings.Repeat(`{"url":"https://example.com/`+strings.Repeat("a", 2000)+`"}`+"\n", links)
	if _, results := b.bulk(lines); len(results) != links || results[0].Status != 0 {
		t.Fatalf("%d results, the first %+v", len(results), results[0])
	}
	unread := func(path string) net.Conn {
		t.Helper()
		conn, err := b.client.Dial("backend")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\nAPI-Key: %s\r\n\r\n", path, key)
		return conn
	}
	var exports []net.Conn
	for range 4 {
		exports = append(exports, unread("/links/export"))
	}
	b.held(4)
	if detail := wantProblem(t, b.manage("GET", "/links/export", ""), 503, "unavailable"); !strings.Contains(detail, "four exports under way") {
		t.Error(detail)
	}
	if a := b.manage("GET", "/links?limit=10", ""); a.status != 200 {
		t.Errorf("a short list meanwhile = %d", a.status)
	}
	for _, conn := range exports {
		conn.Close()
	}
	b.held(0)
	if a := b.manage("GET", "/links/export", ""); a.status != 200 {
		t.Errorf("an export afterwards = %d", a.status)
	}
	for range 16 {
		unread("/links?limit=1000")
	}
	b.held(16)
	if detail := wantProblem(t, b.manage("GET", "/links?limit=1000", ""), 503, "unavailable"); !strings.Contains(detail, "16 long lists under way") {
		t.Error(detail)
	}
}
