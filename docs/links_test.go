package docs_test

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

var (
	fenced = regexp.MustCompile("(?ms)^```.*?^```")
	inline = regexp.MustCompile("`[^`\n]*`")
	// linked is [text](target) and ![text](target); a text may hold one pair of brackets.
	linked  = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	named   = regexp.MustCompile(`<a (?:id|name)="([^"]+)"`)
)

// Every relative link of a page leads to a file that is there, and every fragment to a heading.
func TestLinksResolve(t *testing.T) {
	checked := 0
	for _, page := range pages(t) {
		for _, target := range links(t, page) {
			u, err := url.Parse(target)
			if err != nil {
				t.Errorf("%s: %q is not a URL: %v", page, target, err)
				continue
			}
			if u.IsAbs() {
				continue
			}
			checked++
			file := page
			if u.Path != "" {
				file = filepath.Join(filepath.Dir(page), u.Path)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s links to %s, which is not there", page, target)
			} else if u.Fragment != "" && !anchors(t, file)[u.Fragment] {
				t.Errorf("%s links to %s, and %s has no such heading", page, target, file)
			}
		}
	}
	if checked < 30 {
		t.Errorf("only %d links were found: the pages are not read as they should be", checked)
	}
}

// A decision that no page links to is not found by anybody.
func TestEveryPageIsLinked(t *testing.T) {
	linkedTo := make(map[string]bool)
	for _, page := range pages(t) {
		for _, target := range links(t, page) {
			target, _, _ = strings.Cut(target, "#")
			linkedTo[filepath.Join(filepath.Dir(page), target)] = true
		}
	}
	for _, page := range pages(t) {
		if page != "../README.md" && !linkedTo[page] {
			t.Errorf("no page links to %s", page)
		}
	}
}

func read(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return fenced.ReplaceAllString(string(text), "")
}

func links(t *testing.T, page string) (targets []string) {
	t.Helper()
	for _, m := range linked.FindAllStringSubmatch(inline.ReplaceAllString(read(t, page), "code"), -1) {
		targets = append(targets, m[1])
	}
	return targets
}

// anchors are the fragments of a page, as GitHub makes them of its headings: lower case, spaces as
// hyphens, without punctuation, and numbered where a heading comes again.
func anchors(t *testing.T, page string) map[string]bool {
	t.Helper()
	found := make(map[string]bool)
	text := read(t, page)
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		title := linked.ReplaceAllString(m[1], "]")
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(title))
		unique := anchor
		for n := 1; found[unique]; n++ {
			unique = anchor + "-" + strconv.Itoa(n)
		}
		found[unique] = true
	}
	for _, m := range named.FindAllStringSubmatch(text, -1) {
		found[m[1]] = true
	}
	return found
}
