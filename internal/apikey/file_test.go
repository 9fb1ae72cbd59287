package apikey_test

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"snowlink/internal/apikey"
)

func TestParseFile(t *testing.T) {
	digest := strings.Repeat("0f", 32)
	good := "shop sha256:" + digest + " scopes=create"
	for _, tt := range []struct {
		name, text string
		want       []string // as lines; nothing for an error
		rule       string   // in the error
	}{
		{"nothing", "", nil, ""},
		{"comments and blank lines", "# keys\n\n \t\n  # more\n", nil, ""},
		{"one", good, []string{good}, ""},
		{"spaces, a comment, CRLF", "\t" + strings.ReplaceAll(good, " ", " \t ") + " # the shop\r\n", []string{good}, ""},
		{"rate, in any order", "shop sha256:" + digest + " rate=100/m scopes=read,create", []string{"shop sha256:" + digest + " scopes=create,read rate=100/m"}, ""},
		{"an upper-case digest", strings.Replace(good, digest, strings.ToUpper(digest), 1), []string{good}, ""},
		{"every scope, hours", good + ",manage,read,admin rate=1000000/h", []string{good + ",manage,read,admin rate=1000000/h"}, ""},
		{"of a time before admin", good + ",manage,read", []string{good + ",manage,read"}, ""},
		{"admin", good + ",admin,read", []string{good + ",read,admin"}, ""},
		{"a new secret for a name", good + "\n" + strings.Replace(good, "0f", "f0", 1), []string{good, strings.Replace(good, "0f", "f0", 1)}, ""},

		{"no digest", "shop scopes=create rate=1/s", nil, "line 1: after the name comes sha256:"},
		{"no scopes", "shop sha256:" + digest, nil, "line 1: a key is: NAME"},
		{"a rate in place of scopes", "shop sha256:" + digest + " rate=1/s", nil, "line 1: a key is: NAME"},
		{"too much", good + " rate=1/s more", nil, "line 1: a key is: NAME"},
		{"an unknown field", good + " speed=1/s", nil, "line 1: a key is: NAME"},
		{"scopes twice", good + " scopes=read", nil, "line 1: a key is: NAME"},
		{"a name with a brace", "sh{op}" + good, nil, "line 1: a name has"},
		{"a long name", strings.Repeat("a", 61) + good, nil, "line 1: a name has"},
		{"a secret for a digest", strings.Replace(good, "sha256:"+digest, "hidden", 1), nil, "line 1: after the name"},
		{"a short digest", strings.Replace(good, digest, digest[2:], 1), nil, "64 hexadecimal"},
		{"a long digest", strings.Replace(good, digest, digest+"00", 1), nil, "64 hexadecimal"},
		{"the digest of nothing", fmt.Sprintf("shop sha256:%x scopes=create", sha256.Sum256(nil)), nil, "line 1: this is the digest of an empty secret"},
		{"no hexadecimal", strings.Replace(good, "0f", "0g", 1), nil, "64 hexadecimal"},
		{"another hash", strings.Replace(good, "sha256", "sha512", 1), nil, "64 hexadecimal"},
		{"an unknown scope", good + ",all", nil, "scopes= takes"},
		{"no scope", strings.TrimSuffix(good, "create"), nil, "scopes= takes"},
		{"rate of zero", good + " rate=0/s", nil, "rate= takes"},
		{"rate above the most", good + " rate=1000001/s", nil, "rate= takes"},
		{"rate by the day", good + " rate=1/d", nil, "rate= takes"},
		{"rate without a unit", good + " rate=100", nil, "rate= takes"},
		{"negative rate", good + " rate=-1/s", nil, "rate= takes"},
		{"one secret for two names", good + "\n\nother" + good, nil, "line 3: this digest"},
		{"two rates for a name", good + "\n" + strings.Replace(good, "0f", "f0", 1) + " rate=1/s", nil, "line 2: this name has another rate"},
		{"two wrong lines", "x\n" + good + "\ny\n", nil, "line 3: a key is"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			keys, err := apikey.ParseFile(tt.text)
			if tt.rule != "" {
				if err == nil || !strings.Contains(err.Error(), tt.rule) || len(keys) > 0 {
					t.Fatalf("ParseFile = %v, %v, want an error with %q", keys, err, tt.rule)
				}
				if strings.Contains(err.Error(), "hidden") {
					t.Errorf("the error shows a secret: %v", err)
				}
				return
			}
			var lines []string
			for _, k := range keys {
				lines = append(lines, k.String())
			}
			if err != nil || strings.Join(lines, "\n") != strings.Join(tt.want, "\n") {
				t.Errorf("ParseFile = %q, %v, want %q", lines, err, tt.want)
			}
		})
	}
}

// FuzzParse: a key that was read is written as a line that means the same.
func FuzzParse(f *testing.F) {
	f.Add("shop sha256:" + strings.Repeat("0f", 32) + " scopes=create,read rate=100/s")
	f.Add("shop sha256: scopes= rate=")
	f.Fuzz(func(t *testing.T, line string) {
		key, err := apikey.Parse(line)
		if err != nil {
			return
		}
		if again, err := apikey.Parse(key.String()); err != nil || again != key {
			t.Errorf("%q is read as %q, and that as %v, %v", line, key, again, err)
		}
	})
}
