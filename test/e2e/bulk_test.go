package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/httpapi"
)

// As many links as a bulk may have are made in one request, exported, and imported again.
func TestBulkThroughNginx(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{})
	c := client(t, "127.0.0.1")
	var body strings.Builder
	for i := range httpapi.MaxItems {
		fmt.Fprintf(&body, `{"url":"https://example.com/%d"}`+"\n", i)
	}
	wantAll := func(how string, resp *http.Response, answer string) {
		t.Helper()
		if n := strings.Count(answer, `"code":"`); resp.StatusCode != 200 || n != httpapi.MaxItems || strings.Contains(answer, `"index"`) {
			t.Fatalf("with %s: %s, %d links, %.200s", how, resp.Status, n, answer)
		}
	}
	start := time.Now()
	resp, answer := do(t, c, "POST", f.URL+"/links/bulk", f.APIKey, body.String())
	t.Logf("%d links in %s", httpapi.MaxItems, time.Since(start))
	wantAll("a length", resp, answer)
	resp, answer = send(t, c, "POST", f.URL+"/links/bulk", f.APIKey, io.MultiReader(strings.NewReader(body.String())))
	wantAll("chunks", resp, answer)

	_, exported := do(t, c, "GET", f.URL+"/links/export", f.APIKey, "")
	if n := strings.Count(exported, "\n"); n != 2*httpapi.MaxItems {
		t.Fatalf("%d links are exported", n)
	}
	resp, answer = send(t, c, "POST", f.URL+"/links/import", f.APIKey, io.MultiReader(strings.NewReader(exported)))
	if summary := fmt.Sprintf(`{"summary":{"created":0,"exists":%d,"conflict":0,"invalid":0,"dry_run":false}}`+"\n", 2*httpapi.MaxItems); resp.StatusCode != 200 || !strings.HasSuffix(answer, summary) {
		t.Errorf("import: %s, %s", resp.Status, answer[max(0, len(answer)-200):])
	}

	// If a backend is away, the next one gets the whole bulk.
	f.Backends[1].Kill()
	for range 6 {
		if resp, answer := do(t, c, "POST", f.URL+"/links/bulk", f.APIKey, `[{"url":"https://example.com/"}]`); resp.StatusCode != 200 || strings.Contains(answer, "index") {
			t.Errorf("with a backend away: %s, %s", resp.Status, answer)
		}
	}
	for _, b := range f.Backends {
		b.Kill()
	}
	resp, answer = do(t, c, "POST", f.URL+"/links/bulk", f.APIKey, `[]`)
	wantProblem(t, resp, answer, 502, "unavailable")
}

// Only bulk and import take large bodies, each up to its own limit.
func TestLimitsOfBulk(t *testing.T) {
	f := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})
	for path, limit := range map[string]int{"/links": 16 << 10, "/links/bulk": httpapi.MaxBulk, "/links/import": httpapi.MaxImport, "/links/bulk/": 16 << 10, "/links/export": 16 << 10} {
		resp, answer := exchange(t, f.URL, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", path, limit+1))
		wantProblem(t, resp, answer, 413, "too_large")
		if limit <= httpapi.MaxBulk {
			resp, answer := do(t, client(t, "127.0.0.1"), "POST", f.URL+path, "", strings.Repeat("a", limit))
			if resp.StatusCode != 200 || answer != fmt.Sprint(limit) {
				t.Errorf("%d bytes to %s: %s, %.100s", limit, path, resp.Status, answer)
			}
		}
	}
}

// A bulk may take longer than a create. Nginx must not send it a second time then.
func TestLongWorkIsDoneOnce(t *testing.T) {
	var calls atomic.Int32
	f := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		time.Sleep(2500 * time.Millisecond) // above the 2 s that Nginx waits for a create
	})
	for _, path := range []string{"/links/bulk", "/links/import"} {
		calls.Store(0)
		if resp, answer := do(t, client(t, "127.0.0.1"), "POST", f.URL+path, "", "[]"); resp.StatusCode != 200 || calls.Load() != 1 {
			t.Errorf("%s: %s after %d calls: %s", path, resp.Status, calls.Load(), answer)
		}
	}
}

// Nginx passes a body on while it arrives.
func TestImportIsNotHeldBack(t *testing.T) {
	first := make(chan string, 1)
	f := upstream(t, func(_ http.ResponseWriter, r *http.Request) {
		line, _ := bufio.NewReader(r.Body).ReadString('\n')
		first <- line
		_, _ = io.Copy(io.Discard, r.Body)
	})
	conn, answers := dial(t, f.URL)
	fmt.Fprint(conn, "POST /links/import HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfirst\n")
	select {
	case line := <-first:
		if line != "first\n" {
			t.Errorf("the backend got %q", line)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the backend waits for the whole body")
	}
	fmt.Fprint(conn, "rest")
	if resp, err := http.ReadResponse(answers, nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("%v %v", resp, err)
	}
}

// If an answer breaks off at a backend, it breaks off for the client too.
func TestExportBreaksOffThroughNginx(t *testing.T) {
	f := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		for range 100 {
			fmt.Fprintln(w, strings.Repeat("a", 1000))
		}
		panic(http.ErrAbortHandler)
	})
	resp, err := client(t, "127.0.0.1").Get(f.URL + "/links/export")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("%d bytes, and a clean end", len(body))
	}
}
