package link_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"snowlink/internal/link"
	"snowlink/snowflake"
)

func TestParseCode(t *testing.T) {
	for _, raw := range []string{"abc", "spring-sale", "_a_", "---", "A1b", "123456789", "012345678901", "a23456789-", "a2345678_01", strings.Repeat("x", 64), "links2", "pings"} {
		if code, err := link.ParseCode(raw); code != raw || err != nil {
			t.Errorf("ParseCode(%q) = %q, %v", raw, code, err)
		}
	}
	for name, raw := range map[string]string{
		"empty": "", "too short": "ab", "too long": strings.Repeat("x", 65), "space": "a b", "dot": "robots.txt", "slash": "a/b", "plus": "abc+",
		"not ASCII": "grün", "control": "ab\n", "of 10 letters": "abcdefghij", "of 11 digits": "12345678901", "minted": snowflake.Encode(1 << 59),
		"reserved": "links", "reserved in capitals": "Generate_URL", "reserved name of files": "favicon",
	} {
		t.Run(name, func(t *testing.T) {
			code, err := link.ParseCode(raw)
			if _, ok := errors.AsType[*link.CodeError](err); !ok || code != "" {
				t.Errorf("ParseCode(%q) = %q, %v, want a CodeError", raw, code, err)
			}
		})
	}
}

func TestParseImported(t *testing.T) {
	for _, raw := range []string{"1", "-", "ab", "springsale", "12345678901", snowflake.Encode(1 << 59), strings.Repeat("x", link.MaxCode)} {
		if code, err := link.ParseImported(raw); code != raw || err != nil {
			t.Errorf("ParseImported(%q) = %q, %v", raw, code, err)
		}
	}
	for _, raw := range []string{"", strings.Repeat("x", link.MaxCode+1), "a b", "grün", "Links"} {
		code, err := link.ParseImported(raw)
		if _, ok := errors.AsType[*link.CodeError](err); !ok || code != "" {
			t.Errorf("ParseImported(%q) = %q, %v, want a CodeError", raw, code, err)
		}
	}
}

// FuzzParseCode checks that no code that may be chosen is one that the generator mints in this
// century.
func FuzzParseCode(f *testing.F) {
	for _, seed := range []string{"abc", "8h4LRT53E8", "AzL8n0Y58m7", "a-b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		code, err := link.ParseCode(raw)
		if err != nil {
			return
		}
		if code != raw || len(code) > 64 || strings.ContainsFunc(code, func(r rune) bool {
			return r != '-' && r != '_' && (r < '0' || r > '9') && (r|0x20 < 'a' || r|0x20 > 'z')
		}) {
			t.Errorf("ParseCode(%q) = %q", raw, code)
		}
		release := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
		if id, err := snowflake.Decode(code); err == nil && id.Time().After(release) {
			t.Errorf("%q may be minted at %s", code, id.Time())
		}
	})
}

func TestGone(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	for name, tt := range map[string]struct {
		options *link.Options
		want    bool
	}{
		"plain":           {nil, false},
		"open":            {&link.Options{Expires: now.Add(time.Millisecond)}, false},
		"expires now":     {&link.Options{Expires: now}, true},
		"disabled":        {&link.Options{Disabled: true}, true},
		"deleted":         {&link.Options{Deleted: true}, true},
		"other options":   {&link.Options{Title: "x", MaxVisits: 1}, false},
		"expired earlier": {&link.Options{Expires: now.Add(-time.Hour)}, true},
	} {
		if got := (link.Link{Target: "https://example.com/", Options: tt.options}).Gone(now); got != tt.want {
			t.Errorf("%s: Gone = %v", name, got)
		}
	}
}
