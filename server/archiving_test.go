package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/postgres/postgrestest"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// server runs the command with an environment of its own, until the test ends or stop is called.
func server(t *testing.T, command []string, environ ...string) (url string, stop func() error, log *fleettest.Output) {
	t.Helper()
	addr := freeAddr(t)
	log = new(fleettest.Output)
	environ = append([]string{"LISTEN=" + addr, "METRICS_LISTEN=off", "API_KEY=hidden"}, environ...)
	stop = fleettest.Background(t, func(ctx context.Context) error { return run(ctx, command, environ, io.Discard, log) })
	return "http://" + addr, stop, log
}

// get returns the status of a GET, and its body or Location. It is 0 if nothing answers.
func get(url string) (status int, text string) {
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body) + response.Header.Get("Location")
}

// create makes a link and returns the status of the answer.
func create(url, code, target string) int {
	request, err := http.NewRequest("POST", url+"/links", strings.NewReader(fmt.Sprintf(`{"code":%q,"url":%q}`, code, target)))
	if err != nil {
		return 0
	}
	request.Header.Set("API-Key", "hidden")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	_ = response.Body.Close()
	return response.StatusCode
}

func TestArchiveIsServed(t *testing.T) {
	for _, tt := range []struct {
		name    string
		work    string
		workers int
	}{{"the backend archives", "WORK=on", 0}, {"a worker archives", "WORK=off", 1}} {
		t.Run(tt.name, func(t *testing.T) {
			redis := fleettest.Redis(t, "maxmemory-policy volatile-lru")
			client := fleettest.RedisClient(t, redis.Addr)
			environ := []string{"REDIS_URL=redis://" + redis.Addr, "ARCHIVE_URL=" + strings.Join(postgrestest.Databases(t, 3), ","),
				"CACHE_BYTES=0", tt.work}
			url, stop, log := server(t, nil, environ...)
			fleettest.Eventually(t, 20*time.Second, "the link is made", func() bool { return create(url, "poster", "https://example.com/poster") == 201 })
			if tt.workers > 0 {
				if ttl := client.PTTL(t.Context(), "link:poster").Val(); ttl != -1 {
					t.Errorf("without a worker the link has a time to live, %d", ttl)
				}
				server(t, []string{"work"}, environ...)
			}
			fleettest.Eventually(t, 20*time.Second, "the link is archived", func() bool { return client.PTTL(t.Context(), "link:poster").Val() > 0 })
			if status, text := get(url + "/healthz"); status != 200 || !strings.Contains(text, `"ok"`) {
				t.Errorf("/healthz = %d %s", status, text)
			}
			if err := client.Del(t.Context(), "link:poster").Err(); err != nil { // as if it were evicted
				t.Fatal(err)
			}
			if status, text := get(url + "/poster"); status != 302 || !strings.HasSuffix(text, "https://example.com/poster") {
				t.Errorf("GET of an evicted link = %d %s", status, text)
			}
			if err := stop(); err != nil {
				t.Errorf("the server ended with %v\n%s", err, log)
			}
		})
	}
}

func TestDegradedArchiveIsSaid(t *testing.T) {
	redis := fleettest.Redis(t, "maxmemory-policy volatile-lru")
	db := postgrestest.Own(t)
	url, _, log := server(t, nil, "REDIS_URL=redis://"+redis.Addr, "ARCHIVE_URL="+db.Database(t))
	fleettest.Eventually(t, 20*time.Second, "all is well", func() bool { _, text := get(url + "/healthz"); return strings.Contains(text, `"ok"`) })
	healthz := func(what string) {
		t.Helper()
		fleettest.Eventually(t, 20*time.Second, "/healthz says: "+what, func() bool {
			status, text := get(url + "/healthz")
			return status == 200 && strings.Contains(text, `"degraded"`) && strings.Contains(text, what)
		})
	}
	client := fleettest.RedisClient(t, redis.Addr)
	if err := client.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err(); err != nil {
		t.Fatal(err)
	}
	healthz("set it to volatile-lru")
	if !strings.Contains(log.String(), "maxmemory-policy is allkeys-lru") {
		t.Errorf("the log does not say it:\n%s", log)
	}
	if err := client.ConfigSet(t.Context(), "maxmemory-policy", "volatile-lru").Err(); err != nil {
		t.Fatal(err)
	}
	db.Stop()
	healthz("archive shard 1 of 1 does not answer")
}

func TestArchiveRefusals(t *testing.T) {
	redis := fleettest.Redis(t, "maxmemory-policy volatile-lru")
	client := fleettest.RedisClient(t, redis.Addr)
	redisURL := "REDIS_URL=redis://" + redis.Addr
	dbs := postgrestest.Databases(t, 2)
	_, stop, _ := server(t, nil, redisURL, "ARCHIVE_URL="+strings.Join(dbs, ","))
	fleettest.Eventually(t, 20*time.Second, "the archive is ready", func() bool { return client.Exists(t.Context(), "archive").Val() == 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, archiveURL, policy string
		want                     []string
	}{
		{"no archive any more", "", "volatile-lru", []string{"ARCHIVE_URL is not set", "in front of an archive", "del archive"}},
		{"another order", dbs[1] + "," + dbs[0], "volatile-lru", []string{"ARCHIVE_URL", "shard 2 of 2", "shard 1 of 2"}},
		{"one fewer", dbs[0], "volatile-lru", []string{"ARCHIVE_URL", "shard 1 of 2", "shard 1 of 1"}},
		{"a policy that loses links", strings.Join(dbs, ","), "allkeys-lru", []string{"ARCHIVE_URL", "allkeys-lru", "volatile-lru"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := client.ConfigSet(t.Context(), "maxmemory-policy", tt.policy).Err(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err := run(ctx, nil, []string{"LISTEN=" + freeAddr(t), "METRICS_LISTEN=off", "API_KEY=hidden", redisURL, "ARCHIVE_URL=" + tt.archiveURL}, io.Discard, io.Discard)
			if err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("it started: %v", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error lacks %q: %v", want, err)
				}
			}
		})
	}
}

func TestArchiveStartsWithoutItsDatabases(t *testing.T) {
	redis := fleettest.Redis(t, "maxmemory-policy volatile-lru")
	client := fleettest.RedisClient(t, redis.Addr)
	if err := client.Set(t.Context(), "link:hot", "https://example.com/hot", 0).Err(); err != nil {
		t.Fatal(err)
	}
	url, _, _ := server(t, nil, "REDIS_URL=redis://"+redis.Addr, "ARCHIVE_URL=postgres://postgres@"+freeAddr(t)+"/none?sslmode=disable")
	fleettest.Eventually(t, 20*time.Second, "a hot link is served", func() bool { status, _ := get(url + "/hot"); return status == 302 })
	if status, text := get(url + "/cold"); status != 503 {
		t.Errorf("GET of a link that the archive may have = %d %s", status, text)
	}
	if status := create(url, "", "https://example.com/"); status != 201 {
		t.Errorf("create = %d", status)
	}
	if status := create(url, "chosen", "https://example.com/"); status != 503 {
		t.Errorf("create of a chosen code = %d", status)
	}
}
