// Package progress tells people how far a long command is, and writes numbers for them.
package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	// DrawEvery spaces what a Bar draws on a terminal, and lineEvery its lines elsewhere.
	DrawEvery = 200 * time.Millisecond
	lineEvery = 10 * time.Second
	// barWidth leaves room for the numbers on a terminal of 80 columns.
	barWidth = 24
	// eraseLine goes to the start of a terminal's line and erases it.
	eraseLine = "\r\x1b[K"
)

// A Bar tells how far a long command is: on a terminal as a bar, elsewhere as a line now and then.
// It is also the writer of whatever else is told meanwhile, such as the log, so that the bar does not
// run into it. All methods may be called concurrently.
type Bar struct {
	w        io.Writer
	terminal bool

	mu    sync.Mutex
	what  string
	began time.Time
	told  time.Time
	bar   string // what stands on the terminal's last line
}

// New makes a Bar on w.
func New(w io.Writer) *Bar {
	p := &Bar{w: w}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

// Begin says what is done from now on.
func (p *Bar) Begin(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what, p.began, p.told = what, time.Now(), time.Time{}
	p.erase()
	if p.terminal {
		fmt.Fprintf(p.w, "%s:\n", what)
	}
}

// Tell says how much of about how much is done.
func (p *Bar) Tell(done, of int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	every := lineEvery
	if p.terminal {
		every = DrawEvery
	}
	now := time.Now()
	if now.Sub(p.told) < every {
		return
	}
	p.told = now
	share := 0.0
	if of > 0 {
		share = min(float64(done)/float64(of), 1)
	}
	text := fmt.Sprintf("%3.0f %%  %s of about %s", 100*share, Grouped(done), Grouped(max(done, of)))
	if spent := now.Sub(p.began); share > 0 && spent > time.Second {
		left := time.Duration(float64(spent) * (1 - share) / share)
		text += fmt.Sprintf(", %s left", left.Round(time.Second))
	}
	if !p.terminal {
		fmt.Fprintf(p.w, "%s: %s\n", p.what, strings.TrimSpace(text))
		return
	}
	full := int(share * barWidth)
	p.bar = fmt.Sprintf("[%s%s] %s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), text)
	fmt.Fprint(p.w, eraseLine, p.bar)
}

// End takes the bar away, for what comes after it.
func (p *Bar) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
}

func (p *Bar) erase() {
	if p.bar != "" {
		p.bar = ""
		fmt.Fprint(p.w, eraseLine)
	}
}

// Write writes whole lines above the bar.
func (p *Bar) Write(lines []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	bar := p.bar
	p.erase()
	n, err := p.w.Write(lines)
	if bar != "" {
		p.bar = bar
		fmt.Fprint(p.w, bar)
	}
	return n, err
}

// Grouped writes a number for people, as 1,234,567.
func Grouped(n int64) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// Sized writes bytes for people, as 1.2 GiB.
func Sized(n int64) string {
	f, unit := float64(n), 0
	for ; f >= 1024 && unit < 4; unit++ {
		f /= 1024
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGT"[unit-1])
}
