package link_test

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"snowlink/internal/link"
)

func TestParseTarget(t *testing.T) {
	own := newHosts(t, "https://sn.example")
	for _, tt := range []struct {
		name, raw, want string
	}{
		{"plain", "https://example.com/a/b?c=d#e", "https://example.com/a/b?c=d#e"},
		{"no path", "https://example.com", "https://example.com/"},
		{"query only", "https://example.com?a=b", "https://example.com/?a=b"},
		{"fragment only", "https://example.com#a", "https://example.com/#a"},
		{"upper case", "HTTPS://EXAMPLE.com/Path", "https://example.com/Path"},
		{"spaces around", "  https://example.com/ ", "https://example.com/"},
		{"space inside", "https://example.com/a b?c d#e f", "https://example.com/a%20b?c%20d#e%20f"},
		{"default port of http", "http://example.com:80/", "http://example.com/"},
		{"default port of https", "https://example.com:00443/", "https://example.com/"},
		{"empty port", "https://example.com:/", "https://example.com/"},
		{"other port", "http://example.com:443/", "http://example.com:443/"},
		{"highest port", "http://example.com:65535/", "http://example.com:65535/"},
		{"dot segments", "https://example.com/a/./b/../c/%2e%2E/d", "https://example.com/a/d"},
		{"above the root", "https://example.com/../../a", "https://example.com/a"},
		{"double slashes stay", "https://example.com//a//b", "https://example.com//a//b"},
		{"trailing dot stays", "https://example.com./", "https://example.com./"},
		{"percent-encoding stays", "https://example.com/%2F%zz%41", "https://example.com/%2F%zz%41"},
		{"at sign in path", "https://example.com/@user", "https://example.com/@user"},
		{"at sign in query", "https://example.com?to=a@b", "https://example.com/?to=a@b"},
		{"URL in path", "https://example.com/https://other.example/", "https://example.com/https://other.example/"},
		{"reserved in path", "https://example.com/^`{}|\"<>'", "https://example.com/%5E%60%7B%7D|%22%3C%3E'"},
		{"reserved in query", "https://example.com/?^`{}|\"<>'", "https://example.com/?^`{}|%22%3C%3E%27"},
		{"reserved in fragment", "https://example.com/#^`{}|\"<>'", "https://example.com/#^%60{}|%22%3C%3E'"},
		{"not ASCII", "https://example.com/é?ü#漢", "https://example.com/%C3%A9?%C3%BC#%E6%BC%A2"},
		{"Unicode host", "https://Bücher.example/", "https://xn--bcher-kva.example/"},
		{"sharp s", "https://faß.example/", "https://xn--fa-hia.example/"},
		{"fullwidth host", "https://ｅxample．com/", "https://example.com/"},
		{"ideographic full stop", "https://example。com/", "https://example.com/"},
		{"soft hyphen in host", "https://exam\u00adple.com/", "https://example.com/"},
		{"percent-encoded host", "https://ex%41mple%2ecom/", "https://example.com/"},
		{"underscore in host", "https://_A_.example.com/", "https://_a_.example.com/"},
		{"IPv4", "http://192.0.2.1/", "http://192.0.2.1/"},
		{"IPv4 as a number", "http://3221225985/", "http://192.0.2.1/"},
		{"IPv4 in hexadecimal", "http://0xC0.0x0.513/", "http://192.0.2.1/"},
		{"IPv4 in octal", "http://0300.0.2.01/", "http://192.0.2.1/"},
		{"IPv4 with trailing dot", "http://192.0.2.1./", "http://192.0.2.1/"},
		{"IPv6", "http://[2001:DB8:0:0:0:0:0:1]:8080/", "http://[2001:db8::1]:8080/"},
		{"IPv4 in IPv6", "http://[::ffff:192.0.2.1]/", "http://[::ffff:c000:201]/"},
		{"longest", longURL(2048), longURL(2048)},
		{"short enough once parsed", "https://example.com/" + strings.Repeat("a/../", 1000), "https://example.com/"},
		{"many segments", "HTTPS://example.com/" + strings.Repeat("é /", 200) + ".", "https://example.com/" + strings.Repeat("%C3%A9%20/", 200)},
		{"longest host name", "https://" + strings.Repeat("a.", 126) + "a/", "https://" + strings.Repeat("a.", 126) + "a/"},
		{"longest host name with a trailing dot", "https://" + strings.Repeat("a.", 127) + "/", "https://" + strings.Repeat("a.", 127) + "/"},
		{"longest label", "https://" + strings.Repeat("a", 63) + ".example/", "https://" + strings.Repeat("a", 63) + ".example/"},
		{"longest labels between ideographic full stops", "https://" + strings.Repeat(strings.Repeat("a", 62)+"。", 4) + "/", "https://" + strings.Repeat(strings.Repeat("a", 62)+".", 4) + "/"},
		{"the loopback of others", "http://127.0.0.1/", "http://127.0.0.1/"},
		{"own host as a part", "https://sn.example.com/", "https://sn.example.com/"},
		{"below own host", "https://www.sn.example/", "https://www.sn.example/"},
		{"own host in query", "https://example.com/?https://sn.example", "https://example.com/?https://sn.example"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := link.ParseTarget(tt.raw, own); got != tt.want || err != nil {
				t.Errorf("ParseTarget(%.100q) = %.100q, %v, want %.100q", tt.raw, got, err, tt.want)
			}
		})
	}
}

func TestParseTargetRefuses(t *testing.T) {
	const (
		empty   = "empty"
		scheme  = "start with http:// or https://"
		host    = "no host"
		invalid = "neither a valid domain name nor a valid IP address"
		port    = "port"
		user    = "user name or password"
		control = "control character"
		length  = "longer than 2,048 bytes"
	)
	for _, tt := range []struct {
		name, raw string
		rule      string // a part of the detail
	}{
		{"nothing", "", empty},
		{"only spaces", "   ", empty},
		{"no scheme", "example.com/a", scheme},
		{"relative to a scheme", "//example.com/", scheme},
		{"path", "/a", scheme},
		{"only a scheme", "https", scheme},
		{"javascript", "javascript:alert(1)", scheme},
		{"javascript with slashes", "javascript://example.com/%0Aalert(1)", scheme},
		{"data", "data:text/html,hello", scheme},
		{"file", "file:///etc/passwd", scheme},
		{"ftp", "ftp://example.com/", scheme},
		{"websocket", "wss://example.com/", scheme},
		{"mail", "mailto:a@example.com", scheme},
		{"view-source", "view-source:https://example.com/", scheme},
		{"scheme with a space", "https ://example.com/", scheme},
		{"no slashes", "https:example.com", scheme},
		{"one slash", "https:/example.com", scheme},
		{"three slashes", "https:///example.com", host},
		{"no host", "https://", host},
		{"no host but a port", "https://:443/", host},
		{"no host but a query", "https://?a=b", host},
		{"no host but a fragment", "https://#a", host},
		{"only dots", "https://../a", host},
		{"only a percent-encoded dot", "https://%2e/a", host},
		{"only a soft hyphen", "https://\u00ad/", invalid},
		{"user", "https://bob@example.com/", user},
		{"user and password", "https://bob:s3cret@example.com/", user},
		{"empty user", "https://@example.com/", user},
		{"two at signs", "https://bob:s3cret@a@example.com/", user},
		{"user and no host", "https://bob:s3cret@/", user},
		{"user that looks like a host", "https://example.com:443@192.0.2.1/", user},
		{"very long user", "https://" + strings.Repeat("@", 1<<20) + "/", user},
		{"port too high", "https://example.com:65536/", port},
		{"port far too high", "https://example.com:99999999999999999999999/", port},
		{"port not a number", "https://example.com:a/", port},
		{"port with a sign", "https://example.com:+80/", port},
		{"tab", "https://example.com/a\tb", control},
		{"tab in scheme", "ht\ttps://example.com/", control},
		{"line feed at the end", "https://example.com/\n", control},
		{"response splitting", "https://example.com/\r\nSet-Cookie: a=b", control},
		{"NUL", "https://example.com/\x00", control},
		{"escape", "\x1bhttps://example.com/", control},
		{"DEL", "https://example.com/\x7f", control},
		{"C1 control", "https://example.com/\u0085", control},
		{"backslash for slash", `https:\\example.com\a`, "backslash"},
		{"backslash before at sign", `https://example.com\@192.0.2.1/`, "backslash"},
		{"backslash in query", `https://example.com/?a\b`, "backslash"},
		{"invalid UTF-8", "https://example.com/\xff", "UTF-8"},
		{"surrogate", "https://example.com/\xed\xa0\x80", "UTF-8"},
		{"space in host", "https://exa mple.com/", invalid},
		{"percent-encoded space in host", "https://exa%20mple.com/", invalid},
		{"percent-encoded at sign in host", "https://a%40example.com/", invalid},
		{"percent-encoded slash in host", "https://a%2fexample.com/", invalid},
		{"percent-encoded NUL in host", "https://a%00example.com/", invalid},
		{"percent-encoded bad UTF-8 in host", "https://a%ffexample.com/", invalid},
		{"percent-encoded twice in host", "https://a%2541example.com/", invalid},
		{"fullwidth percent sign in host", "https://a％41example.com/", invalid},
		{"angle bracket in host", "https://<a>.example.com/", invalid},
		{"bad Punycode", "https://xn--a/", invalid},
		{"left-to-right mark in host", "https://exa\u200emple.com/", invalid},
		{"not equal sign in host", "https://a≠b.example/", "every browser reads alike"},
		{"IPv4 out of range", "http://256.0.0.1/", invalid},
		{"IPv4 number out of range", "http://4294967296/", invalid},
		{"IPv4 of five parts", "http://1.2.3.4.5/", invalid},
		{"IPv4 with an empty part", "http://1..2/", invalid},
		{"IPv4 with a name", "http://example.1/", invalid},
		{"sign in IPv4", "http://1.+2/", "plain digits"},
		{"negative IPv4", "http://-5/", "plain digits"},
		{"negative hexadecimal IPv4", "http://0x-1:80/", "plain digits"},
		{"percent-encoded sign in IPv4", "http://1.%2B2/", "plain digits"},
		{"fullwidth sign in IPv4", "http://－5/", "plain digits"},
		{"IPv6 without brackets", "http://::1/", host},
		{"IPv6 unclosed", "http://[::1/", invalid},
		{"IPv6 empty", "http://[]/", invalid},
		{"IPv6 of nine parts", "http://[1:2:3:4:5:6:7:8:9]/", invalid},
		{"IPv6 with a zone", "http://[fe80::1%25eth0]/", invalid},
		{"after IPv6", "http://[::1]a/", invalid},
		{"too long", longURL(2049), length},
		{"too long once parsed", "https://example.com/" + strings.Repeat("é", 400), length},
		{"very long", longURL(1 << 16), length},
		{"very long host", "https://" + strings.Repeat("a", 1<<20) + "/", "host is too long"},
		{"a host of 254 bytes", "https://" + strings.Repeat("a.", 126) + "aa/", "host is too long"},
		{"a label of 64 bytes", "https://" + strings.Repeat("a", 64) + ".example/", "host is too long"},
		{"a percent-encoded label of 64 bytes", "https://" + strings.Repeat("%61", 64) + ".example/", "host is too long"},
		{"a Unicode label of 64 characters", "https://" + distinctRunes(3*64) + ".example/", "host is too long"},
		{"a Unicode label of 64 bytes in Punycode", "https://" + strings.Repeat("ü", 60) + "/", "host is too long"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := link.ParseTarget(tt.raw, link.Hosts{})
			detail := detailOf(t, err)
			if got != "" {
				t.Errorf("returned %q beside the error", got)
			}
			if !strings.Contains(detail, tt.rule) {
				t.Errorf("the detail %q does not tell %q", detail, tt.rule)
			}
			if strings.Contains(detail, "s3cret") || strings.Contains(detail, "bob") {
				t.Errorf("the detail %q repeats a secret", detail)
			}
		})
	}
}

func TestParseTargetRefusesOwnHosts(t *testing.T) {
	for _, tt := range []struct {
		base, other string // other is a target that is allowed
		own         []string
	}{
		{"https://sn.example", "https://example.com/", []string{
			"https://sn.example/abc",
			"http://sn.example/",
			"https://sn.example:8443/",
			"https://SN.Example/",
			"https://sn.example./",
			"https://sn.example../",
			"https://sn.example.:443/",
			"https://s%6e.example/",
			"https://sn%2eexample/",
			"https://sn。example/",
			"https://ｓｎ.example/",
			"https://s\u00adn.example/",
			"https://sn.example?a",
			"https://sn.example#a",
			"https://sn.example:/",
		}},
		{"https://Bücher.example:8443", "https://bucher.example/", []string{
			"https://bücher.example/",
			"https://BÜCHER.example/",
			"https://bu\u0308cher.example/",
			"https://xn--bcher-kva.example/",
			"https://XN--BCHER-KVA.example/",
		}},
		{"http://192.0.2.1", "http://192.0.2.2/", []string{
			"http://192.0.2.1:8080/",
			"http://192.0.2.1./",
			"http://192.0.2.1../",
			"http://3221225985/",
			"http://0xc0000201/",
			"http://0300.0.0x2.1/",
			"http://192.0.513/",
			"http://[::ffff:192.0.2.1]/",
			"http://[::FFFF:c000:0201]/",
		}},
		{"http://[2001:db8::1]:8000", "http://[2001:db8::2]/", []string{
			"http://[2001:DB8:0:0:0:0:0:1]/",
			"http://[2001:db8::0.0.0.1]/",
		}},
		{"http://[::ffff:192.0.2.1]", "http://192.0.2.2/", []string{"http://192.0.2.1/"}},
		{"http://localhost:8000", "http://192.0.2.1/", loopback},
		{"http://LOCALHOST.", "http://192.0.2.1/", loopback},
		{"http://sn.localhost", "http://192.0.2.1/", loopback},
		{"http://127.0.0.1", "http://192.0.2.1/", loopback},
		{"http://127.1.2.3:8000", "http://192.0.2.1/", loopback},
		{"http://0.0.0.0:8000", "http://192.0.2.1/", loopback},
		{"http://[::1]:8000", "http://192.0.2.1/", loopback},
	} {
		t.Run(tt.base, func(t *testing.T) {
			own := newHosts(t, tt.base)
			for _, raw := range tt.own {
				got, err := link.ParseTarget(raw, own)
				if err == nil {
					t.Errorf("%q became %q", raw, got)
				} else if detail := detailOf(t, err); !strings.Contains(detail, "this service") {
					t.Errorf("%q: the detail is %q", raw, detail)
				}
			}
			if got, err := link.ParseTarget(tt.other, own); got != tt.other || err != nil {
				t.Errorf("%q became %q, %v", tt.other, got, err)
			}
		})
	}
}

var loopback = []string{
	"http://localhost/",
	"https://LocalHost:1234/",
	"http://localhost./",
	"http://any.localhost/",
	"http://sn.localhost./",
	"http://ｌｏｃａｌｈｏｓｔ/",
	"http://local\u00adhost/",
	"http://%6cocalhost/",
	"http://127.0.0.1/",
	"http://127.0.0.1./",
	"http://127.1/",
	"http://127.255.255.254/",
	"http://2130706433/",
	"http://0x7f.1/",
	"http://017700000001/",
	"http://[::1]/",
	"http://[0:0:0:0:0:0:0:1]/",
	"http://[::ffff:127.0.0.1]/",
	"http://[::ffff:7f00:1]/",
	"http://0/",
	"http://0.0.0.0/",
	"http://[::]/",
	"http://[::ffff:0.0.0.0]/",
}

func TestZeroHostsOwnsNothing(t *testing.T) {
	for _, raw := range []string{"http://localhost/", "http://[::]/", "http://a./"} {
		if got, err := link.ParseTarget(raw, link.Hosts{}); got != raw || err != nil {
			t.Errorf("%q became %q, %v", raw, got, err)
		}
	}
}

func TestParseBaseURLRefuses(t *testing.T) {
	for name, base := range map[string]string{
		"empty":          "",
		"no scheme":      "sn.example",
		"other scheme":   "ftp://sn.example",
		"no host":        "https://",
		"only a dot":     "https://.",
		"bad port":       "https://sn.example:port",
		"bad host":       "https://sn example",
		"path":           "https://sn.example/a",
		"query":          "https://sn.example?a",
		"empty query":    "https://sn.example?",
		"fragment":       "https://sn.example#a",
		"empty fragment": "https://sn.example#",
		"password":       "https://bob:s3cret@sn.example",
		"line break":     "https://sn.example\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, own, err := link.ParseBaseURL(base)
			if detail := detailOf(t, err); strings.Contains(detail, "s3cret") {
				t.Errorf("the detail %q repeats a secret", detail)
			}
			if own != (link.Hosts{}) {
				t.Errorf("returned %v beside the error", own)
			}
		})
	}
}

func TestParseBaseURLIsWhatBrowsersMakeOfIt(t *testing.T) {
	for raw, want := range map[string]string{
		"https://sn.example":        "https://sn.example",
		"https://sn.example/":       "https://sn.example",
		"HTTP://SN.Example:80":      "http://sn.example",
		"https://sn.example:8443":   "https://sn.example:8443",
		"https://bücher.example":    "https://xn--bcher-kva.example",
		" http://[0:0::1]:8000 ":    "http://[::1]:8000",
		"http://localhost:080/a/..": "http://localhost",
	} {
		if got, _, err := link.ParseBaseURL(raw); got != want || err != nil {
			t.Errorf("ParseBaseURL(%q) = %q, %v, want %q", raw, got, err, want)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, raw := range []string{
		"https://example.com/a/../b?c=d#e", "HTTP://EXAMPLE.COM:80", "http://0x7f.1", "http://[::ffff:127.0.0.1]:1/",
		"http://bücher.example/é", "http://a≠b", "http://1.+2", "http:///a", `http:\\a`, "http://a%40b@c", "http://xn--a",
		"http://sn.example.", "http://s\u00adn。example:8", "http://a/%zz?'#`", "\thttp://a\r\n", "http://[1::2:3.4.5.6]",
	} {
		f.Add(raw)
	}
	named, local := newHosts(f, "https://sn.example"), newHosts(f, "http://localhost:8000")
	f.Fuzz(func(t *testing.T, raw string) {
		target, err := link.ParseTarget(raw, named)
		if err != nil {
			if detailOf(t, err); target != "" {
				t.Fatalf("%q became %q beside an error", raw, target)
			}
			return
		}
		if len(target) > 2048 {
			t.Fatalf("%q became %d bytes", raw, len(target))
		}
		for _, c := range []byte(target) {
			if c <= ' ' || c > '~' {
				t.Fatalf("%q became %q", raw, target)
			}
		}
		if again, err := link.ParseTarget(target, named); again != target || err != nil {
			t.Fatalf("%q became %q, which becomes %q, %v", raw, target, again, err)
		}

		// The same by a parser that shares nothing with ours, as far as the host.
		scheme, rest, _ := strings.Cut(target, "://")
		authority, _, ok := strings.Cut(rest, "/")
		if !ok || scheme != "http" && scheme != "https" {
			t.Fatalf("%q became %q", raw, target)
		}
		if strings.ContainsAny(authority, "`{}") {
			return // the standard takes these in hosts and net/url does not
		}
		u, err := url.Parse(scheme + "://" + authority)
		if err != nil {
			t.Fatalf("%q became %q, which net/url refuses: %v", raw, target, err)
		}
		if u.User != nil || u.Host != authority || u.Hostname() == "" {
			t.Fatalf("%q became %q, with user %v and host %q", raw, target, u.User, u.Host)
		}
		host := strings.TrimRight(u.Hostname(), ".")
		if host == "sn.example" {
			t.Fatalf("%q became %q, which is ours", raw, target)
		}
		addr, _ := netip.ParseAddr(host)
		addr = addr.Unmap()
		onLoopback := addr.IsLoopback() || addr.IsUnspecified() || host == "localhost" || strings.HasSuffix(host, ".localhost")
		if _, err := link.ParseTarget(raw, local); (err != nil) != onLoopback {
			t.Fatalf("%q became %q; with the loopback ours: %v", raw, target, err)
		}
	})
}

func BenchmarkParseTarget(b *testing.B) {
	own := newHosts(b, "https://sn.example")
	for _, bb := range []struct{ name, raw string }{
		{"short", "https://example.com/"},
		{"usual", "https://www.example.com/articles/2026/01/how-links-work?utm_source=mail&utm_campaign=spring#top"},
		{"Unicode", "https://bücher.example/straße/größe?q=schön"},
		{"longest", longURL(2048)},
		{"longest host", "https://" + distinctRunes(1024) + "/"},
		{"longest labels", "https://" + strings.Repeat(distinctRunes(3*62)+".", 4) + "/"},
		{"longest labels once mapped", "https://" + strings.Repeat(strings.Repeat("\u3300\u3336\u334f\u3321\u3353\u334d\u3351", 8)+".", 4) + "/"},
		{"percent signs in a path", "https://example.com:81/é" + strings.Repeat("%", 2000)},
		{"most slashes", "https://example.com:81/" + strings.Repeat("/", 8160)},
		{"slashes that fit", "https://example.com:81/" + strings.Repeat("/", 2000)},
		{"percent signs", "https://example.com:81/?" + strings.Repeat("%", 2000)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				link.ParseTarget(bb.raw, own)
			}
		})
	}
}

func newHosts(t testing.TB, baseURL string) link.Hosts {
	t.Helper()
	_, own, err := link.ParseBaseURL(baseURL)
	if err != nil {
		t.Fatalf("ParseBaseURL(%q): %v", baseURL, err)
	}
	return own
}

// detailOf returns the detail of the error, which must be a TargetError whose detail is a sentence.
func detailOf(t testing.TB, err error) string {
	t.Helper()
	targetErr, ok := errors.AsType[*link.TargetError](err)
	if !ok {
		t.Fatalf("got %v, want a TargetError", err)
	}
	if d := targetErr.Detail; !strings.HasPrefix(d, "The URL") || !strings.HasSuffix(d, ".") {
		t.Fatalf("the detail %q is no sentence about the URL", d)
	}
	return targetErr.Detail
}

// longURL returns a URL of n bytes.
func longURL(n int) string {
	const start = "https://example.com/"
	return start + strings.Repeat("a", n-len(start))
}

// distinctRunes returns n bytes or a little less of runes that all differ, the worst case of
// Punycode.
func distinctRunes(n int) string {
	var b strings.Builder
	for r := '\u4e00'; b.Len()+3 <= n; r++ {
		b.WriteRune(r)
	}
	return b.String()
}
