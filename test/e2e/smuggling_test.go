package e2e_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

// TestSmuggling sends shapes that have split one request into two elsewhere, through Nginx and to a
// backend. Each hides a request for a code of its own in a body or a header, and ends with one more
// honest request. Only what was asked for openly may be answered, in its order. The backend must
// have counted no further request. And the next client, for whom Nginx uses the same connection to
// the backend, must get its own answer.
func TestSmuggling(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{Backends: 1})
	// One worker, so that one idle connection to the backend serves all.
	if err := f.Nginx.Edit("nginx.conf", "worker_processes auto;", "worker_processes 1;"); err != nil {
		t.Fatal(err)
	}
	if err := f.Nginx.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	names := map[string]string{} // by target
	codes := map[string]string{} // by name
	for code, target := range create(t, f, 3) {
		name := []string{"own", "hidden", "next"}[len(names)]
		names[target], codes[name] = name, code
	}
	var (
		own    = "GET /" + codes["own"] + " HTTP/1.1\r\nHost: a\r\n"
		hidden = "GET /" + codes["hidden"] + " HTTP/1.1\r\nHost: a\r\n\r\n"
		next   = "GET /" + codes["next"] + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
		post   = "POST /generate_url HTTP/1.1\r\nHost: a\r\nAPI-Key: " + f.APIKey + "\r\n"
		bulk   = strings.Replace(post, "/generate_url", "/links/bulk", 1)
		json   = `{"url":"https://example.com/created"}`
		length = fmt.Sprintf("Content-Length: %d\r\n", len(json))
		chunk  = fmt.Sprintf("%x\r\n%s\r\n", len(json), json)
	)
	const chunked = "Transfer-Encoding: chunked\r\n"

	for _, tt := range []struct {
		name          string
		request       string
		nginx, direct string // the answers, as converse names them
	}{
		{"pipelined", own + "\r\n" + hidden, "own hidden next", "own hidden next"},
		{"GET with a body", own + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(hidden), hidden), "own next", "own next"},
		{"GET with a chunked body", own + chunked + "\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(hidden), hidden), "own next", "own next"},
		{"HEAD with a body", "HEAD" + own[3:] + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(hidden), hidden), "own next", "own next"},
		{"chunks", post + chunked + "\r\n" + chunk + "0\r\n\r\n", "201 next", "201 next"},
		{"trailers", post + chunked + "\r\n" + chunk + "0\r\nX-A: b\r\n\r\n", "201 next", "201 next"},
		{"framing in trailers", post + chunked + "\r\n" + chunk + "0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "201 next", "400"},
		{"too large a body", post + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", 500*len(hidden), strings.Repeat(hidden, 500)), "413", "400 next"},
		{"a body with the wrong key", "POST /generate_url HTTP/1.1\r\nHost: a\r\n" + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(hidden), hidden), "401 next", "401 next"},
		{"TRACE with a body", "TRACE" + own[3:] + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(hidden), hidden), "405", "405 next"},
		{"two lengths", post + length + "Content-Length: 0\r\n\r\n" + json + hidden, "400", "400"},
		{"two equal lengths", post + length + length + "\r\n" + json, "400", "400"},
		{"a list of lengths", post + fmt.Sprintf("Content-Length: %d, %[1]d\r\n\r\n%s", len(json), json), "400", "400"},
		{"length and chunks", own + chunked + "Content-Length: 5\r\n\r\n0\r\n\r\n" + hidden, "400", "400"},
		{"chunks and length", own + "Content-Length: 5\r\n" + chunked + "\r\n0\r\n\r\n" + hidden, "400", "400"},
		{"chunked twice", own + chunked + chunked + "\r\n0\r\n\r\n" + hidden, "400", "400"},
		{"chunked in a list", own + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + hidden, "501", "400"},
		{"chunked after another", own + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + hidden, "501", "400"},
		{"chunked before another", own + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + hidden, "501", "400"},
		{"xchunked", own + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + hidden, "501", "400"},
		{"quoted chunked", own + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n" + hidden, "501", "400"},
		{"identity", own + "Transfer-Encoding: identity\r\n\r\n" + hidden, "501", "400"},
		{"identity and a length", post + "Transfer-Encoding: identity\r\n" + length + "\r\n" + json, "501", "400"},
		{"identity among chunks", own + chunked + "Transfer-Encoding: identity\r\n\r\n0\r\n\r\n" + hidden, "400", "400"},
		{"no transfer encoding", own + "Transfer-Encoding:\r\n\r\n" + hidden, "501", "400"},
		{"space before the colon", own + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + hidden, "400", "400"},
		{"space before the colon of a length", own + "Content-Length : 5\r\n\r\n12345", "400", "400"},
		{"tab before the colon", own + "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n" + hidden, "400", "400"},
		{"tab before chunked", own + "Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n" + hidden, "501", "400"},
		{"vertical tab before chunked", own + "Transfer-Encoding:\vchunked\r\n\r\n0\r\n\r\n" + hidden, "501", "400"},
		{"space before the name", own + " Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, "400", "400"},
		{"underscore in the name", own + "Transfer_Encoding: chunked\r\n\r\n" + hidden, "own hidden next", "own hidden next"},
		{"chunks in HTTP/1.0", "POST /generate_url HTTP/1.0\r\nHost: a\r\nAPI-Key: " + f.APIKey + "\r\nConnection: keep-alive\r\n" + chunked + "\r\n" + chunk + "0\r\n\r\n" + hidden, "400", "400"},
		{"chunks, with capitals", post + "transfer-encoding:  CHUNKED \r\n\r\n" + chunk + "0\r\n\r\n", "201 next", "201 next"},
		{"chunk extension", post + chunked + "\r\n" + strings.Replace(chunk, "\r\n", ";a=b\r\n", 1) + "0;c\r\n\r\n", "201 next", "201 next"},
		{"line feed in a chunk extension", post + chunked + "\r\n" + strings.Replace(chunk, "\r\n", ";a\nb\r\n", 1) + "0\r\n\r\n" + hidden, "400", "400"},
		{"bare line feed after a chunk size", post + chunked + "\r\n" + strings.Replace(chunk, "\r\n", "\n", 1) + "0\r\n\r\n", "201 next or 400", "400"}, // 400 since Nginx 1.29.4
		{"no line end after a chunk", post + chunked + "\r\n" + strings.TrimSuffix(chunk, "\r\n") + "xx0\r\n\r\n" + hidden, "400", "400"},
		{"huge chunk size", post + chunked + "\r\nffffffffffffffff\r\n" + json + hidden, "400", "400"},
		{"chunk size past 64 bits", post + chunked + "\r\n10000000000000005\r\n" + json + hidden, "400", "400"},
		{"chunk size of 0x", post + chunked + "\r\n0x25\r\n" + json + "\r\n0\r\n\r\n", "400", "400"},
		{"negative chunk size", post + chunked + "\r\n-1\r\n" + json + hidden, "400", "400"},
		{"empty chunk size", post + chunked + "\r\n\r\n" + json + hidden, "400", "400"},
		{"negative length", own + "Content-Length: -1\r\n\r\n" + hidden, "400", "400"},
		{"length with a plus", own + "Content-Length: +5\r\n\r\n12345", "400", "400"},
		{"length in hex", own + "Content-Length: 0x5\r\n\r\n12345", "400", "400"},
		{"length with an underscore", own + "Content-Length: 1_0\r\n\r\n1234567890", "400", "400"},
		{"empty length", own + "Content-Length:\r\n\r\n" + hidden, "400", "400"},
		{"length past 64 bits", own + "Content-Length: 18446744073709551617\r\n\r\n1", "400", "400"},
		{"leading zero in a length", post + "Content-Length: 0" + length[len("Content-Length: "):] + "\r\n" + json, "201 next", "201 next"},
		{"bare line feeds", strings.ReplaceAll(own+"X-A: b\r\n\r\n", "\r\n", "\n"), "own next", "own next"},
		{"bare carriage return", own + "X-A: b\rContent-Length: 5\r\n\r\n", "400", "400"},
		{"folded line", own + "X-A: b\r\n Content-Length: 5\r\n\r\n" + hidden, "400", "400"},
		{"folded Transfer-Encoding", own + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + hidden, "400", "400"},
		{"NUL in a header", own + "X-A: b\x00c\r\n\r\n" + hidden, "400", "400"},
		{"NUL in a name", own + "X\x00A: b\r\n\r\n" + hidden, "400", "400"},
		{"no colon", own + "Content-Length\r\n\r\n" + hidden, "400", "400"},
		{"no name", own + ": b\r\n\r\n" + hidden, "400", "400"},
		{"two Hosts", own + "Host: b\r\n\r\n" + hidden, "400", "400"},
		{"no Host", "GET /" + codes["own"] + " HTTP/1.1\r\n\r\n" + hidden, "400", "400"},
		{"space in the target", "GET /" + codes["own"] + " /" + codes["hidden"] + " HTTP/1.1\r\nHost: a\r\n\r\n", "400", "400"},
		{"absolute form", "GET http://b/" + codes["own"] + " HTTP/1.1\r\nHost: a\r\n\r\n", "own next", "own next"},
		{"absolute form with user info", "GET http://u:p@b/" + codes["own"] + " HTTP/1.1\r\nHost: a\r\n\r\n", "400", "own next"},
		{"asterisk form", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", "400", "404 next"},
		{"authority form", "CONNECT b:80 HTTP/1.1\r\nHost: a\r\n\r\n" + hidden, "400", "404 hidden next"},
		{"line ends in the target", "GET /" + codes["own"] + "%0d%0aHost:%20b%0d%0a%0d%0a HTTP/1.1\r\nHost: a\r\n\r\n", "404 next", "404 next"},
		{"HTTP/1.0", "GET /" + codes["own"] + " HTTP/1.0\r\n\r\n" + hidden, "own", "own"},
		{"HTTP/1.0 kept alive", "GET /" + codes["own"] + " HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "own next", "own next"},
		{"HTTP/2.0", "GET /" + codes["own"] + " HTTP/2.0\r\nHost: a\r\n\r\n" + hidden, "505", "400"},
		{"HTTP/0.9", "GET /ping\r\n", "headless", "400"},
		{"HTTP/0.9 with a version", "GET /" + codes["own"] + " HTTP/0.9\r\nHost: a\r\n\r\n" + hidden, "400", "400"},
		{"upgrade to HTTP/2", own + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n" + hidden, "own hidden next", "own hidden next"},
		// Nginx hands these bodies on as they come.
		{"bulk", bulk + fmt.Sprintf("Content-Length: %d\r\n\r\n[%s]", len(json)+2, json), "200 next", "200 next"},
		{"bulk in chunks", bulk + chunked + "\r\n1\r\n[\r\n" + chunk + "1;a=b\r\n]\r\n0\r\nX-A: b\r\n\r\n", "200 next", "200 next"},
		{"bulk with chunks and length", bulk + length + chunked + "\r\n" + chunk + "0\r\n\r\n" + hidden, "400", "400"},
		{"bulk with no line end after a chunk", bulk + chunked + "\r\n" + strings.TrimSuffix(chunk, "\r\n") + "xx0\r\n\r\n" + hidden, "400", "400"},
		{"bulk with a huge chunk size", bulk + chunked + "\r\n" + chunk + "ffffffffffffffff\r\n" + hidden, "400", "400"},
		{"bulk with the wrong key", "POST /links/bulk HTTP/1.1\r\nHost: a\r\n" + chunked + "\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(hidden), hidden), "401 next", "401"},
		{"the body is not waited for", post + "Expect: 100-continue\r\n" + length + "\r\n" + json, "201 next", "201 next"},
	} {
		for _, to := range []struct{ name, url, want string }{{"nginx", f.URL, tt.nginx}, {"direct", f.Backends[0].URL, tt.direct}} {
			t.Run(tt.name+"/"+to.name, func(t *testing.T) {
				before := served(t, f)
				answers := converse(t, to.url, tt.request+next, names)
				if got := strings.Join(answers, " "); !slices.Contains(strings.Split(to.want, " or "), got) {
					t.Errorf("got %q, want %q", got, to.want)
				}
				answers = append(answers, converse(t, f.URL, next, names)...)
				if last := answers[len(answers)-1]; last != "next" {
					t.Errorf("the next client got %q", last)
				}
				good := 0
				for _, a := range answers {
					if slices.Contains([]string{"own", "hidden", "next", "201"}, a) {
						good++
					}
				}
				if got := served(t, f) - before; got != good {
					t.Errorf("the backend served %d requests, the clients saw %d", got, good)
				}
			})
		}
	}
}

// served returns how many requests the first backend has answered with 2xx or 3xx.
func served(t *testing.T, f *fleet.Fleet) int {
	t.Helper()
	return answered(t, f, "redirect", "3xx")[0] + answered(t, f, "create", "2xx")[0]
}

// converse sends bytes and reads until the server closes. It returns, for each answer, the name of
// the link that it leads to, or its status.
func converse(t *testing.T, url, request string, names map[string]string) (answers []string) {
	t.Helper()
	conn, _ := dial(t, url)
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	// A server that refuses may close with bytes unread, which resets the connection.
	got, err := io.ReadAll(conn)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("%v after %q", err, got)
	}
	if len(got) > 0 && !bytes.HasPrefix(got, []byte("HTTP/")) {
		return []string{"headless"} // as HTTP/0.9 has it
	}
	for r := bufio.NewReader(bytes.NewReader(got)); ; {
		if _, err := r.Peek(1); err == io.EOF {
			return answers
		}
		method := "GET"
		if len(answers) == 0 {
			method, _, _ = strings.Cut(request, " ")
		}
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%v in %q", err, got)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatalf("%v in %q", err, got)
		}
		switch name := names[resp.Header.Get("Location")]; {
		case resp.StatusCode == http.StatusContinue:
		case name != "":
			answers = append(answers, name)
		default:
			answers = append(answers, fmt.Sprint(resp.StatusCode))
		}
	}
}
