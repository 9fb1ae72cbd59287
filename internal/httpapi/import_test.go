package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"snowlink/internal/apikey"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/httpapi"
	"snowlink/internal/link"
	"snowlink/internal/shorten"
	"snowlink/snowflake"
)

// outcome is a line of the answer to an import.
type outcome struct {
	Line                 int
	Code, Result, Detail string
	Summary              *struct {
		Created, Exists, Conflict, Invalid int
		DryRun                             bool `json:"dry_run"`
	}
}

// imported sends an import and checks that its summary adds up.
func (b *backend) imported(query, body string) []outcome {
	b.t.Helper()
	a := b.manage("POST", "/links/import"+query, body)
	if a.status != 200 || string(a.header.ContentType()) != "application/x-ndjson" {
		b.t.Fatalf("import = %d %s", a.status, a.body)
	}
	var lines []outcome
	counts := map[string]int{}
	for line := range strings.Lines(a.body) {
		var o outcome
		decode(b.t, line, &o)
		if o.Summary == nil {
			counts[o.Result]++
			lines = append(lines, o)
			continue
		}
		if s := *o.Summary; s.Created != counts["created"] || s.Exists != counts["exists"] || s.Conflict != counts["conflict"] ||
			s.Invalid != counts["invalid"] || s.DryRun != strings.Contains(query, "true") {
			b.t.Fatalf("summary %s of %v", line, counts)
		}
		return lines
	}
	b.t.Fatalf("no summary in %s", a.body)
	return nil
}

func results(lines []outcome) (results []string) {
	for _, l := range lines {
		results = append(results, l.Result)
	}
	return results
}

// sortedLines makes exports comparable, because an import lists links in its own order.
func sortedLines(s string) []string { return slices.Sorted(strings.Lines(s)) }

const manyKinds = `{"url":"https://example.com/plain?a=1,2&b=%22"}
{"url":"https://example.com/own","code":"own-code"}
{"url":"https://example.com/dash","code":"-dash"}
{"url":"https://example.com/all","code":"_all","expires_at":"2099-01-02T03:04:05.678Z","max_visits":7,"status":308,"forward_query":true,"title":"Grüße, \"all\"; of it","tags":["a b","ü"]}
{"url":"https://example.com/f1","title":"=1+2","tags":["-1","@x"]}
{"url":"https://example.com/f2","title":"'quoted'"}
{"url":"https://example.com/f3","title":"'=1"}
`

// aged is an export whose minted codes were minted two minutes before. An import takes those of the
// last minute for chosen ones, since they may be minted yet.
func aged(t *testing.T, export string) string {
	t.Helper()
	var older strings.Builder
	for line := range strings.Lines(export) {
		var row map[string]any
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		if code := row["code"].(string); link.MintedShape(code) {
			id, err := snowflake.Decode(code)
			if err != nil {
				t.Fatal(err)
			}
			row["code"] = snowflake.Encode(id - snowflake.ID((2*time.Minute).Milliseconds()<<22))
			delete(row, "created_at")
		}
		delete(row, "short_url")
		line, err := json.Marshal(row)
		if err != nil {
			t.Fatal(err)
		}
		older.Write(append(line, '\n'))
	}
	return older.String()
}

func TestMovingHouse(t *testing.T) {
	young := newBackend(t)
	_, made := young.bulk(manyKinds)
	for _, r := range made {
		if r.Index != nil {
			t.Fatalf("%+v", r)
		}
	}
	old := newBackend(t)
	if got := results(old.imported("", aged(t, young.manage("GET", "/links/export", "").body))); !slices.Equal(got, slices.Repeat([]string{"created"}, len(made))) {
		t.Fatalf("import of the aged links: %v", got)
	}
	wantShown(t, old.manage("PATCH", "/links/-dash", `{"disabled":true}`), 200)
	old.manage("DELETE", "/links/"+wantCreated(t, old.create(`{"url":"https://example.com/gone"}`)).Code, "")
	whole := old.manage("GET", "/links/export", "").body
	if n := strings.Count(whole, "\n"); n != len(made) {
		t.Fatalf("%d links are exported: %s", n, whole)
	}

	for accept, contentType := range map[string]string{
		"":                                 "application/x-ndjson",
		"application/x-ndjson":             "application/x-ndjson",
		"text/csv":                         "text/csv; charset=utf-8; header=present",
		"text/csv;q=0.1, application/json": "application/x-ndjson",
		"text/html, text/csv;q=0.5, */*":   "text/csv; charset=utf-8; header=present",
	} {
		t.Run(accept, func(t *testing.T) {
			a := old.manage("GET", "/links/export", "", "Accept: "+accept)
			if a.status != 200 || string(a.header.ContentType()) != contentType || string(a.header.Peek("Cache-Control")) != "no-store" {
				t.Fatalf("export = %d %s", a.status, a.header.String())
			}
			b := newBackend(t)
			for i, want := range []string{"created", "created", "exists"} {
				query := ""
				if i == 0 {
					query = "?dry_run=true"
				}
				if got := results(b.imported(query, a.body)); !slices.Equal(got, slices.Repeat([]string{want}, len(made))) {
					t.Errorf("import %d%s: %v", i, query, got)
				}
				if now := b.manage("GET", "/links/export", "").body; i == 0 && now != "" || i > 0 && !slices.Equal(sortedLines(now), sortedLines(whole)) {
					t.Errorf("after import %d%s there is\n%s\nwas\n%s", i, query, now, whole)
				}
			}
			// Redis has the same: a plain link stays plain.
			if x, y := records(t, old), records(t, b); !reflect.DeepEqual(x, y) {
				t.Errorf("records were\n%v\nare\n%v", x, y)
			}
		})
	}
}

// records returns the records of the links that are not gone, without the number that tells two
// creates of one code apart.
func records(t *testing.T, b *backend) map[string]string {
	t.Helper()
	client := fleettest.RedisClient(t, b.redis.Addr)
	all := make(map[string]string)
	for _, k := range client.Keys(t.Context(), "link:*").Val() {
		if v := client.Get(t.Context(), k).Val(); !strings.Contains(v, `"d":true`) {
			all[k] = nonce.ReplaceAllString(v, "")
		}
	}
	return all
}

var nonce = regexp.MustCompile(`,"n":[0-9]+|"n":[0-9]+,`)

func TestExportIsCSV(t *testing.T) {
	b := newBackend(t)
	b.bulk(manyKinds)
	text := b.manage("GET", "/links/export", "", "Accept: text/csv").body
	if !strings.HasPrefix(text, "code,short_url,url,created_at,expires_at,max_visits,status,forward_query,title,tags,disabled,owner\r\n") {
		t.Errorf("header row of %q", text)
	}
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil || len(rows) != 8 {
		t.Fatalf("%d rows: %v", len(rows), err)
	}
	for _, row := range rows {
		for _, cell := range row {
			if cell != "" && strings.Contains("=+-@\t\r", cell[:1]) {
				t.Errorf("the cell %q is a formula", cell)
			}
		}
	}
}

// An export that breaks off must not look like one that ended.
func TestExportBreaksOff(t *testing.T) {
	b := newBackend(t)
	for range 3 {
		b.bulk(strings.Repeat(`{"url":"https://example.com/"}`+"\n", 1000))
	}
	b.store.pages = 0
	wantProblem(t, b.manage("GET", "/links/export", ""), 503, "unavailable")
	b.store.pages = 2
	conn, err := b.client.Dial("backend")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /links/export HTTP/1.1\r\nHost: a\r\nAPI-Key: "+key+"\r\n\r\n")
	answer, err := io.ReadAll(conn)
	if text := string(answer); err != nil || strings.Count(text, "\n{") < 1999 || strings.HasSuffix(text, "0\r\n\r\n") {
		t.Errorf("the answer has %d lines and ends with %q: %v", strings.Count(text, "\n{"), text[max(0, len(text)-20):], err)
	}
	wantProblem(t, b.do("GET", "/links/export", ""), 401, "unauthorized")
	b.store.pages = -1
	if a := b.manage("HEAD", "/links/export", ""); a.status != 200 || a.body != "" {
		t.Errorf("HEAD = %d %s", a.status, a.body)
	}
}

// An export is whole: while the archive is behind, it does not begin, and one that has begun waits a
// moment.
func TestExportWhileTheArchiveIsBehind(t *testing.T) {
	b := newBackend(t)
	for range 2 {
		b.bulk(strings.Repeat(`{"url":"https://example.com/"}`+"\n", 1000))
	}
	b.store.behind = 1
	if detail := wantProblem(t, b.manage("GET", "/links/export", ""), 503, "unavailable"); !strings.Contains(detail, "whole") {
		t.Errorf("detail %q", detail)
	}
	b.store.after, b.store.behind = 1, 2
	if a := b.manage("GET", "/links/export", ""); a.status != 200 || strings.Count(a.body, "\n") != 2000 || b.store.behind != 0 {
		t.Errorf("%d lines, %d pages are incomplete still", strings.Count(a.body, "\n"), b.store.behind)
	}
}

func TestImportOfOthers(t *testing.T) {
	const long = "https://example.com/long?a=1"
	type want struct {
		code, result string // "" is created
		shown
	}
	led := func(code string) want { return want{code: code, shown: shown{URL: long}} }
	titled := func(code, title string, tags ...string) want {
		w := led(code)
		w.Title, w.Tags = title, tags
		return w
	}
	tests := map[string]struct {
		csv  string
		want []want
	}{
		"YOURLS": {
			"keyword,url,title,timestamp,ip,clicks\nabc," + long + ",\"A, title\nover lines\",2020-01-02 03:04:05,127.0.0.1,12\n",
			[]want{titled("abc", "A, title over lines")},
		},
		"YOURLS from a spreadsheet": {
			"\uFEFF\"Keyword\";\"URL\";\"Title\";\"Timestamp\"\r\nabc;" + long + ";" + strings.Repeat("ü", 300) + ";2020-01-02 03:04:05\r\n",
			[]want{titled("abc", strings.Repeat("ü", 255))},
		},
		"Kutt": {
			"id,address,banned,created_at,link,password,target,description,visit_count,expire_in\n" +
				"1,one,false,2020-01-02T03:04:05.000Z,https://kutt.it/one,false," + long + ",what it is,3,\n" +
				"2,two,true,2020-01-02T03:04:05.000Z,https://kutt.it/two,false," + long + ",,3,\n" +
				"3,three,false,2020-01-02T03:04:05.000Z,https://kutt.it/three,true," + long + ",,3,\n" +
				"4,four,false,2020-01-02T03:04:05.000Z,https://kutt.it/four,false," + long + ",,3,2099-01-02T03:04:05.000Z\n" +
				"5,five,false,2020-01-02T03:04:05.000Z,https://kutt.it/five,false," + long + ",,3,2001-01-02T03:04:05.000Z\n",
			[]want{
				titled("one", "what it is"), func() want { w := led("two"); w.Disabled = true; return w }(), {code: "three", result: "invalid"},
				func() want { w := led("four"); w.ExpiresAt = time.Date(2099, 1, 2, 3, 4, 5, 0, time.UTC); return w }(),
				{code: "five", result: "invalid"},
			},
		},
		"Shlink's web client": {
			"createdAt,domain,shortCode,shortUrl,longUrl,title,tags,visits\n2020-01-02T03:04:05+02:00,s.test,abc,https://s.test/abc," + long + ",T,a|b c,7\n",
			[]want{titled("abc", "T", "a", "b c")},
		},
		"Shlink's web client, older": {
			"createdAt,shortUrl,longUrl,title,tags,visits\n2020-01-02T03:04:05+02:00,https://s.test/abc?x=1," + long + ",,\"a,b c\",7\n",
			[]want{titled("abc", "", "a", "b c")},
		},
		"what Shlink imports": {
			"Long URL;Tags;Domain;Short code;Title\n" + long + ";;;abc;T\n",
			[]want{titled("abc", "T")},
		},
		"Bitly": {
			"Title,Link,Custom Link,Long URL,Created,Tags\n" +
				"T,https://bit.ly/3abcdef,https://brand.test/summer," + long + ",2020-01-02T03:04:05+0000,\"a, b\"\n" +
				",bit.ly/3abcdeg,," + long + ",yesterday,\n",
			[]want{titled("summer", "T", "a", "b"), led("3abcdeg")},
		},
		"Bitly by destination": {
			"Bitlink\tDestination URL\nbit.ly/3abcdef\t" + long + "\n",
			[]want{led("3abcdef")},
		},
		// Codes as YOURLS counts them. They have the shape of minted codes: one minted years from
		// now, one never, and one before the link was made.
		"codes that nobody may choose": {
			"keyword,url,timestamp\n1," + long + ",2020-01-02 03:04:05\nzz," + long + ",2020-01-02 03:04:05\nspringsale," + long + ",2020-01-02 03:04:05\n" +
				"springsales," + long + ",2020-01-02 03:04:05\n1234567890," + long + ",2020-01-02 03:04:05\n",
			[]want{led("1"), led("zz"), led("springsale"), led("springsales"), led("1234567890")},
		},
		"codes that cannot be": {
			"keyword,url\n" + strings.Repeat("x", 65) + "," + long + "\nüüü," + long + "\nlinks," + long + "\n," + long + "\nok-1,\nok-2,ftp://a/\nok-3\nok-\"4," + long + "\nok-5," + long + "\n",
			[]want{
				{code: strings.Repeat("x", 40) + "…", result: "invalid"}, {code: "üüü", result: "invalid"}, {code: "links", result: "invalid"},
				{result: "invalid"}, {code: "ok-1", result: "invalid"}, {code: "ok-2", result: "invalid"}, {result: "invalid"}, {result: "invalid"}, led("ok-5"),
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBackend(t)
			for i := range 2 { // the second time all is there
				lines := b.imported("", tt.csv)
				if len(lines) != len(tt.want) {
					t.Fatalf("%+v", lines)
				}
				for n, want := range tt.want {
					if want.result == "" {
						want.result = []string{"created", "exists"}[i]
					}
					if got := lines[n]; got.Code != want.code || got.Result != want.result || (got.Detail == "") != (got.Result != "invalid") || got.Line < 2 {
						t.Errorf("import %d, row %d: %+v, want %s %s", i, n, got, want.code, want.result)
					}
				}
			}
			for _, want := range tt.want {
				if want.result != "" {
					continue
				}
				got := wantShown(t, b.manage("GET", "/links/"+want.code, ""), 200)
				if got.CreatedAt.Year() != 2020 && strings.Contains(tt.csv, "2020") && want.code != "3abcdeg" {
					t.Errorf("%s was made %s", want.code, got.CreatedAt)
				}
				got.ShortURL, got.Code, got.CreatedAt = "", "", time.Time{}
				if !reflect.DeepEqual(got, want.shown) {
					t.Errorf("%s is %+v, want %+v", want.code, got, want.shown)
				}
			}
		})
	}
}

func TestImportLeavesAloneWhatIsThere(t *testing.T) {
	b := newBackend(t)
	b.bulk(`{"url":"https://example.com/1","code":"one"}` + "\n" + `{"url":"https://example.com/2","code":"two"}`)
	b.manage("DELETE", "/links/two", "")
	const rows = `{"url":"https://example.com/other","code":"one"}
{"url":"https://example.com/1","code":"one","title":"new"}
{"url":"https://example.com/1","code":"one"}
{"url":"https://example.com/2","code":"two"}

{"url":"https://example.com/3","code":"three"}
{"url":"https://example.com/4","code":"three"}
not JSON
{"url":"https://example.com/5","code":"five","visits":7}
`
	want := []string{"conflict", "conflict", "exists", "conflict", "created", "conflict", "invalid", "invalid"}
	lines := b.imported("", rows)
	if got := results(lines); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if lines[4].Line != 6 {
		t.Errorf("the row of line 6 is said to be of %d", lines[4].Line)
	}
	for code, target := range map[string]string{"one": "https://example.com/1", "two": "", "three": "https://example.com/3"} {
		if _, got := b.follow(code); got != target {
			t.Errorf("%s leads to %q", code, got)
		}
	}
}

func TestImportBreaksOffAndIsSentAgain(t *testing.T) {
	b := newBackend(t)
	var rows strings.Builder
	for i := range 1200 {
		fmt.Fprintf(&rows, `{"url":"https://example.com/%d","code":"row-%d"}`+"\n", i, i)
	}
	b.store.batches = 1
	a := b.manage("POST", "/links/import", rows.String())
	wantProblem(t, a, 503, "unavailable")
	if !strings.Contains(a.body, "after 500 rows") {
		t.Errorf("answer %s", a.body)
	}
	b.store.batches = -1
	want := append(slices.Repeat([]string{"exists"}, 500), slices.Repeat([]string{"created"}, 700)...)
	if got := results(b.imported("", rows.String())); !slices.Equal(got, want) {
		t.Errorf("again: %v", got)
	}
	if n := b.stored(); n != 1200 {
		t.Errorf("%d links are listed", n)
	}
}

// Links that were stored and not listed, as when the journal's master in a Cluster is away, are
// listed by the next import, and not again by the one after it.
func TestImportListsWhatOneBeforeItDidNot(t *testing.T) {
	b := newBackend(t)
	client := fleettest.RedisClient(t, b.redis.Addr)
	const journal = "journal:" + apikey.DefaultOwner
	client.Set(t.Context(), journal, "no stream", 0)
	minted := snowflake.Encode(1 << 40)
	rows := `{"url":"https://example.com/1","code":"one"}` + "\n" + `{"url":"https://example.com/2","code":"` + minted + `"}` + "\n"
	wantProblem(t, b.manage("POST", "/links/import", rows), 503, "unavailable")
	if _, target := b.follow(minted); target != "https://example.com/2" {
		t.Fatalf("%s leads to %q: the case is not the one meant", minted, target)
	}
	client.Del(t.Context(), journal)
	for i := range 2 {
		if got := results(b.imported("", rows)); !slices.Equal(got, []string{"exists", "exists"}) {
			t.Errorf("again: %v", got)
		}
		names := 0 // an entry may have several
		for _, entry := range client.XRange(t.Context(), journal, "-", "+").Val() {
			value, _ := entry.Values["c"].(string)
			names += len(strings.Fields(value))
		}
		if names != 2 {
			t.Errorf("after import %d the journal names %d links", i+1, names)
		}
	}
	if n := b.stored(); n != 2 {
		t.Errorf("%d links are listed", n)
	}
}

func TestImportRefuses(t *testing.T) {
	b := newBackend(t)
	for name, tt := range map[string]struct {
		query, body string
		status      int
		code        string
	}{
		"empty":           {"", "", 400, "invalid_json"},
		"no header":       {"", "abc,https://example.com/\n", 400, "invalid_request"},
		"no code":         {"", "url,title\nhttps://example.com/,a\n", 400, "invalid_request"},
		"65 columns":      {"", "keyword,url" + strings.Repeat(",x", 63) + "\n", 400, "invalid_request"},
		"unclosed":        {"", "keyword,url\nabc,\"https://example.com/" + strings.Repeat("\nabc,https://example.com/", 5000), 400, "invalid_request"},
		"dry run":         {"?dry_run=1", "keyword,url\n", 400, "invalid_field"},
		"other parameter": {"?dry=true", "keyword,url\n", 400, "invalid_field"},
	} {
		t.Run(name, func(t *testing.T) {
			wantProblem(t, b.manage("POST", "/links/import"+tt.query, tt.body), tt.status, tt.code)
		})
	}
	wantProblem(t, b.do("POST", "/links/import", "keyword,url\nabc,https://example.com/\n"), 401, "unauthorized")
	if n := b.stored(); n != 0 {
		t.Errorf("%d links are stored", n)
	}
	if err := b.redis.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, b.manage("POST", "/links/import", "keyword,url\nabc,https://example.com/\n"), 503, "unavailable")
}

// A row takes time for each of its columns, and no more than that.
func TestImportOfManyColumns(t *testing.T) {
	b := newBackend(t)
	header := "shorturl,longurl" + strings.Repeat(",shorturl", 62)
	row := "\nhttps://bit.ly/many-columns,https://example.com/" + strings.Repeat(",https://bit.ly/many-columns", 62)
	if got := results(b.imported("", header+row)); !slices.Equal(got, []string{"created"}) {
		t.Errorf("a row of 64 columns: %v", got)
	}
	detail := wantProblem(t, b.manage("POST", "/links/import", header+",x"+row+",x"), 400, "invalid_request")
	if !strings.Contains(detail, "64 columns") {
		t.Errorf("a row of 65 columns: %s", detail)
	}
}

// FuzzImport: whatever the body, it is refused, or each of its rows is accounted for.
func FuzzImport(f *testing.F) {
	for _, body := range []string{
		manyKinds, "keyword,url\nabc,https://example.com/\n", "\uFEFFCode;URL;Tags\r\n'-a;https://example.com/;a,b\r\n", "link\tlong url\ttitle\nbit.ly/a-b\t\"https://a.test/\"\t\"a\nb\"\n",
		"address,target,password,expire_in,banned\na-b,https://a.test/,true,x,y\n", "{}\n\n{\"code\":", "code,url,max_visits,status,forward_query,disabled\na-b,http://a.test/,1,301,true,0", "code,url\n\"",
	} {
		f.Add([]byte(body))
	}
	_, own, err := link.ParseBaseURL(baseURL)
	if err != nil {
		f.Fatal(err)
	}
	api := httpapi.New(f.Context(), httpapi.Config{
		Store: echo{}, Shortener: shorten.New(echo{}, echo{}, nil, prometheus.NewRegistry()), Keys: apikey.NewKeys(key), OwnHosts: own, BaseURL: baseURL,
		Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
	})
	srv := api.Server()
	f.Fuzz(func(t *testing.T, body []byte) {
		conn := &script{in: io.MultiReader(
			strings.NewReader(fmt.Sprintf("POST /links/import HTTP/1.1\r\nHost: a\r\nAPI-Key: %s\r\nContent-Length: %d\r\n\r\n", key, len(body))), bytes.NewReader(body),
		)}
		_ = srv.ServeConn(conn)
		resp, err := http.ReadResponse(bufio.NewReader(&conn.out), nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode >= 500 {
			t.Fatalf("%s %s: %v", resp.Status, answer, err)
		}
		if resp.StatusCode != 200 {
			return
		}
		var rows, counted int
		for line := range bytes.Lines(answer) {
			var o outcome
			if err := json.Unmarshal(line, &o); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if s := o.Summary; s != nil {
				counted += s.Created + s.Exists + s.Conflict + s.Invalid
			} else {
				rows++
			}
		}
		if rows != counted || !bytes.Contains(answer, []byte("summary")) {
			t.Fatalf("%d rows, %d counted: %s", rows, counted, answer)
		}
	})
}

// A record that nobody can read is no outage of the store. It keeps its code, closes this one link,
// and stops no import.
func TestUnreadableLink(t *testing.T) {
	b := newBackend(t)
	wantCreated(t, b.create(with(`"code":"bad"`)))
	client := fleettest.RedisClient(t, b.redis.Addr)
	if err := client.Set(t.Context(), "link:bad", "https://example.com/\n{", 0).Err(); err != nil {
		t.Fatal(err)
	}
	for _, a := range []answer{b.do("GET", "/bad", ""), b.do("GET", "/bad+", ""), b.manage("GET", "/links/bad", ""), b.manage("PATCH", "/links/bad", `{}`)} {
		wantProblem(t, a, 503, "unavailable")
		if !strings.Contains(a.body, "cannot be read") {
			t.Errorf("answer %s", a.body)
		}
	}
	rows := `{"url":"https://example.com/","code":"bad"}` + "\n" + `{"url":"https://example.com/","code":"good"}`
	if got := results(b.imported("", rows)); !slices.Equal(got, []string{"conflict", "created"}) {
		t.Errorf("import: %v", got)
	}
}
