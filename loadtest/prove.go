package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"snowlink/internal/fleet"
)

// created is a link, as the answer to its create names it.
type created struct{ code, target string }

// proveLinks creates n links through Nginx, then proves that there are exactly n,
// that no two share a code or a target, and that each leads to its own target.
func proveLinks(ctx context.Context, n, connections int, stdout io.Writer) (err error) {
	f, err := fleet.Start(ctx, fleet.Options{State: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()

	began := time.Now()
	links, err := fill(ctx, f, n, connections, filepath.Join(f.Dir, "codes.txt"))
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d links created over %d connections in %.1f s, no request failed\n",
		n, connections, time.Since(began).Seconds())
	if err := distinct(links, n); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d codes and %d targets, all distinct\n", n, n)
	stock, err := newStock(f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stock.close()) }()
	stored, err := stock.count(ctx)
	if err != nil {
		return err
	}
	if stored != n {
		return fmt.Errorf("there are %d links in Redis, not %d", stored, n)
	}
	fmt.Fprintf(stdout, "%d links in Redis (DBSIZE without the keys of nodes and the journal)\n", stored)
	if err := resolve(f.URL, links); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d links resolve to their own target through Nginx\n", n)
	return nil
}

// The target of the nth create of a run, as requests.lua makes it.
var loadTarget = regexp.MustCompile(`^https://example\.com/load/[0-9a-f]{8}/\d\d/\d{10}/some/long/page$`)

// distinct fails unless there are n links, with n codes and n targets that our scripts sent.
func distinct(links []created, n int) error {
	codes, targets := map[string]bool{}, map[string]bool{}
	for _, l := range links {
		if !loadTarget.MatchString(l.target) {
			return fmt.Errorf("code %s was answered with %q, which nobody sent", l.code, l.target)
		}
		codes[l.code], targets[l.target] = true, true
	}
	if len(links) != n || len(codes) != n || len(targets) != n {
		return fmt.Errorf("%d links have %d codes and %d targets; want %d of each", len(links), len(codes), len(targets), n)
	}
	return nil
}

// resolve follows every link at url and fails unless each answer is a 302 to the
// link's own target.
func resolve(url string, links []created) error {
	client := &fasthttp.Client{MaxConnsPerHost: 64, ReadTimeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	var (
		next, wrong atomic.Int64
		first       error
		once        sync.Once
		workers     sync.WaitGroup
	)
	for range client.MaxConnsPerHost {
		workers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(links) {
					return
				}
				if err := follow(client, url, links[i]); err != nil {
					wrong.Add(1)
					once.Do(func() { first = err })
				}
			}
		})
	}
	workers.Wait()
	if first != nil {
		return fmt.Errorf("%d of %d links do not resolve; one: %w", wrong.Load(), len(links), first)
	}
	return nil
}

func follow(client *fasthttp.Client, url string, l created) error {
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	defer fasthttp.ReleaseResponse(resp)
	req.SetRequestURI(url + "/" + l.code)
	if err := client.Do(req, resp); err != nil {
		return fmt.Errorf("GET /%s: %w", l.code, err)
	}
	if location := string(resp.Header.Peek(fasthttp.HeaderLocation)); resp.StatusCode() != fasthttp.StatusFound || location != l.target {
		return fmt.Errorf("GET /%s: %d to %q, want 302 to %q", l.code, resp.StatusCode(), location, l.target)
	}
	return nil
}
