package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"snowlink/internal/fleet/fleettest"
)

func writeFile(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// mint runs server key.
func mint(t *testing.T, args ...string) (line, secret string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if err := run(t.Context(), append([]string{"key"}, args...), nil, &stdout, &stderr); err != nil {
		t.Fatal(err)
	}
	secret = strings.TrimSpace(regexp.MustCompile(`(?m)^ +\S+$`).FindString(stderr.String()))
	if len(secret) < 26 || strings.Contains(stdout.String(), secret) {
		t.Fatalf("the secret is %q, what goes into the file is %q", secret, &stdout)
	}
	return stdout.String(), secret
}

// The output of server key works as it is printed: the line in the file, and the secret in a
// request.
func TestMintedKeyWorks(t *testing.T) {
	maker, makerSecret := mint(t, "maker", "-scopes", "create", "-rate", "1/h")
	reader, readerSecret := mint(t, "reader", "-scopes=read")
	usual, usualSecret := mint(t, "usual")
	if !strings.HasPrefix(maker, "maker sha256:") || !strings.HasSuffix(maker, " scopes=create rate=1/h\n") || !strings.HasSuffix(usual, " scopes=create,read\n") {
		t.Errorf("lines are %q and %q", maker, usual)
	}
	addr := freeAddr(t)
	environ := []string{"LISTEN=" + addr, "METRICS_LISTEN=off", "API_KEY=mine", "API_KEYS_FILE=" + writeFile(t, maker+reader+usual)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx, nil, environ, io.Discard, io.Discard) }()
	fleettest.Eventually(t, 20*time.Second, "server ping succeeds", func() bool { return run(ctx, []string{"ping"}, environ, io.Discard, io.Discard) == nil })
	for _, tt := range []struct {
		key  string
		want int
	}{{makerSecret, 201}, {makerSecret, 429}, {readerSecret, 403}, {usualSecret, 201}, {"mine", 201}, {"maker", 401}} {
		request, err := http.NewRequest("POST", "http://"+addr+"/generate_url", strings.NewReader(`{"url":"https://example.com/"}`))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("API-Key", tt.key)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != tt.want {
			t.Errorf("%s: %s, want %d", tt.key, response.Status, tt.want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run = %v", err)
	}
}

func TestKeyRefusesWhatIsNoKey(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "one name"},
		{[]string{"-rate", "1/s"}, "one name"},
		{[]string{"a", "b"}, "one name"},
		{[]string{"a b"}, "a name has"},
		{[]string{"a/b"}, "a name has"},
		{[]string{"a#b"}, "a name has"},
		{[]string{"a", "-scopes", "all"}, "scopes= takes"},
		{[]string{"a", "-rate", "100"}, "rate= takes"},
		{[]string{"a", "-limit", "1/s"}, "-limit"},
	} {
		var stdout, stderr bytes.Buffer
		err := run(t.Context(), append([]string{"key"}, tt.args...), nil, &stdout, &stderr)
		if err == nil || !strings.Contains(err.Error(), tt.want) || stdout.Len()+stderr.Len() > 0 {
			t.Errorf("server key %q = %v, want %q; it printed %q %q", tt.args, err, tt.want, &stdout, &stderr)
		}
	}
	var stdout bytes.Buffer
	if err := run(t.Context(), []string{"key", "-h"}, nil, &stdout, io.Discard); err != nil || !strings.Contains(stdout.String(), "-scopes") {
		t.Errorf("server key -h = %v and prints %q", err, &stdout)
	}
}
