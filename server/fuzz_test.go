package main

import (
	"strings"
	"testing"

	"snowlink/internal/link"
	"snowlink/snowflake"
)

// FuzzConfig: whatever the environment, it is refused and no value is repeated, or the config that
// is read keeps its promises.
func FuzzConfig(f *testing.F) {
	f.Add(":8000", "", "", "", "", "", "")
	f.Add("127.0.0.1:80", "redis://h:1,h:2", " a , b", "https://sno.example:8443", "1023", "64MiB", "24h")
	f.Add("[::1]:0", "x", ",", "http://[::ffff:1.2.3.4]/", "-1", "9223372036854775808GiB", "-1ns")
	f.Fuzz(func(t *testing.T, listen, redisURL, keys, baseURL, nodeID, cacheBytes, staleIfError string) {
		values := map[string]string{
			"LISTEN": listen, "REDIS_URL": redisURL, "API_KEY": keys, "BASE_URL": baseURL,
			"NODE_ID": nodeID, "CACHE_BYTES": cacheBytes, "STALE_IF_ERROR": staleIfError,
		}
		var environ []string
		for name, value := range values {
			environ = append(environ, name+"="+value)
		}
		c, err := readConfig(environ, true)
		if err != nil {
			const secret = "a secret in a value"
			for i, entry := range environ { // the same, with what no message says by chance
				name, value, _ := strings.Cut(entry, "=")
				if value != "" {
					environ[i] = name + "=" + value + secret
				}
			}
			if _, err := readConfig(environ, true); err != nil && strings.Contains(err.Error(), secret) {
				t.Fatalf("the error repeats a value: %v", err)
			}
			return
		}
		if base, _, err := link.ParseBaseURL(c.BaseURL); err != nil || base != c.BaseURL {
			t.Errorf("BaseURL is %q, which is read as %q, %v", c.BaseURL, base, err)
		}
		if c.NodeID < -1 || c.NodeID > snowflake.MaxNode || c.StaleIfError < 0 || c.ShutdownGrace <= 0 ||
			c.CacheBytes != 0 && c.CacheBytes < 1<<20 {
			t.Errorf("out of range: %+v", c)
		}
		if c.RedisURL != "" && len(c.APIKeys) == 0 {
			t.Error("nobody could create links")
		}
		for _, key := range c.APIKeys {
			if key != strings.TrimSpace(key) || key == "" {
				t.Errorf("key %q", key)
			}
		}
	})
}
