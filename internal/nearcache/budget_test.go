//go:build !race

package nearcache_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"snowlink/internal/link"
	"snowlink/internal/nearcache"
)

// The operator sets CACHE_BYTES. The heap must not grow by more.
func TestMemoryBudget(t *testing.T) {
	for _, tt := range []struct {
		length  int
		owner   string
		options bool
	}{{20, "", false}, {60, "", false}, {500, "", false}, {20, "", true}, {500, "", true}, {20, "shop", false}, {60, strings.Repeat("o", 64), false}} {
		t.Run(fmt.Sprintf("targets of %d bytes, owner %q, options %v", tt.length, tt.owner, tt.options), func(t *testing.T) {
			const limit = 16 * megabyte
			links := reading{target: func(code string) string { return code + strings.Repeat("x", tt.length-len(code)) }, owner: tt.owner, options: tt.options}
			before := heap()
			c := nearcache.New(links, limit, staleIfError, prometheus.NewRegistry())
			defer c.Close()
			for i := range 2 * limit / 150 {
				if _, err := c.Get(t.Context(), fmt.Sprintf("%010d", i)); err != nil {
					t.Fatal(err)
				}
			}
			used := heap() - before
			if used > limit || used < limit/2 {
				t.Errorf("a full cache of %d bytes takes %d", limit, used)
			}
			t.Logf("takes %.2f of its limit", float64(used)/limit)
			runtime.KeepAlive(c)
		})
	}
}

// reading is a link.Store that makes up its links.
type reading struct {
	link.Store
	target  func(code string) string
	owner   string
	options bool
}

func (r reading) Get(_ context.Context, code string) (link.Link, error) {
	l := link.Link{Target: r.target(code), Owner: strings.Clone(r.owner)}
	if r.options {
		l.Options = &link.Options{Title: "The title of " + code, Tags: []string{"one of " + code, "another of " + code}}
	}
	return l, nil
}

func heap() int {
	for range 3 {
		runtime.GC()
	}
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int(s.HeapAlloc)
}
