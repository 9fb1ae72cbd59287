package dashboard_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The libraries of the page are those that vendor.json names, byte for byte, under licences that allow it.
func TestVendored(t *testing.T) {
	raw, err := os.ReadFile("web/vendor/vendor.json")
	if err != nil {
		t.Fatal(err)
	}
	var packages []struct {
		Name, Version, Licence, Source string
		Files                          []struct{ To, SHA256 string }
	}
	if err := json.Unmarshal(raw, &packages); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"vendor.json": true}
	for _, p := range packages {
		if !slices.Contains([]string{"MIT", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "ISC"}, p.Licence) {
			t.Errorf("%s has the licence %q", p.Name, p.Licence)
		}
		if want := "https://registry.npmjs.org/" + p.Name + "/-/" + p.Name + "-" + p.Version + ".tgz"; p.Source != want {
			t.Errorf("%s %s comes from %q, want %q", p.Name, p.Version, p.Source, want)
		}
		licence := false
		for _, f := range p.Files {
			known[f.To] = true
			body, err := os.ReadFile("web/vendor/" + f.To)
			if err != nil {
				t.Error(err)
				continue
			}
			if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != f.SHA256 {
				t.Errorf("%s is not the file of %s %s: make vendor fetches it again", f.To, p.Name, p.Version)
			}
			licence = licence || strings.HasSuffix(f.To, ".LICENSE.txt")
		}
		if !licence {
			t.Errorf("the text of %s's licence is missing", p.Name)
		}
	}
	files, err := os.ReadDir("web/vendor")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !known[f.Name()] {
			t.Errorf("vendor.json does not know %s", f.Name())
		}
	}
}

var (
	entry       = regexp.MustCompile(`(?m)^  '([a-z0-9_.]+)': (.*),$`)
	placeholder = regexp.MustCompile(`\{\w+\}`)
	used        = regexp.MustCompile(`\bt\('([a-z0-9_.]+)'`)
)

// texts returns the texts of a language by their keys.
func texts(t *testing.T, path string) map[string]string {
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, m := range entry.FindAllStringSubmatch(string(raw), -1) {
		if _, twice := all[m[1]]; twice {
			t.Errorf("%s has %s twice", path, m[1])
		}
		all[m[1]] = m[2]
	}
	if lines := strings.Count(string(raw), "\n  '"); lines != len(all) {
		t.Errorf("%s: %d of %d entries can be read; each takes one line", path, len(all), lines)
	}
	return all
}

// Each language has every text, with the same placeholders, and the page uses none that is not there.
func TestTexts(t *testing.T) {
	placeholders := func(text string) []string {
		return slices.Compact(slices.Sorted(slices.Values(placeholder.FindAllString(text, -1))))
	}
	english := texts(t, "web/texts/en.js")
	languages, err := filepath.Glob("web/texts/*.js")
	if err != nil || len(languages) < 2 {
		t.Fatalf("languages: %v, %v", languages, err)
	}
	for _, path := range languages {
		words := texts(t, path)
		for key, text := range english {
			switch other, ok := words[key]; {
			case !ok:
				t.Errorf("%s lacks %s", path, key)
			case !slices.Equal(placeholders(text), placeholders(other)):
				t.Errorf("%s: %s has the placeholders %v, in English %v", path, key, placeholders(other), placeholders(text))
			}
		}
		for key := range maps.Keys(words) {
			if _, ok := english[key]; !ok {
				t.Errorf("%s has %s, which English lacks", path, key)
			}
		}
	}
	for _, pattern := range []string{"web/*.js", "web/ui/*.js", "web/sections/*.js"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range used.FindAllStringSubmatch(string(source), -1) {
				if _, ok := english[m[1]]; !ok {
					t.Errorf("%s uses %s, which is no text", path, m[1])
				}
			}
		}
	}
}
