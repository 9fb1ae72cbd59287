package e2e_test

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

// Bulks that are never finished do not run a backend out of memory, whether one key sends
// them or many do. The others learn of it at once, and visitors notice nothing.
func TestUnfinishedBulksDoNotFillMemory(t *testing.T) {
	const bulks = 30
	var lines strings.Builder
	for i := range bulks {
		fmt.Fprintf(&lines, "key%d sha256:%x scopes=create\n", i, sha256.Sum256(fmt.Appendf(nil, "secret%d", i)))
	}
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		key   func(i int) string
		taken int
	}{
		{"one key", func(int) string { return "secret0" }, 2},
		{"many keys", func(i int) string { return fmt.Sprint("secret", i) }, 3}, // a quarter of the limit, in 40 MiB
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := fleettest.Start(t, fleet.Options{Backends: 1, NoNginx: true, Env: []string{"GOMEMLIMIT=500MiB", "API_KEYS_FILE=" + keys}})
			c := client(t, "127.0.0.1")
			var code string
			for code = range create(t, f, 1) {
			}
			line := `{"url":"https://example.com/` + strings.Repeat("a", 1700) + `"}` + "\n"
			body := strings.Repeat(line, (16<<20)/len(line)) // 16 MiB; and its end never comes
			before := resident(t, f)

			refused := make(chan error, bulks)
			var written, answered [bulks]atomic.Bool
			var conns []io.Closer
			for i := range bulks {
				conn, answers := dial(t, f.URL)
				fmt.Fprintf(conn, "POST /links/bulk HTTP/1.1\r\nHost: a\r\nAPI-Key: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n", tt.key(i), len(body)+1)
				go func() {
					if _, err := io.WriteString(conn, body); err == nil {
						written[i].Store(true)
					}
				}()
				go func() {
					err := isRefusal(answers)
					answered[i].Store(true)
					refused <- err
				}()
				conns = append(conns, conn)
			}
			for range bulks - tt.taken {
				if err := <-refused; err != nil {
					t.Error(err)
				}
			}
			fleettest.Eventually(t, 10*time.Second, "the bulks that have a slot are held", func() bool {
				n := 0
				for i := range bulks {
					if written[i].Load() && !answered[i].Load() {
						n++
					}
				}
				return n == tt.taken && counters(t, f, "snowlink_slots_held")[0] == n
			})
			full := resident(t, f)
			t.Logf("resident: %d MiB before, %d MiB with %d unfinished bulks of %d", before>>20, full>>20, tt.taken, bulks)
			if full > 350<<20 {
				t.Errorf("the backend takes %d MiB, was %d MiB", full>>20, before>>20)
			}
			if resp, _ := do(t, c, "GET", f.URL+"/"+code, "", ""); resp.StatusCode != http.StatusFound {
				t.Errorf("a redirect meanwhile: %s", resp.Status)
			}
			if resp, answer := do(t, c, "GET", f.URL+"/healthz", "", ""); resp.StatusCode != http.StatusOK {
				t.Errorf("/healthz meanwhile: %s %s", resp.Status, answer)
			}

			for _, conn := range conns {
				conn.Close()
			}
			fleettest.Eventually(t, 10*time.Second, "the slots are free", func() bool { return counters(t, f, "snowlink_slots_held")[0] == 0 })
			if resp, answer := do(t, c, "POST", f.URL+"/links/bulk", tt.key(0), `[{"url":"https://example.com/"}]`); resp.StatusCode != http.StatusOK || strings.Contains(answer, "index") {
				t.Errorf("a bulk afterwards: %s %s", resp.Status, answer)
			}
		})
	}
}

// isRefusal reads an answer and says what it is if it is not 503 with Retry-After.
func isRefusal(answers *bufio.Reader) error {
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(string(body), `"code":"unavailable"`) {
		return fmt.Errorf("answered %s %s (%v)", resp.Status, body, err)
	}
	return nil
}

// resident is the memory of the first backend, in bytes.
func resident(t *testing.T, f *fleet.Fleet) int {
	return counters(t, f, "process_resident_memory_bytes")[0]
}
