package link

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// wantRest holds normaliseRest to what the parser makes of the whole URL.
func wantRest(t *testing.T, rest string) {
	t.Helper()
	raw, _, err := check("http://a" + rest)
	if err != nil {
		return
	}
	u, err := parser.Parse(raw)
	if err != nil {
		t.Fatalf("%q: %v", rest, err)
	}
	rest = strings.TrimPrefix(raw, "http://a") // check drops spaces at the end
	if got, want := normaliseRest(rest), strings.TrimPrefix(u.Href(false), "http://a"); got != want {
		t.Errorf("normaliseRest(%q) = %q, the parser says %q", rest, got, want)
	}
}

func TestRest(t *testing.T) {
	parts := []string{"", "", "/", "/", "/", "/.", "/..", "/..", "/%2E", "/.%2e", "/%2e%2E", "a", "a b", "é", "\ufffd", "%", "%4", "%zz", "^", "...", " ", "|", "c:",
		"'", "`{}", "<>\"", "[]~", "😀"}
	random := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		var rest strings.Builder
		for _, start := range []string{"/", "?", "#"} {
			if random.IntN(3) == 0 {
				continue
			}
			rest.WriteString(start)
			for range random.IntN(50) {
				rest.WriteString(parts[random.IntN(len(parts))])
			}
		}
		wantRest(t, rest.String())
	}
}

func FuzzRest(f *testing.F) {
	for _, rest := range []string{
		"", "/", "//", "/a/../b/.", "/%2e/%2E%2e", "/ /%", "/..", "/a/.%2e/" + strings.Repeat("/x/", 100), "?", "#", "/?#", "?a#b?c#d", "/é?'é#`é", "/%zz?%zz#%zz", "/a?b %",
	} {
		f.Add(rest)
	}
	f.Fuzz(func(t *testing.T, rest string) {
		if rest == "" || strings.IndexByte("/?#", rest[0]) >= 0 {
			wantRest(t, rest)
		}
	})
}
