package httpapi

import (
	"strings"
	"testing"

	"snowlink/internal/link"
)

// FuzzWithQuery: whatever a stranger's query, the target stays a target on the same host and path,
// and begins and ends as before. It is in this package because no HTTP client sends such queries.
func FuzzWithQuery(f *testing.F) {
	f.Add("https://example.com/a?b#c", "d=e&f")
	f.Add("https://example.com/?", "\r\nSet-Cookie: a=b#'\"\x00\xff%")
	f.Fuzz(func(t *testing.T, raw, query string) {
		target, err := link.ParseTarget(raw, link.Hosts{})
		if err != nil {
			return
		}
		got := withQuery(target, []byte(query))
		before, fragment, _ := strings.Cut(target, "#")
		if !strings.HasPrefix(got, before) || !strings.HasSuffix(got, fragment) {
			t.Errorf("%q with %q is %q", target, query, got)
		}
		if len(got) > 2048 { // longer than a target may be
			return
		}
		if again, err := link.ParseTarget(got, link.Hosts{}); err != nil || again != got {
			t.Errorf("%q with %q is %q, which browsers read as %q (%v)", target, query, got, again, err)
		}
	})
}
