package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"snowlink/internal/fleet"
)

// writeProfile profiles one backend under every kind of load in turn, and writes the profile to
// where the Go compiler looks for it.
func writeProfile(ctx context.Context, each time.Duration, progress io.Writer) (err error) {
	root, err := fleet.ModuleRoot(ctx)
	if err != nil {
		return err
	}
	f, err := fleet.Start(ctx, fleet.Options{Backends: 1, NoNginx: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	codes := filepath.Join(f.Dir, "codes.txt")
	if _, err := fill(ctx, f, 10_000, 64, codes); err != nil {
		return err
	}

	scripts := []string{"redirect.lua", "visit.lua", "mixed.lua", "create.lua"}
	type profiled struct {
		profile []byte
		err     error
	}
	done := make(chan profiled, 1)
	go func() {
		p, err := fetchProfile(ctx, f.Backends[0].MetricsURL, time.Duration(len(scripts))*each)
		done <- profiled{p, err}
	}()
	for _, script := range scripts {
		fmt.Fprintln(progress, "profiling under", script)
		l := load{
			script: script, url: f.URL, threads: defaultThreads(), connections: 64, duration: each,
			env: []string{"API_KEY=" + f.APIKey, "CODES=" + codes},
		}
		if _, err := l.run(ctx); err != nil {
			return err
		}
	}
	p := <-done
	if p.err != nil {
		return p.err
	}
	return os.WriteFile(filepath.Join(root, "server", "default.pgo"), p.profile, 0o644)
}

// fetchProfile reads a CPU profile from the server of /metrics.
func fetchProfile(ctx context.Context, metricsURL string, length time.Duration) ([]byte, error) {
	url := fmt.Sprintf("%s/debug/pprof/profile?seconds=%.0f", strings.TrimSuffix(metricsURL, "/metrics"), length.Seconds())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return io.ReadAll(resp.Body)
}
