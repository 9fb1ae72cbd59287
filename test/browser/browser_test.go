package browser_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

// patience is how long a test waits for the page. It waits for milliseconds if all is well.
const patience = 30 * time.Second

// chromium is the one browser of this package.
type chromium struct {
	ctx  context.Context
	stop context.CancelFunc
}

var sharedChromium fleettest.Shared[*chromium]

func startChromium() (*chromium, error) {
	var program string
	var err error
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if program, err = fleet.LookPath(name); err == nil {
			break
		}
	}
	if err != nil {
		return nil, &fleet.MissingError{Program: "chromium"}
	}
	options := slices.Concat(chromedp.DefaultExecAllocatorOptions[:], []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(program),
		chromedp.Flag("lang", "en-GB"),
		chromedp.Env("LANGUAGE=en_GB", "TZ=UTC"),
		chromedp.WSURLReadTimeout(time.Minute),
		chromedp.ModifyCmdFunc(func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }),
	})
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium starts no sandbox for root
	}
	all, stopAll := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, stop := chromedp.NewContext(all)
	c := &chromium{ctx, func() { stop(); stopAll() }}
	if err := chromedp.Do(ctx); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// Stop ends the browser.
func (c *chromium) Stop() {
	if c != nil {
		c.stop()
	}
}

// A look is how large the window is and which theme the system has.
type look struct {
	width, height int64
	theme         string // light or dark
}

var desk, phone = look{1440, 900, "light"}, look{360, 740, "light"}

func (l look) in(theme string) look { l.theme = theme; return l }

func (l look) String() string { return fmt.Sprintf("%d-%s", l.width, l.theme) }

// A tab is a browser with one page, as somebody has it who has never been here: it shares no cookies
// and no storage with others.
type tab struct {
	t    testing.TB
	ctx  context.Context
	base string // the fleet's address, no slash at the end

	mu     sync.Mutex
	faults []string                      // what the page did and no page may do
	asked  []string                      // addresses, since count
	isDeaf bool                          // to what a test does to the page
	wire   map[network.RequestID]float64 // bytes of answers, since count
}

// openTab opens an empty tab. It is closed when the test ends, and the test fails if its page has logged
// an error, met its content security policy, or asked another host for anything.
func openTab(t testing.TB, base string, l look) *tab {
	t.Helper()
	shared := sharedChromium.Of(t, startChromium)
	p := &tab{t: t, base: base}
	ctx, cancel := chromedp.NewContext(shared.ctx, chromedp.WithNewBrowserContext(), chromedp.WithListener(p.hear))
	p.ctx = ctx
	t.Cleanup(func() {
		p.mu.Lock()
		faults := p.faults
		p.mu.Unlock()
		for _, fault := range faults {
			t.Error(fault)
		}
		if t.Failed() {
			p.picture()
		}
		cancel()
	})
	p.do(chromedp.Do(ctx))
	call(p, network.Enable, network.EnableParams{})
	for _, name := range []string{"clipboard-read", "clipboard-write"} {
		_, err := chromedp.CallBrowser(ctx, browser.SetPermission, browser.SetPermissionParams{
			Permission: &browser.PermissionDescriptor{Name: name}, Setting: browser.PermissionSettingGranted,
			Origin: base, BrowserContextID: chromedp.FromContext(ctx).BrowserContextID,
		})
		p.do(err)
	}
	p.resize(l)
	return p
}

// hear notes what no page may do.
func (p *tab) hear(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isDeaf {
		return
	}
	fault := func(format string, args ...any) {
		p.faults = append(p.faults, "the page: "+fmt.Sprintf(format, args...))
	}
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		text := e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			text += " " + e.ExceptionDetails.Exception.Description
		}
		fault("%s (%s:%d)", text, e.ExceptionDetails.URL, e.ExceptionDetails.LineNumber+1)
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			var said []string
			for _, arg := range e.Args {
				said = append(said, arg.Description+string(arg.Value))
			}
			fault("console.%s: %s", e.Type, strings.Join(said, " "))
		}
	case *log.EventEntryAdded:
		// The browser logs every answer that is no success. Those may be what a test is about.
		if e.Entry.Source != log.EntrySourceNetwork && (e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning) {
			fault("%s: %s (%s:%d)", e.Entry.Source, e.Entry.Text, e.Entry.URL, e.Entry.LineNumber+1)
		}
	case *network.EventRequestWillBeSent:
		u, err := url.Parse(e.Request.URL)
		if err != nil || u.Scheme != "data" && u.Scheme != "blob" && u.Scheme != "about" && u.Scheme+"://"+u.Host != p.base {
			fault("it asked %s (%v)", e.Request.URL, err)
		}
		if p.wire != nil && u.Scheme != "data" && u.Scheme != "blob" {
			p.wire[e.RequestID] += 0
			p.asked = append(p.asked, e.Request.URL)
		}
	case *network.EventLoadingFinished:
		if _, ok := p.wire[e.RequestID]; ok {
			p.wire[e.RequestID] += e.EncodedDataLength
		}
	}
}

// deaf lets the test do what no page may, until the function that it returns is called.
func (p *tab) deaf() (hear func()) {
	set := func(deaf bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.isDeaf = deaf
	}
	set(true)
	return func() { set(false) }
}

// do fails the test if err is not nil.
func (p *tab) do(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// call sends the browser a command of its protocol.
func call[P, R any](p *tab, command cdp.Command[P, R], params P) R {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	result, err := chromedp.Call(ctx, command, params)
	p.do(err)
	return result
}

// run does one of chromedp's actions.
func run[T any](p *tab, action chromedp.Action[T]) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 3*patience)
	defer cancel()
	result, err := chromedp.Run(ctx, action)
	p.do(err)
	return result
}

// eval returns what an expression of JavaScript is. It is awaited if it is a promise.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	return run(p, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// resize gives the window another size and the system another theme.
func (p *tab) resize(l look) {
	p.t.Helper()
	run(p, chromedp.EmulateViewport(l.width, l.height))
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: l.theme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
}

// visit types an address, such as /dashboard/, and Enter.
func (p *tab) visit(path string) {
	p.t.Helper()
	run(p, chromedp.Navigate(p.base+path))
}

// path is what follows the host in the address.
func (p *tab) path() string {
	p.t.Helper()
	return eval[string](p, "location.pathname + location.search")
}

// text is all that the page shows.
func (p *tab) text() string {
	p.t.Helper()
	return eval[string](p, "document.body?.innerText ?? ''")
}

// until waits for a condition.
func (p *tab) until(what string, ok func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("not within %s: %s. The page, %s:\n%s", patience, what, p.path(), p.text())
		}
	}
}

// shows waits until the page shows all these texts.
func (p *tab) shows(texts ...string) {
	p.t.Helper()
	for _, text := range texts {
		p.until(fmt.Sprintf("the page shows %q", text), func() bool { return strings.Contains(p.text(), text) })
	}
}

// hides waits until the page shows none of these texts.
func (p *tab) hides(texts ...string) {
	p.t.Helper()
	for _, text := range texts {
		p.until(fmt.Sprintf("the page does not show %q", text), func() bool { return !strings.Contains(p.text(), text) })
	}
}

// picture keeps a picture of the page for whoever looks why the test failed.
func (p *tab) picture() {
	dir := os.Getenv("BROWSER_PICTURES")
	if dir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, strings.ReplaceAll(p.t.Name(), "/", "_")+".png"), png, 0o644)
	}
	if err != nil {
		p.t.Log(err)
	}
}
