package edgelog_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"snowlink/internal/clicks"
	"snowlink/internal/edgelog"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
)

// A bench is a listener over a store with some links, and what it recorded.
type bench struct {
	t       testing.TB
	to      net.Conn
	metrics *prometheus.Registry
	stop    func() error

	mu       sync.Mutex
	recorded []clicks.Click
}

func listen(t testing.TB, countryHeader string) *bench {
	t.Helper()
	b := &bench{t: t, metrics: prometheus.NewRegistry()}
	get := func(_ context.Context, code string) (link.Link, error) {
		switch code {
		case "unknown":
			return link.Link{}, fmt.Errorf("test: %w", link.ErrNotFound)
		case "failing":
			return link.Link{}, link.ErrUnavailable
		}
		return link.Link{Target: "https://example.com/", Owner: "shop"}, nil
	}
	l, err := edgelog.Listen("127.0.0.1:0", countryHeader, get, func(c clicks.Click) {
		for _, p := range []*[]byte{&c.Address, &c.UserAgent, &c.Referrer, &c.Query, &c.Purpose, &c.Country} {
			*p = bytes.Clone(*p)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.recorded = append(b.recorded, c)
	}, b.metrics)
	if err != nil {
		t.Fatal(err)
	}
	b.stop = fleettest.Background(t, l.Run)
	if b.to, err = net.Dial("udp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.to.Close() })
	return b
}

func (b *bench) send(report string) {
	b.t.Helper()
	if _, err := b.to.Write([]byte(report)); err != nil {
		b.t.Fatal(err)
	}
}

// clicks returns what was recorded.
func (b *bench) clicks() []clicks.Click {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]clicks.Click(nil), b.recorded...)
}

func (b *bench) wantMetrics(series ...string) {
	b.t.Helper()
	fleettest.Eventually(b.t, 5*time.Second, strings.Join(series, ", "), func() bool {
		page := httptest.NewRecorder()
		promhttp.HandlerFor(b.metrics, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
		for _, s := range series {
			if !strings.Contains(page.Body.String(), "\n"+s+"\n") {
				return false
			}
		}
		return true
	})
}

// header is what syslog puts before a report.
const header = "<190>Nov 25 19:00:14 edge: "

func TestReportsAreRecorded(t *testing.T) {
	b := listen(t, "CF-IPCountry")
	now := time.Now()
	at := fmt.Sprintf("%d.%03d", now.Unix(), now.Nanosecond()/1e6)
	b.send(header + at + "\t/spring?utm_source=a\\x22b\t203.0.113.7\tFire\\x5Cfox \\xC3\\xA9\\x09\thttps://example.org/\tprefetch\tDE\tFR\t-")
	b.send(header + at + "\t/plain\t203.0.113.8\t-\t-\t-\t-\t-\t-")
	b.send(header + "5\t/old\t203.0.113.9\t-\t-\t-\t-\t-\t-")
	b.wantMetrics("snowlink_edge_reports_total 3")
	if err := b.stop(); err != nil { // what has arrived is recorded
		t.Error(err)
	}
	got := make(map[string]clicks.Click)
	for _, c := range b.clicks() {
		got[c.Code] = c
	}
	if len(got) != 3 || got["spring"].Link.Owner != "shop" {
		t.Fatalf("recorded %+v", got)
	}
	if c := got["spring"]; string(c.Query) != `utm_source=a"b` || string(c.Address) != "203.0.113.7" || string(c.UserAgent) != "Fire\\fox é\t" ||
		string(c.Referrer) != "https://example.org/" || string(c.Purpose) != "prefetch" || string(c.Country) != "DE" || c.At.UnixMilli() != now.UnixMilli() {
		t.Errorf("recorded %+v", c)
	}
	if c := got["plain"]; len(c.Query)+len(c.UserAgent)+len(c.Referrer)+len(c.Purpose)+len(c.Country) > 0 {
		t.Errorf("recorded %+v", c)
	}
	if c := got["old"]; time.Since(c.At).Abs() > time.Minute { // whose clock is wrong
		t.Errorf("recorded at %s", c.At)
	}
}

func TestCountryOfAReport(t *testing.T) {
	for header, want := range map[string]string{
		"cf-ipcountry": "A", "CloudFront-Viewer-Country": "B", "X-Country-Code": "C", "X-Other": "", "": "",
	} {
		b := listen(t, header)
		b.send("<190>Nov 25 19:00:14 edge: 5\t/x\t203.0.113.7\t-\t-\t-\tA\tB\tC")
		fleettest.Eventually(t, 5*time.Second, "the click is there", func() bool { return len(b.clicks()) == 1 })
		if got := string(b.clicks()[0].Country); got != want {
			t.Errorf("with %q: %q, want %q", header, got, want)
		}
	}
}

func TestReportsThatAreLostAreCounted(t *testing.T) {
	b := listen(t, "")
	for _, text := range []string{
		"", "hello", header, header + "5\t/x\t203.0.113.7\t-\t-\t-\tA\tB", header + "5\t/x\t203.0.113.7\t-\t-\t-\tA\tB\tC\tD",
		header + "now\t/x\t203.0.113.7\t-\t-\t-\tA\tB\tC", header + "5\tx\t203.0.113.7\t-\t-\t-\tA\tB\tC",
		header + "5\t/x/y\t203.0.113.7\t-\t-\t-\tA\tB\tC", header + "NaN\t/x+\t203.0.113.7\t-\t-\t-\tA\tB\tC",
	} {
		b.send(text)
	}
	b.send(header + "5\t/unknown\t203.0.113.7\t-\t-\t-\tA\tB\tC")
	b.send(header + "5\t/failing\t203.0.113.7\t-\t-\t-\tA\tB\tC")
	b.wantMetrics("snowlink_edge_reports_total 11", `snowlink_edge_reports_lost_total{reason="malformed"} 9`,
		`snowlink_edge_reports_lost_total{reason="unknown"} 1`, `snowlink_edge_reports_lost_total{reason="failed"} 1`, `snowlink_edge_reports_lost_total{reason="overflow"} 0`)
	if got := b.clicks(); len(got) > 0 {
		t.Errorf("recorded %+v", got)
	}
}

// The configuration of Nginx reports the headers that this package reads.
func TestNginxReportsTheSameCountries(t *testing.T) {
	text, err := os.ReadFile("../../nginx/snippets/edge-cache.conf")
	if err != nil {
		t.Fatal(err)
	}
	var fields []string
	for _, name := range edgelog.CountryHeaders {
		fields = append(fields, "$http_"+strings.ReplaceAll(strings.ToLower(name), "-", "_"))
	}
	if want := strings.Join(fields, `\t`) + `";`; !strings.Contains(string(text), want) {
		t.Errorf("edge-cache.conf does not report %s", want)
	}
	passed, err := os.ReadFile("../../nginx/snippets/proxy.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range fields {
		if !strings.Contains(string(passed), name+";") {
			t.Errorf("proxy.conf does not pass %s on", name)
		}
	}
}

// FuzzReport: whatever a datagram holds, it is recorded with a code that could be one, or counted as
// lost, and the listener goes on.
func FuzzReport(f *testing.F) {
	f.Add(header + "1795287614.899\t/spring?a=\\x22\t203.0.113.7\tFire\\x5Cfox\t-\t-\tDE\t-\t-")
	f.Add(header + "1e308\t/a\t\\x\t\\x4\t\\\t\\xzz\t-\t-\t-")
	b := listen(f, "X-Country-Code")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 60_000 {
			return
		}
		b.t = t
		before := len(b.clicks())
		b.send(text)
		b.send(header + "5\t/after\t203.0.113.7\t-\t-\t-\t-\t-\t-")
		fleettest.Eventually(t, 5*time.Second, "the next report is recorded", func() bool { return len(b.clicks()) > before })
		for _, c := range b.clicks()[before:] {
			if !link.CouldBeCode(c.Code) || time.Since(c.At).Abs() > 2*time.Hour {
				t.Errorf("%q: recorded %+v", text, c)
			}
		}
	})
}
