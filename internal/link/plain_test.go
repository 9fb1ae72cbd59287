package link

import (
	"strings"
	"testing"
)

func TestIsPlain(t *testing.T) {
	for _, raw := range []string{
		"https://example.com/",
		"http://www.example.co.uk/a/b.html?x=1&y=%20+z#frag'?",
		"https://a-b.example/it's/%C3%A9/~user/;v=1,(2)!$*@:",
		"https://4.example/a.b/..c.d/",
	} {
		if _, ok := isPlain(raw); ok != !strings.Contains(raw, "/..") {
			t.Errorf("isPlain(%q) = %v", raw, ok)
		}
	}
}

// FuzzIsPlain checks that the parser returns unchanged what isPlain takes.
func FuzzIsPlain(f *testing.F) {
	for _, seed := range []string{
		"https://example.com/", "http://a.b/%2e", "https://a.b/.", "https://a.b/a/..", "https://a.b/?'", "https://a.b/#'", "https://a.b/?a#b?c#d",
		"https://1.2.3.4/", "https://a.0x1/", "https://xn--a/", "https://a--b/", "https://-a/", "https://a-/", "https://a./", "https://localhost/", "https://a.b/%zz",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		host, ok := isPlain(raw)
		if !ok {
			return
		}
		u, err := parse(raw)
		if err != nil || u.Href(false) != raw || !isCanonical(raw) || u.Hostname() != host {
			t.Errorf("isPlain(%q) = %q, the parser says %v, %v", raw, host, u, err)
		}
	})
}
