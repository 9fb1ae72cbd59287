package docs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"snowlink/docs"
)

const results = "../loadtest/results/"

// A table is one of Markdown: the header, the line below it, and the rows.
type table [][]string

// tableUnder reads the first table below the line that begins so.
func tableUnder(t *testing.T, page, line string) table {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut("\n"+string(text), "\n"+line)
	var rows table
	for l := range strings.Lines(rest) {
		if cells, ok := strings.CutPrefix(strings.TrimSpace(l), "|"); ok {
			cells = strings.TrimSuffix(cells, "|")
			rows = append(rows, strings.Split(cells, "|"))
			for i, cell := range rows[len(rows)-1] {
				rows[len(rows)-1][i] = strings.TrimSpace(cell)
			}
		} else if len(rows) > 0 {
			break
		}
	}
	if !found || len(rows) < 3 {
		t.Fatalf("%s has no table below %q", page, line)
	}
	return rows
}

// only keeps the columns that are named, in that order.
func (rows table) only(t *testing.T, names ...string) (kept table) {
	t.Helper()
	for _, row := range rows {
		var cells []string
		for _, name := range names {
			i := slices.Index(rows[0], name)
			if i < 0 {
				t.Fatalf("there is no column %q among %q", name, rows[0])
			}
			cells = append(cells, row[i])
		}
		kept = append(kept, cells)
	}
	return kept
}

// cell is what the row that begins so has in the column.
func (rows table) cell(t *testing.T, first, column string) string {
	t.Helper()
	for i, row := range rows {
		if row[0] == first {
			return rows.only(t, column)[i][0]
		}
	}
	t.Fatalf("there is no row %q", first)
	return ""
}

func (rows table) String() string {
	var b strings.Builder
	for _, row := range rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	return b.String()
}

// paragraph is the one of a page that begins so.
func paragraph(t *testing.T, page, begins string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n\n"+begins)
	if !found {
		t.Fatalf("%s has no paragraph that begins %q", page, begins)
	}
	rest, _, _ = strings.Cut(rest, "\n\n")
	return begins + rest
}

// measured says when a page of results was measured, with a link to it.
func measured(t *testing.T, name string) string {
	t.Helper()
	when, _, _ := strings.Cut(paragraph(t, results+name, "Measured "), ", by")
	return fmt.Sprintf("\n%s. How, and more: [loadtest/results/%s](../loadtest/results/%s).\n", when, name, name)
}

func TestDocsBenchmarks(t *testing.T) {
	const page = "benchmarks.md"
	bench, growth := results+"bench.md", results+"growth.md"
	for name, want := range map[string]string{
		"bars": tableUnder(t, bench, "## Bars").String() + measured(t, "bench.md"),
		"figures": tableUnder(t, bench, "## Figures").only(t, "", "connections", "requests a second", "limit", "ratio", "p50 ms", "p99 ms",
			"backend CPU µs", "Nginx CPU µs", "Redis CPU µs").String(),
		"eviction":    paragraph(t, bench, "Of "),
		"archive":     tableUnder(t, bench, "## Archive").String(),
		"bulk":        tableUnder(t, results+"bulk.md", "## Bulk").String() + measured(t, "bulk.md"),
		"move":        tableUnder(t, results+"bulk.md", "## Export").String(),
		"links":       tableUnder(t, growth, "## Links").String() + measured(t, "growth.md"),
		"memory":      tableUnder(t, growth, "made them").String() + "\n" + paragraph(t, growth, "A link has a code"),
		"connections": tableUnder(t, growth, "## Connections").String(),
		"faults": tableUnder(t, results+"faults.md", "# ").only(t, "#", "fault", "acknowledged", "lost", "wrong", "failed GET / create", "sent again",
			"longest outage of GET / create", "promises").String() + measured(t, "faults.md"),
	} {
		docs.Made(t, page, name, want)
	}
}

// The README names three results, which are those of loadtest/results.
func TestDocsResultsOfTheREADME(t *testing.T) {
	bars, figures := tableUnder(t, results+"bench.md", "## Bars"), tableUnder(t, results+"bench.md", "## Figures")
	speed := func(row string) string {
		return fmt.Sprintf("%s a second, %s ms at the 99th percentile | %s of what a constant answer reaches there",
			figures.cell(t, row, "requests a second"), figures.cell(t, row, "p99 ms"), bars.cell(t, row, "measured"))
	}
	hold := 0
	for _, row := range bars.only(t, "holds")[2:] {
		if row[0] == "yes" {
			hold++
		}
	}

	var acknowledged, wrong, held int
	faults := tableUnder(t, results+"faults.md", "# ").only(t, "acknowledged", "wrong", "promises")[2:]
	for _, row := range faults {
		a, _ := strconv.Atoi(row[0])
		w, _ := strconv.Atoi(row[1])
		acknowledged, wrong = acknowledged+a, wrong+w
		if row[2] == "held" {
			held++
		}
	}
	docs.Made(t, "../README.md", "results", fmt.Sprintf(`
| | measured | |
|---|---|---|
| hot redirect, one backend, 64 connections | %s |
| create, one backend, 256 connections | %s |
| %d faults under load, from kill -9 to a full disk | of %s links acknowledged, %d led to a wrong target | %d of %d kept what is promised |

%d of the %d bars hold that `+"`make bench`"+` sets.`,
		speed("hot redirect, direct"), speed("create, direct, 256"), len(faults), thousands(acknowledged), wrong, held, len(faults), hold, len(bars)-2))
}

// thousands writes 12345 as 12,345.
func thousands(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

// pages are all that people read.
func pages(t *testing.T) []string {
	t.Helper()
	pages := []string{"../README.md", "../SECURITY.md", "../CONTRIBUTING.md", "../CHANGELOG.md"}
	err := filepath.WalkDir("../docs", func(path string, d os.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			pages = append(pages, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return pages
}
