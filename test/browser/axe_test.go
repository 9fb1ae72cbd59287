package browser_test

import (
	_ "embed"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

// axe is axe-core, which finds what keeps people out of a page: missing names, poor contrast, and so on. It
// is where test/node puts it.
var axe = sync.OnceValues(func() (string, error) {
	packages, err := os.ReadFile("../../internal/dashboard/package.json")
	if err != nil {
		return "", err
	}
	version := regexp.MustCompile(`"axe-core": "(.+)"`).FindSubmatch(packages)[1]
	text, err := os.ReadFile(fmt.Sprintf("../../bin/axe-%s.js", version))
	if os.IsNotExist(err) {
		return "", &fleet.MissingError{Program: "axe-core"}
	}
	return string(text), err
})

// accessible fails the test for each fault that axe-core finds in the page as it is now. It also
// fails if the page is wider than the window, so that one had to scroll sideways.
func (p *tab) accessible(what string) {
	p.t.Helper()
	source, err := axe()
	fleettest.SkipMissing(p.t, err)
	p.do(err)
	defer p.deaf()()
	p.until("nothing moves or fades", func() bool { return eval[bool](p, `document.getAnimations().every((a) => a.playState !== "running")`) })
	run(p, chromedp.Evaluate[chromedp.Void](source+";0"))
	for _, fault := range eval[[]string](p, `axe.run(document, {resultTypes: ["violations"], preload: false}).then((r) =>
		r.violations.flatMap((v) => v.nodes.map((n) => v.id + " (" + v.impact + "): " + n.target.join(" ") + ": " + n.failureSummary.split("\n").slice(1).join("; ") + ": " + n.html.slice(0, 200))))`) {
		p.t.Errorf("%s: %s", what, fault)
	}
	if over := eval[string](p, `(() => {
		const wide = document.documentElement.clientWidth;
		if (document.documentElement.scrollWidth <= wide) return "";
		const out = [...document.body.querySelectorAll("*")].filter((e) => e.getBoundingClientRect().right > wide + 1 && !e.closest(".sr-only"));
		return document.documentElement.scrollWidth + " px: " + out.slice(-3).map((e) => e.outerHTML.slice(0, 120)).join(" | ");
	})()`); over != "" {
		p.t.Errorf("%s: the page is wider than the window of %d px: %s", what, eval[int](p, "innerWidth"), over)
	}
}

// hacked is what somebody might write into every field there is. Each fails the test if a browser runs any
// of it.
var hacked = []string{
	`<img src=x onerror="hacked=1">`,
	`"><script>hacked=1</script>`,
	`'-hacked=1-'`,
	`${hacked=1}`,
	`javascript:hacked=1`,
}

// notHacked fails the test if something of hacked was run or became an element.
func (p *tab) notHacked(what string) {
	p.t.Helper()
	if eval[bool](p, `typeof hacked !== "undefined" || !!document.querySelector("img[src=x], main script, [onerror], a[href^='javascript:']")`) {
		p.t.Errorf("%s: what somebody typed has become a part of the page", what)
	}
}

// sections are all addresses of the page. CODE stands for that of a link.
var sections = []string{"", "new", "links", "links/CODE", "links/CODE/edit", "overview", "service", "settings"}

// settled waits until nothing is being loaded.
func (p *tab) settled() {
	p.t.Helper()
	p.until("nothing is being loaded", func() bool {
		return eval[bool](p, `document.readyState === "complete" && !document.querySelector(".skeleton, [aria-busy=true]") && !!document.querySelector("h1, h2")`)
	})
}

// All sections pass axe-core in both themes, at a desk and on a phone, with links and without.
func TestAccessible(t *testing.T) {
	h := home(t)
	k := h.key(t, everything)
	code := h.key(t, everything).name + "-link"
	h.importOld(t, k, []old{{code: code, url: "https://example.com/" + strings.Repeat("long/", 60), title: strings.Repeat("Long title ", 20), tags: []string{"a-tag-that-is-quite-long-for-a-tag", "b"}}})
	for _, l := range []look{desk, phone.in("dark")} {
		p := signedIn(t, h, k, l)
		for _, section := range sections {
			path := "/dashboard/" + strings.Replace(section, "CODE", code, 1)
			p.visit(path)
			p.settled()
			p.accessible(path + " " + l.String())
		}
		p.press("?")
		p.find("dialog", "Keyboard")
		p.accessible("help " + l.String())
	}
	p := openTab(t, h.URL, phone)
	p.visit("/dashboard/")
	p.find("heading", "Sign in")
	p.accessible("sign in")
	p.resize(desk.in("dark"))
	p.accessible("sign in, dark")
}

// Whatever people write into links, and strangers into the headers of their visits, is shown as text.
func TestTextStaysText(t *testing.T) {
	h := home(t)
	k := h.key(t, everything)
	p := signedIn(t, h, k, desk)
	for i, text := range hacked {
		code := fmt.Sprintf("%s-hacked%d", k.name, i)
		h.importOld(t, k, []old{{code: code, url: "https://example.com/?" + strings.ReplaceAll(text, " ", "+"), title: text, tags: []string{strings.ReplaceAll(text, ",", "")}}})
		h.click(t, code, text, "Referer: https://"+text+".example/", "CF-IPCountry: "+text)
		h.click(t, code+"?utm_source="+strings.ReplaceAll(text, " ", "+"), firefox, "Referer: https://example.org/")
		h.counted(t, k, code, 1)
		for _, section := range sections {
			path := "/dashboard/" + strings.Replace(section, "CODE", code, 1)
			p.visit(path)
			p.settled()
			p.notHacked(path + " with " + text)
		}
	}
	for _, section := range []string{"links?q=", "links?tag=", "overview?tag=", "links/"} {
		p.visit("/dashboard/" + section + "%3Cimg%20src%3Dx%20onerror%3D%22hacked%3D1%22%3E")
		p.settled()
		p.notHacked(section)
	}
}
