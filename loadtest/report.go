package main

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"text/template"
	"time"

	"snowlink/loadtest/fleet"
)

// environment is where a result was measured: without it a number says nothing.
type environment struct {
	Date, Commit                       string
	CPU, Kernel, Go, Nginx, Redis, Wrk string
	Cores                              int
	root                               string
}

func readEnvironment(ctx context.Context) (environment, error) {
	root, err := fleet.ModuleRoot(ctx)
	if err != nil {
		return environment{}, err
	}
	e := environment{
		Date: time.Now().UTC().Format("2006-01-02 15:04 UTC"), Go: runtime.Version(), Cores: runtime.NumCPU(), root: root,
		Commit: "unknown", CPU: "unknown CPU", Kernel: "unknown",
	}
	for program, args := range map[string]struct {
		arg  string
		into *string
	}{
		"nginx":        {"-v", &e.Nginx},
		"redis-server": {"--version", &e.Redis},
		"wrk":          {"-v", &e.Wrk},
	} {
		path, err := fleet.LookPath(program)
		if err != nil {
			return environment{}, err
		}
		out, _ := exec.CommandContext(ctx, path, args.arg).CombinedOutput() // wrk -v exits with 1
		*args.into = version(string(out))
	}
	if out, err := exec.CommandContext(ctx, "git", "-C", root, "describe", "--always", "--dirty").Output(); err == nil {
		e.Commit = strings.TrimSpace(string(out))
	}
	if out, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		e.Kernel = strings.TrimSpace(string(out))
	}
	if out, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, after, ok := strings.Cut(string(out), "model name\t: "); ok {
			e.CPU, _, _ = strings.Cut(after, "\n")
		}
	}
	return e, nil
}

// version finds the first word with a digit and a dot in it, without what stands
// before the digit: "nginx version: nginx/1.22.1" has 1.22.1.
func version(out string) string {
	for word := range strings.FieldsSeq(out) {
		if i := strings.IndexAny(word, "0123456789"); i >= 0 && strings.Contains(word[i:], ".") {
			return word[i:]
		}
	}
	return "unknown"
}

// The chart is a template of our own: six bars need no charting module, and the
// good ones bring fonts and a PDF writer along.
//
//go:embed report.*.tmpl
var templateFiles embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"thousands": thousands,
	"ms":        func(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()*1000) },
}).ParseFS(templateFiles, "report.*.tmpl"))

// report prints the table and leaves it, with the chart, in loadtest/results.
func (b *bench) report(e environment, rows []row, stdout io.Writer) error {
	dir := filepath.Join(e.root, "loadtest", "results")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var chart, markdown bytes.Buffer
	if err := templates.ExecuteTemplate(&chart, "report.svg.tmpl", newChart(rows)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "bench.svg"), chart.Bytes(), 0o644); err != nil {
		return err
	}
	if err := templates.ExecuteTemplate(&markdown, "report.md.tmpl", map[string]any{
		"Env": e, "Rows": rows, "Command": b.command,
		"Rounds": b.rounds, "Duration": b.duration, "Threads": b.threads, "Codes": b.codes,
	}); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "bench.md"), markdown.Bytes(), 0o644); err != nil {
		return err
	}
	_, err := stdout.Write(markdown.Bytes())
	return err
}

// A chart is what report.svg.tmpl draws: a bar per row, over a track as long as
// the limit. All lengths are in pixels.
type chart struct {
	Width, Height int
	Left, Limit   int // where bars begin, and the length of one at the limit
	Bars          []bar
}

type bar struct {
	Name             string
	Ratio, PerSecond float64
	Top, Text        int // y of the bar, and of the words beside it
	Length, Label    int // and x of the label behind it
}

func newChart(rows []row) chart {
	const top, step = 48, 34
	c := chart{Width: 830, Height: top + step*len(rows) + 10, Left: 150, Limit: 420}
	for i, r := range rows {
		y := top + step*i
		length := int(r.Ratio * float64(c.Limit))
		c.Bars = append(c.Bars, bar{r.Name, r.Ratio, r.Real.PerSecond, y, y + 16, length, c.Left + max(length, c.Limit)})
	}
	return c
}

// thousands writes a number without a fraction, as 12,345.
func thousands(v any) string {
	digits := fmt.Sprintf("%.0f", v)
	if n, ok := v.(int); ok {
		digits = strconv.Itoa(n)
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
