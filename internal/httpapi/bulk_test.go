package httpapi_test

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"snowlink/internal/httpapi"
	"snowlink/internal/shorten"
	"snowlink/snowflake"
)

// result is the answer to an item of a bulk: a link, or a problem with its own code, status and
// index.
type result struct {
	shown
	Index  *int
	Detail string
}

func (b *backend) bulk(body string, headers ...string) (answer, []result) {
	b.t.Helper()
	a := b.manage("POST", "/links/bulk", body, headers...)
	if a.status != 200 {
		b.t.Fatalf("bulk = %d %s", a.status, a.body)
	}
	text := a.body
	if !strings.HasPrefix(text, "[") {
		text = "[" + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", ",") + "]"
	}
	var results []result
	decode(b.t, text, &results)
	return a, results
}

// stored returns how many links Redis has.
func (b *backend) stored() int {
	b.t.Helper()
	n := 0
	for range strings.Lines(b.manage("GET", "/links/export", "").body) {
		n++
	}
	return n
}

func TestBulk(t *testing.T) {
	const long = `{"url":"https://example.com/`
	items := []string{
		`{"url":"https://example.com/1"}`,
		`{"url":"ftp://example.com/"}`,
		`{"url":"https://example.com/2","code":"own-code","title":"a, \"b\"","tags":["x"],"status":301,"max_visits":2}`,
		`{"url":"https://example.com/3","code":"own-code"}`,
		`{"url":"https://example.com/","ttl":"x"}`,
		`{"url":"https://example.com/","url":"https://example.com/"}`,
		`7`,
		`{"long_url":"https://example.com/4"}`,
		long + strings.Repeat("a", 3000) + `"}`,
		`{"url":"https://example.com/5"}`,
	}
	want := []string{"", "invalid_url", "own-code", "code_taken", "invalid_json", "invalid_json", "invalid_json", "", "invalid_url", ""}

	for _, isArray := range []bool{true, false} {
		t.Run(fmt.Sprintf("array %t", isArray), func(t *testing.T) {
			b := newBackend(t)
			body, contentType := strings.Join(items, "\n"), "application/x-ndjson"
			if isArray {
				body, contentType = "\n[ "+strings.Join(items, " ,\r\n")+" ]\n", "application/json"
			}
			a, results := b.bulk(body)
			if got := string(a.header.ContentType()); got != contentType {
				t.Errorf("Content-Type %q", got)
			}
			if len(results) != len(items) {
				t.Fatalf("%d answers to %d items: %s", len(results), len(items), a.body)
			}
			for i, r := range results {
				if good := want[i] == "" || want[i] == "own-code"; good {
					if r.Index != nil || r.ShortURL != baseURL+"/"+r.Code || r.CreatedAt.IsZero() || want[i] != "" && r.Code != want[i] {
						t.Errorf("item %d: %+v", i, r)
					}
				} else if r.Index == nil || *r.Index != i || r.Code != want[i] || r.Status < 400 || r.Detail == "" {
					t.Errorf("item %d: %+v, want %s", i, r, want[i])
				}
			}
			for i, target := range map[int]string{0: "https://example.com/1", 2: "https://example.com/2", 7: "https://example.com/4"} {
				if _, got := b.follow(results[i].Code); got != target {
					t.Errorf("item %d leads to %q", i, got)
				}
			}
			// A bulk answers what a create does.
			single := b.create(`{"url":"https://example.com/2","code":"own-two","title":"a, \"b\"","tags":["x"],"status":301,"max_visits":2}`).body
			_, again := b.bulk(`[{"url":"https://example.com/2","code":"own-three","title":"a, \"b\"","tags":["x"],"status":301,"max_visits":2}]`)
			single = strings.NewReplacer("own-two", "own-three").Replace(single)
			var one result
			if err := json.Unmarshal([]byte(single), &one); err != nil {
				t.Fatal(err)
			}
			one.CreatedAt = again[0].CreatedAt
			if x, y := fmt.Sprintf("%+v", one), fmt.Sprintf("%+v", again[0]); x != y {
				t.Errorf("a bulk answers %s, a create %s", y, x)
			}
		})
	}
}

func TestBulkOfTenThousand(t *testing.T) {
	b := newBackend(t)
	var body strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&body, `{"url":"https://example.com/a/page?with=a&query=%d"}`+"\n", i)
	}
	start := time.Now()
	_, results := b.bulk(body.String())
	t.Logf("10,000 links in %s", time.Since(start))
	codes := make(map[string]bool)
	for _, r := range results {
		codes[r.Code] = true
	}
	if len(codes) != 10_000 || b.stored() != 10_000 {
		t.Errorf("%d codes, %d links stored", len(codes), b.stored())
	}
	for _, i := range []int{0, 499, 500, 9_999} {
		if _, target := b.follow(results[i].Code); target != fmt.Sprintf("https://example.com/a/page?with=a&query=%d", i) {
			t.Errorf("item %d leads to %q", i, target)
		}
	}

	body.WriteString(`{"url":"https://example.com/one-more"}`)
	for _, body := range []string{body.String(), "[" + strings.ReplaceAll(body.String(), "\n", ",") + "]"} {
		wantProblem(t, b.manage("POST", "/links/bulk", body), 413, "too_large")
	}
	if n := b.stored(); n != 10_000 {
		t.Errorf("%d links are stored after a bulk that is too large", n)
	}
}

func TestBulkRefusesAndStoresNothing(t *testing.T) {
	b := newBackend(t)
	const item = `{"url":"https://example.com/"}`
	for name, tt := range map[string]struct {
		body, header, code string
		status             int
	}{
		"empty":           {"", "", "invalid_json", 400},
		"space":           {" \n", "", "invalid_json", 400},
		"array ends":      {"[" + item, "", "invalid_json", 400},
		"array goes on":   {"[" + item + "]]", "", "invalid_json", 400},
		"two arrays":      {"[" + item + "] [" + item + "]", "", "invalid_json", 400},
		"no comma":        {"[" + item + item + "]", "", "invalid_json", 400},
		"bytes":           {"[" + item + strings.Repeat(" ", httpapi.MaxBulk) + "]", "", "too_large", 413},
		"idempotency key": {"[" + item + "]", "Idempotency-Key: a", "invalid_field", 400},
	} {
		t.Run(name, func(t *testing.T) {
			headers := []string{"API-Key: " + key}
			if tt.header != "" {
				headers = append(headers, tt.header)
			}
			wantProblem(t, b.do("POST", "/links/bulk", tt.body, headers...), tt.status, tt.code)
		})
	}
	wantProblem(t, b.do("POST", "/links/bulk", "["+item+"]"), 401, "unauthorized")
	if a := b.manage("GET", "/links/bulk", ""); a.status != 405 || string(a.header.Peek("Allow")) != "POST" {
		t.Errorf("GET = %d, Allow %q", a.status, a.header.Peek("Allow"))
	}
	if a, results := b.bulk("[]"); len(results) != 0 || a.body != "[]" {
		t.Errorf("an empty array = %s", a.body)
	}

	// A body that is cut off is not taken for a short one.
	conn, err := b.client.Dial("backend")
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "POST /links/bulk HTTP/1.1\r\nHost: a\r\nAPI-Key: "+key+"\r\nContent-Length: 100000\r\n\r\n"+item+"\n")
	conn.Close()
	if n := b.stored(); n != 0 {
		t.Errorf("%d links are stored", n)
	}
}

func TestBulkWithoutNodeOrRedis(t *testing.T) {
	b := newBackend(t)
	mint := b.mint
	b.mint = func() (snowflake.ID, error) { return 0, shorten.ErrNoNode }
	_, results := b.bulk(`[{"url":"https://example.com/"},{"url":"https://example.com/","code":"own"}]`)
	if results[0].Status != 503 || results[0].Code != "unavailable" || results[1].Code != "own" {
		t.Errorf("without a node ID: %+v", results)
	}
	// The same ID is minted again and again. Its code is taken each time.
	id, _ := mint()
	b.mint = func() (snowflake.ID, error) { return id, nil }
	if _, results = b.bulk(`[{"url":"https://example.com/1"}]`); results[0].Code != snowflake.Encode(id) {
		t.Errorf("the first: %+v", results)
	}
	calls := 0
	b.mint = func() (snowflake.ID, error) {
		if calls++; calls < 3 {
			return id, nil
		}
		return mint()
	}
	if _, results = b.bulk(`[{"url":"https://example.com/2"}]`); results[0].URL != "https://example.com/2" || calls != 3 {
		t.Errorf("after two collisions: %+v, minted %d times", results, calls)
	}
	b.mint = func() (snowflake.ID, error) { return id, nil }
	if _, results = b.bulk(`[{"url":"https://example.com/3"}]`); results[0].Status != 503 {
		t.Errorf("without a free code: %+v", results)
	}
	b.mint = mint
	b.store.batches = 1
	_, results = b.bulk("[" + strings.Repeat(`{"url":"https://example.com/"},`, 1500) + `{"url":"ftp:"}]`)
	for i, r := range results {
		if good := i < 1000; good != (r.Index == nil) || i == 1500 && r.Code != "invalid_url" {
			t.Fatalf("item %d: %+v", i, r)
		}
	}
}

// The bodies of other routes have their usual limits, in whichever form they arrive.
func TestBodiesElsewhere(t *testing.T) {
	b := newBackend(t)
	chunked := func(path string, size int) string {
		body := fmt.Sprintf(`{"url":"https://example.com/"%s}`, strings.Repeat(" ", size-len(`{"url":"https://example.com/"}`)))
		var chunks strings.Builder
		for part := range slices.Chunk([]byte(body), 5000) {
			fmt.Fprintf(&chunks, "%x\r\n%s\r\n", len(part), part)
		}
		return "POST " + path + " HTTP/1.1\r\nHost: a\r\nAPI-Key: " + key + "\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks.String() + "0\r\n\r\n"
	}
	for size, status := range map[int]int{100: 201, 8 << 10: 201, 8<<10 + 1: 201, httpapi.MaxBody: 201, httpapi.MaxBody + 1: 413} {
		body := fmt.Sprintf(`{"url":"https://example.com/"%s}`, strings.Repeat(" ", size-len(`{"url":"https://example.com/"}`)))
		if a := b.create(body); a.status != status {
			t.Errorf("%d bytes = %d, want %d", size, a.status, status)
		}
		if a := b.raw(chunked("/links", size)); a.status != status {
			t.Errorf("%d bytes in chunks = %d, want %d", size, a.status, status)
		}
	}
	// A body that no route reads must not stay on the connection, or it would be taken for a
	// request.
	for name, request := range map[string]string{
		"a path without a route": chunked("/links/export", 70_000),
		"an unknown key":         strings.Replace(chunked("/links/bulk", 70_000), key, "nonsense", 1),
		"a method":               strings.Replace(chunked("/links/bulk", 70_000), "POST", "PUT", 1),
	} {
		if a := b.raw(request); a.status < 400 || !a.header.ConnectionClose() {
			t.Errorf("%s = %d, and the connection is kept: %t", name, a.status, !a.header.ConnectionClose())
		}
	}
	// A bulk that is read to its end keeps the connection.
	if a := b.raw(chunked("/links/bulk", 70_000)); a.status != 200 || a.header.ConnectionClose() {
		t.Errorf("a bulk = %d, and the connection is kept: %t", a.status, !a.header.ConnectionClose())
	}
	// Only these two routes may announce a larger body.
	for path, status := range map[string]int{"/links": 413, "/links/bulk": 200} {
		a := b.raw("POST " + path + " HTTP/1.1\r\nHost: a\r\nAPI-Key: " + key + "\r\nExpect: 100-continue\r\nContent-Length: 70000\r\n\r\n" +
			"[" + strings.Repeat(" ", 69_998) + "]")
		if a.status != status {
			t.Errorf("%s with Expect = %d %s, want %d", path, a.status, a.body, status)
		}
	}
}
