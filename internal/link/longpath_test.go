package link

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// wantLongPath checks that longPath returns what the parser makes of the whole path.
func wantLongPath(t *testing.T, path string) {
	t.Helper()
	u, err := parser.Parse("http://a" + path + "#")
	if err != nil {
		t.Fatalf("%q: %v", path, err)
	}
	if got := longPath(path); got != u.Pathname() && !(len(got) > maxTarget && strings.HasPrefix(u.Pathname(), got)) {
		t.Errorf("longPath(%q) = %q, the parser says %q", path, got, u.Pathname())
	}
}

func TestLongPath(t *testing.T) {
	segments := []string{"", "", ".", "..", "..", "%2E", ".%2e", "%2e%2E", "a", "a b", "é", "%", "%4", "%zz", "^", "...", " ", "|", "c:"}
	random := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		var path strings.Builder
		for range 1 + random.IntN(3*fewSegments) {
			path.WriteString("/" + segments[random.IntN(len(segments))])
		}
		wantLongPath(t, path.String())
	}
}

func FuzzLongPath(f *testing.F) {
	for _, path := range []string{"/", "//", "/a/../b/.", "/%2e/%2E%2e", "/ /%", "/..", "/a/.%2e/" + strings.Repeat("/x/", 100)} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		// Paths with these never reach longPath.
		if strings.HasPrefix(path, "/") && !strings.ContainsAny(path, "?#\\") {
			if _, _, err := check("http://a" + path + "#"); err == nil {
				wantLongPath(t, path)
			}
		}
	})
}
