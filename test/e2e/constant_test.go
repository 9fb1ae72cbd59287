package e2e_test

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

// A ratio to the limit means something only if the limit sends what a backend sends: the same
// headers in the same order, and as many bytes.
func TestLimitAnswersAsABackend(t *testing.T) {
	backend := fleettest.Start(t, fleet.Options{Backends: 1, NoNginx: true})
	limit := fleettest.Start(t, fleet.Options{
		Backends: 1, NoNginx: true, NoRedis: true,
		Binary: fleettest.Binary(t, "snowlink/loadtest/limit"), Env: []string{"BASE_URL=" + backend.URL},
	})
	const body = `{"url":"https://example.com/load/12345678/01/0000000001/some/long/page"}`

	create := func(f *fleet.Fleet) string {
		return fmt.Sprintf("POST /generate_url HTTP/1.1\r\nHost: a\r\nAPI-Key: %s\r\nContent-Length: %d\r\n\r\n%s", f.APIKey, len(body), body)
	}
	created := raw(t, backend, create(backend))
	_, code, _ := strings.Cut(created, `"code":"`)
	code, _, _ = strings.Cut(code, `"`)
	alike(t, "create", created, raw(t, limit, create(limit)))
	for _, request := range []string{"GET /" + code, "HEAD /" + code, "GET /ping", "GET /healthz"} {
		request += " HTTP/1.1\r\nHost: a\r\n\r\n"
		alike(t, request, raw(t, backend, request), raw(t, limit, request))
	}
}

// raw returns what the first backend of a fleet answers, byte for byte.
func raw(t *testing.T, f *fleet.Fleet, request string) string {
	t.Helper()
	conn, answers := dial(t, f.Backends[0].URL)
	fmt.Fprint(conn, request)
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil { // the server answers, then closes
		t.Fatal(err)
	}
	answer, err := io.ReadAll(answers)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

func alike(t *testing.T, request, backend, limit string) {
	t.Helper()
	names := func(answer string) (names []string) {
		head, _, _ := strings.Cut(answer, "\r\n\r\n")
		for line := range strings.SplitSeq(head, "\r\n") {
			name, _, _ := strings.Cut(line, ": ")
			names = append(names, name)
		}
		return names
	}
	if backend == "" || len(backend) != len(limit) || !slices.Equal(names(backend), names(limit)) {
		t.Errorf("%q: the backend answers\n%s\nand the limit\n%s", request, backend, limit)
	}
}
