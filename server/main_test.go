package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"snowlink/internal/clicks"
	"snowlink/internal/fleet/fleettest"
)

// freeAddr returns an address that nobody listens on, and hardly anybody will: others take ports of
// 127.0.0.1 meanwhile.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestEmbeddedDefaultPrintsWhatWorks(t *testing.T) {
	addr, metricsAddr := freeAddr(t), freeAddr(t)
	ctx, cancel := context.WithCancel(t.Context())
	var stdout, stderr fleettest.Output
	environ := []string{"LISTEN=" + addr, "METRICS_LISTEN=" + metricsAddr, "API_KEY=it's", "BASE_URL=https://elsewhere.example"}
	done := make(chan error, 1)
	go func() { done <- run(ctx, nil, environ, &stdout, &stderr) }()
	fleettest.Eventually(t, 20*time.Second, "the welcome", func() bool { return strings.Contains(stdout.String(), "curl") })
	fleettest.Eventually(t, 20*time.Second, "server ping succeeds", func() bool { return run(ctx, []string{"ping"}, environ, io.Discard, io.Discard) == nil })

	// The link signs in once, and so does its key.
	link := regexp.MustCompile(`(?m)^ +(http://` + regexp.QuoteMeta(addr) + `/dashboard/)#token=(.*)$`).FindStringSubmatch(stdout.String())
	if link == nil {
		t.Fatalf("no link in:\n%s", &stdout)
	}
	for i, try := range []struct {
		body string
		want int
	}{{`{"token":"` + link[2] + `"}`, 201}, {`{"token":"` + link[2] + `"}`, 401}, {`{"key":"it's"}`, 201}} {
		response, err := http.Post(link[1]+"session", "application/json", strings.NewReader(try.body))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != try.want {
			t.Errorf("try %d to sign in: %s, want %d", i+1, response.Status, try.want)
		}
	}
	if response, err := http.Get("http://" + addr + "/"); err != nil || response.Request.URL.String() != link[1] || response.StatusCode != 200 {
		t.Errorf("/: %+v, %v", response, err)
	}

	command := regexp.MustCompile(`(?m)^ +(curl .*)$`).FindStringSubmatch(stdout.String())[1]
	answer, err := exec.Command("sh", "-c", command).Output()
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	var created struct{ Code, URL string }
	if err := json.Unmarshal(answer, &created); err != nil || created.URL != "https://example.com/" {
		t.Fatalf("%s answered %s", command, answer)
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Get("http://" + addr + "/" + created.Code)
	if err != nil || response.StatusCode != http.StatusFound || response.Header.Get("Location") != created.URL {
		t.Errorf("GET /%s = %+v, %v", created.Code, response, err)
	}
	if log := stderr.String(); !strings.Contains(log, "die with it") {
		t.Errorf("the log does not say that links die:\n%s", log)
	}

	response, err = http.Get("http://" + metricsAddr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	page, _ := io.ReadAll(response.Body)
	for _, want := range []string{
		"snowlink_creates_total 1", `snowlink_http_requests_total{class="3xx",route="redirect"} 1`,
		`snowlink_http_request_duration_seconds_count{route="create"} 1`, "snowlink_build_info", "go_goroutines", "snowlink_redis_pool_connections",
	} {
		if !strings.Contains(string(page), want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	if strings.Contains(string(page), created.Code) {
		t.Error("/metrics shows a code")
	}

	cancel()
	if err := <-done; err != nil {
		t.Errorf("run = %v", err)
	}
	if err := run(context.Background(), []string{"ping"}, environ, io.Discard, io.Discard); err == nil {
		t.Error("server ping succeeds without a server")
	}
}

func TestStartErrorsNameTheRemedy(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	empty, wrong := writeFile(t, "# none\n"), writeFile(t, "\nshop hidden scopes=create\nh{dd}n x y\n")
	for _, tt := range []struct {
		name    string
		args    []string
		environ []string
		want    []string
	}{
		{"unknown command", []string{"sevre"}, nil, []string{"sevre", "help"}},
		{"no key", nil, []string{"REDIS_URL=redis://localhost"}, []string{"API_KEY", "API_KEYS_FILE", "openssl rand", "server key"}},
		{"no keys file", nil, []string{"API_KEYS_FILE=/nowhere/keys"}, []string{"API_KEYS_FILE", "/nowhere/keys", "no such file"}},
		{"a keys file without a key", nil, []string{"REDIS_URL=redis://localhost", "API_KEYS_FILE=" + empty}, []string{"API_KEYS_FILE", empty, "no key", "server key"}},
		{"a wrong keys file", nil, []string{"API_KEY=hidden", "API_KEYS_FILE=" + wrong}, []string{"API_KEYS_FILE", wrong, "line 2: after the name comes sha256:", "line 3: a name has"}},
		{"bad Redis URL", nil, []string{"REDIS_URL=http://u:hidden@h", "API_KEY=hidden", "LISTEN=127.0.0.1:65000", "METRICS_LISTEN=off"}, []string{"REDIS_URL"}},
		{"taken port", nil, []string{"LISTEN=" + busy.Addr().String()}, []string{"LISTEN", "in use"}},
		{"taken metrics port", nil, []string{"LISTEN=" + freeAddr(t), "METRICS_LISTEN=" + busy.Addr().String()}, []string{"METRICS_LISTEN", "in use", "off"}},
		{"all at once", nil, []string{"LISTEN=8000", "NODE_ID=1024", "BASE_URL=example.com", "METRICS_LISTEN=no", "SHUTDOWN_GRACE=-1s", "API_KEY=hidden,"},
			[]string{"LISTEN", "NODE_ID", "0 to 1023", "BASE_URL", "https://", "METRICS_LISTEN", "SHUTDOWN_GRACE", "API_KEY"}},
		{"bad sizes", nil, []string{"CACHE_BYTES=64MB"}, []string{"CACHE_BYTES", "64MiB"}},
		{"too small a cache", nil, []string{"CACHE_BYTES=1000", "STALE_IF_ERROR=-1s"}, []string{"CACHE_BYTES", "1MiB at least", "STALE_IF_ERROR"}},
		{"not of the type", nil, []string{"NODE_ID=one", "SHUTDOWN_GRACE=10"}, []string{"NODE_ID", "0 to 1023", "SHUTDOWN_GRACE", "10s"}},
		{"clicks", nil, []string{"CLICKS=maybe", "CLICKS_KEEP=hidden", "CLICKS_WITHOUT=referrer,planet"},
			[]string{"CLICKS is not valid: it takes on or off", "CLICKS_KEEP", "48h", "CLICKS_WITHOUT", "country, referrer,"}},
		{"clicks, too short", nil, []string{"CLICKS_KEEP=47h", "COUNTRY_HEADER=a header", "KAFKA_TOPIC=a/b", "EDGE_LOG_LISTEN=9514"},
			[]string{"CLICKS_KEEP", "at least 48h", "COUNTRY_HEADER", "CF-IPCountry", "KAFKA_TOPIC", "EDGE_LOG_LISTEN", "127.0.0.1:9514"}},
		{"clicks without what tells people from bots", nil, []string{"CLICKS_WITHOUT=bot"}, []string{"CLICKS_WITHOUT"}},
		{"bad brokers", nil, []string{"KAFKA_BROKERS=u:hidden@h", "LISTEN=127.0.0.1:65001", "METRICS_LISTEN=off"}, []string{"KAFKA_BROKERS"}},
		{"no file of countries", nil, []string{"GEOIP_FILE=/nowhere/countries", "LISTEN=127.0.0.1:65002", "METRICS_LISTEN=off"}, []string{"GEOIP_FILE", "/nowhere/countries", "no such file"}},
		{"no file of countries but another", nil, []string{"GEOIP_FILE=" + empty, "LISTEN=127.0.0.1:65003", "METRICS_LISTEN=off"}, []string{"GEOIP_FILE", empty, "MMDB"}},
		{"taken port for the edge", nil, []string{"EDGE_LOG_LISTEN=" + taken.LocalAddr().String(), "LISTEN=127.0.0.1:65004", "METRICS_LISTEN=off"}, []string{"EDGE_LOG_LISTEN", "in use"}},
		{"no work", []string{"work"}, []string{"REDIS_URL=redis://localhost", "CLICKS=off"}, []string{"ARCHIVE_URL", "CLICKS=off"}},
		{"a root that is none", nil, []string{"ROOT_URL=//evil.example/"}, []string{"ROOT_URL is not valid: it takes a URL such as"}},
		{"a page that is neither on nor off", nil, []string{"DASHBOARD=yes"}, []string{"DASHBOARD is not valid: it takes on or off"}},
		{"a root that leads to itself", nil, []string{"ROOT_URL=https://sno.example", "BASE_URL=https://sno.example"}, []string{"ROOT_URL"}},
		{"a base with a path", nil, []string{"BASE_URL=https://example.com/x"}, []string{"BASE_URL", "without a path"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := run(t.Context(), tt.args, tt.environ, io.Discard, io.Discard)
			if err == nil {
				t.Fatal("it started")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error lacks %q: %v", want, err)
				}
			}
			if strings.Contains(err.Error(), "hidden") {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

func TestConfigDefaults(t *testing.T) {
	for _, tt := range []struct {
		name    string
		environ []string
		want    func(config) bool
	}{
		{"nothing set", nil, func(c config) bool {
			return c.Listen == ":8000" && c.BaseURL == "http://localhost:8000" && c.NodeID == -1 &&
				c.MetricsListen == "127.0.0.1:9100" && c.ShutdownGrace == 10*time.Second && len(c.APIKeys) == 0
		}},
		{"set but empty is unset", []string{"LISTEN=", "NODE_ID=", "API_KEY=", "BASE_URL=", "REDIS_URL="}, func(c config) bool {
			return c.Listen == ":8000" && c.NodeID == -1 && len(c.APIKeys) == 0
		}},
		{"node 0", []string{"NODE_ID=0"}, func(c config) bool { return c.NodeID == 0 }},
		{"several keys", []string{"API_KEY=a, b"}, func(c config) bool { return len(c.APIKeys) == 2 && c.APIKeys[1] == "b" }},
		{"the scheme's own port", []string{"BASE_URL=http://localhost:80/"}, func(c config) bool { return c.BaseURL == "http://localhost" }},
		{"cache", []string{"CACHE_BYTES=2GiB", "STALE_IF_ERROR=0s"}, func(c config) bool { return c.CacheBytes == 2<<30 && c.StaleIfError == 0 }},
		{"no cache", []string{"CACHE_BYTES=0"}, func(c config) bool { return c.CacheBytes == 0 && c.StaleIfError == 24*time.Hour }},
		{"a Unicode name", []string{"BASE_URL=https://Bücher.example"}, func(c config) bool { return c.BaseURL == "https://xn--bcher-kva.example" }},
		{"clicks", nil, func(c config) bool {
			return bool(c.Clicks) && c.ClicksKeep == 90*24*time.Hour && c.KafkaTopic == "snowlink.clicks" && c.KafkaBrokers == "" && c.EdgeLogListen == ""
		}},
		{"clicks with less", []string{"CLICKS=off", "CLICKS_WITHOUT=referrer, utm_source"}, func(c config) bool {
			return !bool(c.Clicks) && slices.Equal(c.ClicksWithout, dimensions{clicks.Referrer, clicks.Source})
		}},
		{"the dashboard", nil, func(c config) bool { return bool(c.Dashboard) && c.RootURL == "/dashboard/" }},
		{"no dashboard", []string{"DASHBOARD=off"}, func(c config) bool { return !bool(c.Dashboard) && c.RootURL == "" }},
		{"another root", []string{"ROOT_URL=HTTPS://Example.com"}, func(c config) bool { return c.RootURL == "https://example.com/" }},
		{"a path as root", []string{"ROOT_URL=/about", "DASHBOARD=off"}, func(c config) bool { return c.RootURL == "/about" }},
		{"another port", []string{"BASE_URL=https://s.example:8443"}, func(c config) bool { return c.BaseURL == "https://s.example:8443" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if c, err := readConfig(tt.environ, true); err != nil || !tt.want(c) {
				t.Errorf("readConfig = %+v, %v", c, err)
			}
		})
	}
}
