package e2e_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	snow "snowlink/client"
	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

// Visitors' addresses and what their browsers say are nowhere: not in Redis, PostgreSQL or any file or log
// of the fleet. What is left of a day is a salt that ends with it.
func TestNoAddressIsKept(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{Archive: 1, AccessLog: true})
	c, visitor := &snow.Client{BaseURL: f.URL, APIKey: f.APIKey}, client(t, "127.0.0.1")
	made, err := c.Create(t.Context(), clientLink("https://example.com/", "a"))
	if err != nil {
		t.Fatal(err)
	}
	const visitors, near = 2000, "127.201.113.77"
	// What all of them have in common, so that one look finds any of them.
	texts := [][]byte{[]byte("203.0.11"), []byte("203.0.12"), []byte("unmistakable"), []byte("secret-page"), []byte(near)}
	for i := range visitors {
		// Past Nginx, which would see one address of ours: a backend believes what comes from this machine.
		address := netip.AddrFrom4([4]byte{203, 0, byte(113 + i>>8), byte(i)})
		agent := fmt.Sprintf("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0 unmistakable/%d", i)
		page := fmt.Sprintf("https://example.org/secret-page-%d", i)
		visit(t, visitor, f.Backends[0].URL+"/"+made.Code, "X-Forwarded-For: "+address.String(), "User-Agent: "+agent, "Referer: "+page)
	}
	// Through Nginx, which writes a log.
	visit(t, client(t, near), f.URL+"/"+made.Code, "User-Agent: "+firefox)
	soon(t, c, snow.ClicksQuery{Code: made.Code}, visitors+1)

	store := fleettest.RedisClient(t, f.State.Addr)
	for _, client := range []*redis.Client{store, fleettest.RedisClient(t, f.Redis.Addr)} {
		keys, err := client.Keys(t.Context(), "*").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			dump, err := client.Dump(t.Context(), key).Result()
			if err != nil && err != redis.Nil {
				t.Fatal(err)
			}
			for _, text := range texts {
				if strings.Contains(key+dump, string(text)) {
					t.Fatalf("%s has %s", key, text)
				}
			}
		}
	}
	salts, err := store.Keys(t.Context(), "clicks:salt:*").Result()
	if err != nil || len(salts) == 0 {
		t.Fatalf("salts %q, %v", salts, err)
	}
	for _, key := range salts {
		day, err := time.Parse(time.DateOnly, strings.TrimPrefix(key, "clicks:salt:"))
		if ttl := store.TTL(t.Context(), key).Val(); err != nil || ttl <= 0 || ttl > time.Until(day.Add(26*time.Hour)) {
			t.Errorf("%s lives for %s", key, ttl)
		}
	}

	// PostgreSQL writes what it has to its files when it ends, and so does Redis.
	for _, b := range f.Backends {
		if err := b.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for _, db := range f.Archive {
		if err := db.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	files := 0
	err = filepath.WalkDir(f.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Base(path) == "server" {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for _, text := range texts {
			if i := bytes.Index(content, text); i >= 0 {
				return fmt.Errorf("%s has %s: %q", path, text, content[max(0, i-60):min(len(content), i+60)])
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if files < 50 {
		t.Errorf("only %d files were read", files)
	}
}
