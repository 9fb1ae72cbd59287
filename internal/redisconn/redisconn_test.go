package redisconn_test

import (
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"snowlink/internal/redisconn"
)

func TestOpenRefusesWhatItCannotReadWithoutTheSecret(t *testing.T) {
	for _, url := range []string{
		"http://u:secret@localhost", "localhost:6379", "redis://u:secret@localhost:port",
		"redis://u:secret@localhost/?colour=red", "redis://u:secret@local host", "redis://u:secret@a,redis://u:secret@b:port:1/?x=%zz",
	} {
		t.Run(url, func(t *testing.T) {
			conn, err := redisconn.Open(url, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
			if err == nil {
				conn.Close()
				t.Fatal("Open succeeded")
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}

func TestNewClientReadsTheURL(t *testing.T) {
	for _, tt := range []struct {
		name, url, username, password string
		addrs                         []string
	}{
		{"one", "redis://h:1", "", "", []string{"h:1"}},
		{"password", "redis://u:secret@h:1/2", "u", "secret", []string{"h:1"}},
		{"comma in a password", "redis://u:a,b@h:1", "u", "a,b", []string{"h:1"}},
		{"several commas, and a comma in the user", "rediss://u,v:,a,,b,@h:1", "u,v", ",a,,b,", []string{"h:1"}},
		{"percent-encoded", "redis://u:a%2Cb%40c@h:1", "u", "a,b@c", []string{"h:1"}},
		{"an @ unencoded", "redis://u:a@b@h:1", "u", "a@b", []string{"h:1"}},
		{"Cluster", "redis://h:1,h:2,h:3", "", "", []string{"h:1", "h:2", "h:3"}},
		{"Cluster, spaces", "redis://h:1, h:2,", "", "", []string{"h:1", "h:2"}},
		{"Cluster, comma in the password", "redis://u:a,b@h:1,h:2?read_timeout=1s", "u", "a,b", []string{"h:1", "h:2"}},
		{"Cluster, schemes and credentials again", "redis://u:a,b@h:1,redis://u:a,b@h:2", "u", "a,b", []string{"h:1", "h:2"}},
		{"Cluster, credentials behind", "redis://h:1,redis://u:p@h:2", "", "", []string{"h:1", "h:2"}},
		{"Cluster, percent-encoded", "redis://u:a%2Cb@h:1,h:2", "u", "a,b", []string{"h:1", "h:2"}},
		{"Sentinel, comma in Redis's password", "redis://s:1,s:2?master_name=m&username=u&password=a,b", "u", "a,b", []string{"FailoverClient"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client, err := redisconn.NewClient(tt.url)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			var username, password string
			var addrs []string
			switch c := client.(type) {
			case *redis.Client:
				username, password, addrs = c.Options().Username, c.Options().Password, []string{c.Options().Addr}
			case *redis.ClusterClient:
				username, password, addrs = c.Options().Username, c.Options().Password, c.Options().Addrs
			}
			if username != tt.username || password != tt.password || !slices.Equal(addrs, tt.addrs) {
				t.Errorf("%q: %q at %q", username, password, addrs)
			}
		})
	}
}
