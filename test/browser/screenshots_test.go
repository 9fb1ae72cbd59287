package browser_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"snowlink/internal/clicks"
	"snowlink/internal/fleet"
)

var screenshots = flag.String("screenshots", "", "the `folder` to write pictures of all sections to; empty writes none")

// pictureBytes is how large a picture may be.
const pictureBytes = 150 << 10

// shop is what the pictures show: the links of somebody who sells things and writes about them.
func shop() []old {
	const day = 24 * time.Hour
	return []old{
		{code: "spring", url: "https://shop.example/collections/spring?ref=short", title: "Spring collection", tags: []string{"campaign", "shop"}, age: 70 * day, perDay: 46, trend: 1.8},
		{code: "newsletter-47", url: "https://shop.example/newsletter/47", title: "Newsletter 47", tags: []string{"newsletter"}, age: 21 * day, perDay: 31, trend: .5},
		{code: "menu", url: "https://cafe.example/menu.pdf", title: "Menu on the tables", tags: []string{"print", "qr"}, age: 75 * day, perDay: 24, trend: 1.1},
		{code: "jobs", url: "https://jobs.example/openings/backend-engineer", title: "Backend engineer", tags: []string{"jobs"}, age: 34 * day, perDay: 12, trend: 1.3},
		{code: "launch-day", url: "https://blog.example/2026/11/we-launched-today", title: "We launched today", tags: []string{"blog", "campaign"}, age: 9 * day, perDay: 38, trend: 1},
		{code: "returns", url: "https://shop.example/help/returns-and-refunds", title: "Returns and refunds", tags: []string{"help", "shop"}, age: 75 * day, perDay: 7, trend: 1},
		{code: "poster-north", url: "https://shop.example/stores/north?utm_source=poster&utm_medium=print&utm_campaign=spring", title: "Poster, north station", tags: []string{"campaign", "print"}, age: 40 * day, perDay: 5, trend: .8},
		{code: "poster-south", url: "https://shop.example/stores/south?utm_source=poster&utm_medium=print&utm_campaign=spring", title: "Poster, south station", tags: []string{"campaign", "print"}, age: 40 * day, perDay: 9, trend: 1.2},
		{code: "roadmap", url: "https://docs.example/product/roadmap", tags: []string{"docs"}, age: 55 * day, perDay: 3, trend: 1},
		{code: "webinar-42", url: "https://meet.example/rooms/42?topic=links+that+last", title: "Webinar: links that last", tags: []string{"event"}, age: 50 * day, perDay: 6, trend: .2, gone: true},
		{code: "press-kit", url: "https://files.example/press/2026/press-kit.zip", title: "Press kit", tags: []string{"press"}, age: 62 * day, perDay: 2, trend: 1},
		{code: "survey", url: "https://forms.example/f/how-was-your-visit", title: "How was your visit?", tags: []string{"print", "qr"}, age: 18 * day, perDay: 4, trend: 1.4},
		{code: "status-page", url: "https://status.example/", title: "Status page", tags: []string{"docs"}, age: 75 * day, perDay: 3, trend: 1},
		{code: "gift-card", url: "https://shop.example/gift-card", title: "Gift cards", tags: []string{"shop"}, age: 12 * day, perDay: 8, trend: 1},
	}
}

// `make screenshots` writes pictures of every section, at a desk and on a phone, in both themes.
func TestScreenshots(t *testing.T) {
	if *screenshots == "" {
		t.Skip("-screenshots names no folder")
	}
	h := ownHouse(t, fleet.Options{Archive: 2, Env: []string{"COUNTRY_HEADER=CF-IPCountry"}})
	k := h.key(t, everything)
	links := shop()
	h.importOld(t, k, links)
	l := h.ledger(t)
	var people int64
	for _, o := range links {
		people += l.grow(k.name, o)
	}
	for i, miss := range []string{"sprng", "menue", "newsletter-46", "wp-login"} {
		l.misses = append(l.misses, clicks.Miss{Hour: time.Now().UTC().Truncate(time.Hour), Code: miss, Clicks: int64(23 - 5*i)})
	}
	l.send(t)
	h.countedAll(t, k, people)

	if err := os.MkdirAll(*screenshots, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, lk := range []look{desk, desk.in("dark"), phone, phone.in("dark")} {
		p := openTab(t, h.URL, lk)
		p.visit("/dashboard/")
		p.find("heading", "Sign in")
		p.shoot("sign-in", lk)
		p.enter(k)
		for _, s := range []struct{ name, path string }{
			{"home", ""}, {"new", "new"}, {"links", "links"}, {"link", "links/spring"}, {"edit", "links/spring/edit"},
			{"overview", "overview"}, {"service", "service"}, {"settings", "settings"},
		} {
			p.visit("/dashboard/" + s.path)
			p.settled()
			p.shoot(s.name, lk)
		}
		p.press("?")
		p.find("dialog", "Keyboard")
		p.shoot("keyboard", lk)
		if lk == desk {
			// Nobody has made a link yet.
			fresh := signedIn(t, h, h.key(t, usual), lk)
			fresh.settled()
			fresh.shoot("home-empty", lk)
			fresh.visit("/dashboard/links")
			fresh.settled()
			fresh.shoot("links-empty", lk)
		}
	}
}

// shoot writes a picture of what the window shows.
func (p *tab) shoot(name string, l look) {
	p.t.Helper()
	// Nothing blinks, and the pointer is over nothing.
	run(p, chromedp.MouseEvent("mouseMoved", 1, 1))
	eval[bool](p, "document.fonts.ready.then(() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(() => go(true)))))")
	png := run(p, chromedp.CaptureScreenshot())
	if len(png) > pictureBytes {
		p.t.Errorf("the picture of %s, %s, has %d bytes", name, l, len(png))
	}
	p.do(os.WriteFile(filepath.Join(*screenshots, fmt.Sprintf("%s-%s.png", name, l)), png, 0o644))
}
