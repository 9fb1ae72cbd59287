package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"snowlink/client"
	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

// start runs a server until the test ends, and returns a client for it and what it logs.
func start(t *testing.T, environ ...string) (*client.Client, *fleettest.Output) {
	t.Helper()
	addr, log := freeAddr(t), new(fleettest.Output)
	environ = append([]string{"LISTEN=" + addr, "METRICS_LISTEN=off", "API_KEY=key"}, environ...)
	stop := fleettest.Background(t, func(ctx context.Context) error { return run(ctx, nil, environ, io.Discard, log) })
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("%v\n%s", err, log)
		}
	})
	fleettest.Eventually(t, 20*time.Second, "the server is ready", func() bool { return run(t.Context(), []string{"ping"}, environ, io.Discard, io.Discard) == nil })
	return &client.Client{BaseURL: "http://" + addr, APIKey: "key"}, log
}

func follow(t *testing.T, c *client.Client, code string, times int) {
	t.Helper()
	for range times {
		request, err := http.NewRequestWithContext(t.Context(), "GET", c.BaseURL+"/"+code, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
		resp, err := http.DefaultTransport.RoundTrip(request)
		if err != nil || resp.StatusCode != http.StatusFound {
			t.Fatal(resp, err)
		}
		resp.Body.Close()
	}
}

func wantClicks(t *testing.T, c *client.Client, code string, within time.Duration, want int64) {
	t.Helper()
	fleettest.Eventually(t, within, fmt.Sprintf("%d clicks", want), func() bool {
		answer, err := c.Clicks(t.Context(), client.ClicksQuery{Code: code})
		if err != nil {
			t.Fatal(err)
		}
		return answer.Clicks == want
	})
}

// This is what somebody sees who tries it: a few visits, and the numbers are there.
func TestClicksOfTheEmbeddedDefault(t *testing.T) {
	c, _ := start(t)
	made, err := c.Create(t.Context(), client.NewLink{URL: "https://example.com/"})
	if err != nil {
		t.Fatal(err)
	}
	follow(t, c, made.Code, 3)
	wantClicks(t, c, made.Code, 2*time.Second, 3)
	answer, err := c.Clicks(t.Context(), client.ClicksQuery{By: []string{"browser", "os"}})
	if err != nil || len(answer.Rows) != 1 || answer.Rows[0].Values["browser"] != "Firefox" || answer.Rows[0].Values["os"] != "Linux" {
		t.Errorf("by browser and system: %+v, %v", answer, err)
	}
	top, err := c.TopLinks(t.Context(), client.ClicksQuery{})
	if err != nil || len(top) != 1 || top[0].Clicks != 3 {
		t.Errorf("top: %+v, %v", top, err)
	}
	if err := c.ForgetClicks(t.Context(), made.Code); err != nil {
		t.Error(err)
	}
	wantClicks(t, c, made.Code, 2*time.Second, 0)
}

func TestClicksOffCountsNothing(t *testing.T) {
	redis := fleettest.Redis(t)
	c, _ := start(t, "CLICKS=off", "REDIS_URL=redis://"+redis.Addr)
	made, err := c.Create(t.Context(), client.NewLink{URL: "https://example.com/"})
	if err != nil {
		t.Fatal(err)
	}
	follow(t, c, made.Code, 3)
	if _, err := c.Clicks(t.Context(), client.ClicksQuery{}); err == nil || !strings.Contains(err.Error(), "clicks_off") {
		t.Errorf("error %v", err)
	}
	if keys, err := fleettest.RedisClient(t, redis.Addr).Keys(t.Context(), "*click*").Result(); len(keys) > 0 || err != nil {
		t.Errorf("keys %q, %v", keys, err)
	}
}

// With WORK=off clicks wait until a worker comes, which needs no archive. That they wait is said after a
// minute.
func TestWorkerOfClicks(t *testing.T) {
	redis := fleettest.Redis(t)
	environ := []string{"REDIS_URL=redis://" + redis.Addr}
	c, _ := start(t, append(environ, "WORK=off")...)
	made, err := c.Create(t.Context(), client.NewLink{URL: "https://example.com/"})
	if err != nil {
		t.Fatal(err)
	}
	follow(t, c, made.Code, 3)
	fleettest.Eventually(t, 5*time.Second, "the clicks wait", func() bool {
		n, err := fleettest.RedisClient(t, redis.Addr).Exists(t.Context(), "clicks").Result()
		return err == nil && n == 1
	})
	wantClicks(t, c, made.Code, time.Second, 0)
	log := new(fleettest.Output)
	stop := fleettest.Background(t, func(ctx context.Context) error {
		return run(ctx, []string{"work"}, append(environ, "METRICS_LISTEN=off"), io.Discard, log)
	})
	wantClicks(t, c, made.Code, 10*time.Second, 3)
	if err := stop(); err != nil {
		t.Errorf("%v\n%s", err, log)
	}
}

// On SIGHUP the files of keys and of countries are read again. One that is wrong changes nothing.
func TestFilesAreReadAgain(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{Backends: 1, NoNginx: true, Env: []string{"API_KEYS_FILE=" + writeFile(t, "# none\n")}})
	f.Backends[0].Hangup()
	fleettest.Eventually(t, 10*time.Second, "the keys are read again", func() bool { return strings.Contains(f.Logs(50), "keys read again") })
}
