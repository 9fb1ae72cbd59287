package docs_test

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"snowlink/docs"
)

// The picture of imports, from the packages that import most to those that import nothing. Go refuses
// circles; the order and the rows show whether the arrows are those that were meant.
func TestDocsImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "snowlink/server", "snowlink/internal/...", "snowlink/snowflake").Output()
	if err != nil {
		t.Fatal(err)
	}
	imports := make(map[string][]string)
	name := func(path string) string {
		return strings.TrimPrefix(strings.TrimPrefix(path, "snowlink/"), "internal/")
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		of := name(fields[0])
		if strings.HasPrefix(of, "fleet") || strings.HasSuffix(of, "test") {
			continue // for tests
		}
		imports[of] = nil
		for _, path := range fields[1:] {
			if strings.HasPrefix(path, "snowlink/") {
				imports[of] = append(imports[of], name(path))
			}
		}
	}
	var height func(of string) int // the longest way down from it
	height = func(of string) (h int) {
		for _, i := range imports[of] {
			h = max(h, height(i)+1)
		}
		return h
	}
	var names []string
	for of := range imports {
		names = append(names, of)
	}
	slices.SortFunc(names, func(a, b string) int {
		if d := height(b) - height(a); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	var table strings.Builder
	table.WriteString("| package | imports of ours |\n|---|---|\n")
	for _, of := range names {
		fmt.Fprintf(&table, "| %s | %s |\n", of, strings.Join(imports[of], ", "))
	}
	docs.Made(t, "design.md", "imports", table.String())
	if len(imports["link"]) > 0 {
		t.Errorf("link imports %s: it is the domain, and imports nothing else of ours", imports["link"])
	}
}
