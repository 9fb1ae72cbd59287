package httpapi_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/httpapi"
	"snowlink/internal/redisstore"
)

// Nginx must not give up before we do: it would take the backends of a slow Redis for dead.
func TestRequestTimeIsBelowNginxs(t *testing.T) {
	root, err := fleet.ModuleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conf, err := os.ReadFile(filepath.Join(root, "nginx", "snippets", "proxy.conf"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^proxy_read_timeout\s+(\w+);`).FindSubmatch(conf)
	if m == nil {
		t.Fatal("proxy.conf has no proxy_read_timeout")
	}
	waits, err := time.ParseDuration(string(m[1]))
	if spare := waits - httpapi.RequestTime; err != nil || spare < 250*time.Millisecond {
		t.Errorf("Nginx waits for %s, a request takes %s, %v: want a quarter of a second between", waits, httpapi.RequestTime, err)
	}
}

// A request is answered before Nginx gives up, however many trips to Redis it takes and however
// slow each is. The answer says that it may have been done.
func TestRequestHasOneDeadline(t *testing.T) {
	const soon = 1900 * time.Millisecond
	var delay atomic.Int64
	var sent atomic.Bool // the change at last
	b := newBackendVia(t, func(addr string) string {
		return fleettest.Proxy(t, addr, func(piece []byte, send func([]byte)) {
			if bytes.Contains(piece, []byte(redisstore.ChangesChannel)) && bytes.Contains(piece, []byte("done")) {
				sent.Store(true)
			}
			time.Sleep(time.Duration(delay.Load()))
			send(piece)
		})
	})
	b.keys.SetNamed(parseKeys(t, keyLine("shop", "rated", "scopes=create,manage,read,admin rate=1000/s")))
	rated := func(method, path, body string, headers ...string) (a answer, took time.Duration) {
		began := time.Now()
		a = b.do(method, path, body, append(headers, "API-Key: rated")...)
		return a, time.Since(began)
	}
	made, _ := rated("POST", "/links", with(`"code":"slow"`))
	wantCreated(t, made)
	rated("PATCH", "/links/slow", `{"title":"before"}`) // Redis knows the scripts then

	delay.Store(int64(420 * time.Millisecond))
	for _, r := range [][]string{
		{"PATCH", "/links/slow", `{"title":"at 420 ms"}`}, {"DELETE", "/links/unknown", ""}, {"GET", "/links/slow", ""}, {"GET", "/links", ""},
		{"POST", "/links", with(`"code":"other"`), "Idempotency-Key: k"},
	} {
		if a, took := rated(r[0], r[1], r[2], r[3:]...); took > soon {
			t.Errorf("%s %s with Redis 420 ms away: %d after %s", r[0], r[1], a.status, took)
		}
	}
	// Four trips do not fit. The last one is sent, unless this machine is slow, and not waited for.
	delay.Store(int64(450 * time.Millisecond))
	a, took := rated("PATCH", "/links/slow", `{"title":"done"}`)
	wantProblem(t, a, 503, "unavailable")
	if took > soon || !strings.Contains(a.body, "may have been") {
		t.Errorf("PATCH with Redis 430 ms away: %s after %s", a.body, took)
	}
	delay.Store(0)
	if !sent.Load() {
		return
	}
	fleettest.Eventually(t, 20*time.Second, "the change is made", func() bool {
		a, _ := rated("GET", "/links/slow", "")
		return strings.Contains(a.body, `"title":"done"`)
	})
}
