package main

import (
	"bytes"
	"embed"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"text/template"
	"time"

	"snowlink/internal/fleet"
)

// The charts are templates of our own: a few bars and lines need no charting
// module, and the good ones bring fonts and a PDF writer along.
//
//go:embed *.tmpl
var templateFiles embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"thousands": thousands,
	"ms":        func(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()*1000) },
}).ParseFS(templateFiles, "*.tmpl"))

// output is where results go.
type output struct {
	dir      string // of -o; empty for none
	whole    bool   // the run has no flags, so its results replace those in loadtest/results
	command  string // as typed
	progress io.Writer
}

// write executes a template and returns the text. It also writes the text to the file, if results
// are kept.
func (o output) write(root, file, template string, data any) ([]byte, error) {
	var text bytes.Buffer
	if err := templates.ExecuteTemplate(&text, template, data); err != nil {
		return nil, err
	}
	dir := o.dir
	if dir == "" && o.whole {
		dir = filepath.Join(root, "loadtest", "results")
	}
	if dir == "" {
		return text.Bytes(), nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return text.Bytes(), os.WriteFile(filepath.Join(dir, file), text.Bytes(), 0o644)
}

// report prints the tables, and writes them and the chart to output.
func (b *bench) report(e fleet.Environment, rows []row, lost *evicted, facts []fact, stdout io.Writer) error {
	if _, err := b.output.write(e.Root, "bench.svg", "bench.svg.tmpl", newBars(rows)); err != nil {
		return err
	}
	markdown, err := b.output.write(e.Root, "bench.md", "bench.md.tmpl", map[string]any{
		"Env": e, "Rows": rows, "Lost": lost, "Facts": facts, "EvictionName": evictionName, "Command": b.output.command,
		"Rounds": b.rounds, "Duration": b.duration, "Threads": b.threads, "Codes": b.codes, "Links": b.links,
		"UncachedCodes": uncachedCodes,
	})
	if err != nil {
		return err
	}
	_, err = stdout.Write(markdown)
	return err
}

// report prints the tables, and writes them and the charts to output.
func (g *growth) report(e fleet.Environment, byLinks []point, bytes []float64, byConnections []point, full int, stdout io.Writer) error {
	byThousands := func(p point) float64 { return p.PerSecond / 1000 }
	byBackendCPU := func(p point) float64 { return p.CPU.Backends }
	for file, c := range map[string]lines{
		"growth-links.svg": newLines("Thousand requests a second by links in Redis, 64 connections",
			byLinks, func(p point) int { return p.Links }, byThousands),
		"growth-connections.svg": newLines("Thousand hot redirects a second by connections",
			byConnections, func(p point) int { return p.Connections }, byThousands),
		"growth-cpu.svg": newLines("Backend CPU microseconds a hot redirect by connections",
			byConnections, func(p point) int { return p.Connections }, byBackendCPU),
	} {
		if _, err := g.output.write(e.Root, file, "lines.svg.tmpl", c); err != nil {
			return err
		}
	}
	type memory struct {
		Links int
		Bytes float64
	}
	var memories []memory
	for i, n := range g.sizes {
		memories = append(memories, memory{n, bytes[i]})
	}
	markdown, err := g.output.write(e.Root, "growth.md", "growth.md.tmpl", map[string]any{
		"Env": e, "ByLinks": byLinks, "ByConnections": byConnections, "Memory": memories, "Full": full,
		"Maxmemory": g.maxmemory, "Command": g.output.command, "Rounds": g.rounds, "Duration": g.duration,
		"Threads": g.threads, "HotCodes": hotCodes, "UncachedCodes": uncachedCodes,
	})
	if err != nil {
		return err
	}
	_, err = stdout.Write(markdown)
	return err
}

// bars is what bench.svg.tmpl draws: a bar for each row, over a track whose length is the other
// side's throughput. All lengths are in pixels.
type bars struct {
	Width, Height int
	Left, Limit   int // where bars begin, and the length of one at the limit
	Bars          []bar
}

type bar struct {
	row
	Top, Text     int // y of the bar, and of the words beside it
	Length, Label int // and x of the label behind it
	Mark          int // x of the bar to reach
}

func newBars(rows []row) bars {
	const top, step = 48, 34
	c := bars{Width: 900, Height: top + step*len(rows) + 10, Left: 220, Limit: 420}
	for i, r := range rows {
		y := top + step*i
		length := int(r.Ratio * float64(c.Limit))
		c.Bars = append(c.Bars, bar{
			row: r, Top: y, Text: y + 16, Length: length, Label: c.Left + max(length, c.Limit),
			Mark: c.Left + int(r.Bar*float64(c.Limit)),
		})
	}
	return c
}

// lines is what lines.svg.tmpl draws: a line for each name through its values, at even distances.
// All lengths are in pixels.
type lines struct {
	Title         string
	Width, Height int
	Left, Bottom  int
	Right         int
	X, Y          []tick
	Lines         []line
}

type tick struct {
	At    int
	Label string
}

type line struct {
	Name, Color string
	Path        string // its corners, as an SVG polyline has them
	Dots        []dot
	Label       int // x of the name
}

type dot struct{ X, Y int }

func newLines(title string, points []point, category func(point) int, value func(point) float64) lines {
	const top = 76
	c := lines{Title: title, Width: 640, Height: 340, Left: 60, Right: 620, Bottom: 300}
	colors := []string{"#0969da", "#cf222e", "#1a7f37"}

	var categories []int
	var names []string
	var greatest float64
	for _, p := range points {
		if !slices.Contains(categories, category(p)) {
			categories = append(categories, category(p))
		}
		if !slices.Contains(names, p.Name) {
			names = append(names, p.Name)
		}
		greatest = max(greatest, value(p))
	}
	// The least round number that gives five steps at most.
	step := math.Pow(10, math.Floor(math.Log10(greatest/5)))
	for _, factor := range []float64{2, 2.5, 2} { // 2, 5, 10 times the power
		if greatest/step > 5 {
			step *= factor
		}
	}
	steps := int(math.Ceil(greatest / step))
	y := func(v float64) int { return c.Bottom - int(v/(float64(steps)*step)*float64(c.Bottom-top)) }
	x := func(i int) int { return c.Left + 30 + i*(c.Right-c.Left-60)/max(1, len(categories)-1) }
	for i := range steps + 1 {
		v := float64(i) * step
		c.Y = append(c.Y, tick{y(v), strconv.FormatFloat(v, 'g', 6, 64)})
	}
	for i, n := range categories {
		c.X = append(c.X, tick{x(i), thousands(n)})
	}
	for i, name := range names {
		l := line{Name: name, Color: colors[i%len(colors)], Label: c.Left + 160*i}
		for _, p := range points {
			if p.Name == name {
				d := dot{x(slices.Index(categories, category(p))), y(value(p))}
				l.Dots = append(l.Dots, d)
				l.Path += fmt.Sprintf("%d,%d ", d.X, d.Y)
			}
		}
		c.Lines = append(c.Lines, l)
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
