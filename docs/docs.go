// Package docs keeps the pages true. Some parts of a page repeat another source, such as results or
// variables. `make docs` makes these parts from their source, and tests fail if they differ.
package docs

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var write = flag.Bool("write", false, "write the parts of pages that are made from something else")

// Made fails the test unless the part of the page between the comments
//
//	<!-- NAME: made by make docs from SOURCE -->
//	<!-- end of NAME -->
//
// is want. With -write it writes want there.
func Made(t *testing.T, page, name, want string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(text), "<!-- "+name+": made by make docs from ")
	source, rest, _ := strings.Cut(rest, "-->\n")
	got, after, ends := strings.Cut(rest, "<!-- end of "+name+" -->")
	if !begins || !ends {
		t.Fatalf("%s has no part between <!-- %s: made by make docs from … --> and <!-- end of %s -->", page, name, name)
	}
	if want = "\n" + strings.TrimSpace(want) + "\n\n"; got == want {
		return
	}
	if !*write {
		t.Errorf("%s: the part %q is not what its source says. Run `make docs` and commit what it writes. It should be:\n%s", page, name, want)
		return
	}
	text = []byte(before + "<!-- " + name + ": made by make docs from " + source + "-->\n" + want + "<!-- end of " + name + " -->" + after)
	if err := os.WriteFile(page, text, 0o644); err != nil {
		t.Fatal(err)
	}
}
