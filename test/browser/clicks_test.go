package browser_test

import (
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	snow "snowlink/client"
	"snowlink/internal/clicks"
)

// figure is the number that stands under a name, as "Clicks".
func (p *tab) figure(name string) string {
	p.t.Helper()
	return eval[string](p, fmt.Sprintf(`[...document.querySelectorAll("dl.figures div")].find((d) => d.querySelector("dt")?.innerText.trim() === %q)?.querySelector(".figure")?.innerText ?? ""`, name))
}

// panel is a table of the page by its first column, as "Germany 3".
func (p *tab) panel(name string) map[string]string {
	p.t.Helper()
	return eval[map[string]string](p, fmt.Sprintf(`Object.fromEntries([...document.querySelectorAll('section[aria-label=%q] tbody tr')].map((r) =>
		[r.cells[0].innerText.trim(), r.cells[1].innerText.trim()]))`, name))
}

// hasPanel waits until a panel has these rows, in whatever order.
func (p *tab) hasPanel(name string, want map[string]string) {
	p.t.Helper()
	p.until(fmt.Sprintf("the panel %s has %v", name, want), func() bool { return fmt.Sprint(p.panel(name)) == fmt.Sprint(want) })
}

// The numbers in the page are those of the ledger: totals, each panel, each day, with filters and with bots.
func TestClicksAreTheLedgers(t *testing.T) {
	h := home(t)
	k := h.key(t, everything)
	code := k.name + "-ledger"
	h.importOld(t, k, []old{{code: code, url: "https://example.com/", title: "Ledger", age: 60 * 24 * time.Hour, tags: []string{k.name}}})
	l := h.ledger(t)
	now := time.Now().UTC().Truncate(time.Hour)
	add := func(daysAgo int, n, bots int64, f clicks.Facts) {
		hour := now.AddDate(0, 0, -daysAgo)
		c := clicks.Count{Code: code, Owner: k.name, Tags: []string{k.name}, Hour: hour, Clicks: n, Bots: bots}
		if n > 0 {
			c.Facts = append(c.Facts, clicks.FactCount{Facts: f, Clicks: n})
		}
		if bots > 0 {
			c.Facts = append(c.Facts, clicks.FactCount{Facts: clicks.Facts{clicks.Country: "US", clicks.Bot: "crawler"}, Clicks: bots})
		}
		l.counts = append(l.counts, c)
	}
	add(1, 1200, 0, clicks.Facts{clicks.Country: "DE", clicks.Browser: "Firefox", clicks.OS: "Linux", clicks.Device: "desktop", clicks.Referrer: "example.org"})
	add(2, 30, 7, clicks.Facts{clicks.Country: "AT", clicks.Browser: "Firefox", clicks.OS: "Android", clicks.Device: "phone"})
	add(2, 4, 0, clicks.Facts{clicks.Country: "DE", clicks.Browser: "Chrome", clicks.OS: "Android", clicks.Device: "phone", clicks.Via: "qr"})
	add(40, 617, 0, clicks.Facts{clicks.Country: "DE", clicks.Browser: "Firefox", clicks.OS: "Linux", clicks.Device: "desktop"})
	l.send(t)
	h.counted(t, k, code, 1851)

	p := signedIn(t, h, k, desk)
	p.visit("/dashboard/links/" + code)
	p.until("the total of 30 days", func() bool { return p.figure("Clicks") == "1,234" })
	p.shows("617 in the time before", "+100%")
	p.hasPanel("Countries", map[string]string{"Germany": "1,204", "Austria": "30"})
	p.hasPanel("Browsers", map[string]string{"Firefox": "1,230", "Chrome": "4"})
	p.hasPanel("Systems", map[string]string{"Linux": "1,200", "Android": "34"})
	p.hasPanel("Devices", map[string]string{"Desktop": "1,200", "Phone": "34"})
	p.hasPanel("Referrers", map[string]string{"example.org": "1,200", "None: typed, an app, a mail": "34"})
	p.hasPanel("QR or link", map[string]string{"Link": "1,230", "QR code": "4"})

	// The table behind the chart has each day.
	p.click("button", "Table")
	p.until("the table has the days", func() bool {
		text := p.text()
		return strings.Contains(text, "1,200") && strings.Contains(text, now.AddDate(0, 0, -1).Format("Jan 2"))
	})
	p.accessible("with the table")
	p.click("button", "Table")

	// A click on a row filters all the rest, and the address says so.
	p.clickIn(`section[aria-label="Countries"]`, "button", "Germany")
	p.until("only Germany is counted", func() bool { return p.figure("Clicks") == "1,204" })
	p.hasPanel("Browsers", map[string]string{"Firefox": "1,200", "Chrome": "4"})
	p.visit(p.path())
	p.until("the address leads to the same", func() bool { return p.figure("Clicks") == "1,204" })
	p.click("button", "Remove all filters")
	p.until("all is counted again", func() bool { return p.figure("Clicks") == "1,234" })
	p.choose("Bots", "With bots")
	p.until("bots are counted, too", func() bool { return p.figure("Clicks") == "1,241" })
	p.choose("Bots", "Only bots")
	p.until("only bots are counted", func() bool { return p.figure("Clicks") == "7" })
	p.choose("Bots", "Without bots")
	p.click("button", "90 days")
	p.until("90 days", func() bool { return p.figure("Clicks") == "1,851" })

	// The overview has the same of the tag.
	p.visit("/dashboard/overview?tag=" + k.name)
	p.until("the tag has as many", func() bool { return p.figure("Clicks") == "1,234" })

	// The address that a panel gives away asks the API for the same.
	p.visit("/dashboard/links/" + code)
	p.hasPanel("Countries", map[string]string{"Germany": "1,204", "Austria": "30"})
	p.clickIn(`section[aria-label="Countries"]`, "button", "Numbers of…")
	p.click("button", "Copy the API’s address")
	p.shows("Copied")
	address := p.clipboard()
	text := h.get(t, k, address, "text/csv")
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", address, err)
	}
	var sum int
	for _, row := range rows[1:] {
		for _, cell := range row {
			if n, err := strconv.Atoi(cell); err == nil {
				sum += n
				break
			}
		}
	}
	if sum != 1234 {
		t.Errorf("%s gives %d clicks: %s", address, sum, text)
	}
}

// A visit shows up while one looks, without loading anything anew.
func TestLive(t *testing.T) {
	h := home(t)
	k := h.key(t, usual)
	l := h.make(t, k, snow.NewLink{URL: "https://example.com/"})
	p := signedIn(t, h, k, desk)
	p.visit("/dashboard/links/" + l.Code)
	p.shows("No clicks yet", "0 clicks in the last minute")
	h.click(t, l.Code, firefox, "CF-IPCountry: DE")
	p.shows("1 click in the last minute")
	p.until("the total counts it", func() bool { return p.figure("Clicks") == "1" })
	p.hasPanel("Countries", map[string]string{"Germany": "1"})
}

// A QR code can be had as one likes it.
func TestQR(t *testing.T) {
	h := home(t)
	k := h.key(t, usual)
	l := h.make(t, k, snow.NewLink{URL: "https://example.com/"})
	p := signedIn(t, h, k, desk)
	p.visit("/dashboard/links/" + l.Code)
	p.click("button", "QR code")
	p.find("dialog", "QR code of "+l.Code)
	p.find("image", "QR code of "+h.URL+"/"+l.Code)
	p.until("the picture is drawn", func() bool { return eval[bool](p, `document.querySelector("dialog img").naturalWidth > 0`) })
	p.slide("Margin…", 1)
	p.shows("Many readers need a margin of 4 modules.")
	p.until("the links have the margin", func() bool {
		return eval[bool](p, `[...document.querySelectorAll("dialog a[download]")].every((a) => a.href.includes("margin=1"))`)
	})
	p.accessible("the QR code")
	png := h.get(t, k, eval[string](p, `[...document.querySelectorAll("dialog a[download]")].find((a) => a.download.endsWith(".png")).href`), "*/*")
	if !strings.HasPrefix(png, "\x89PNG") {
		t.Errorf("the PNG begins with %q", png[:min(len(png), 20)])
	}
}

// slide moves a slider to a value.
func (p *tab) slide(label string, value int) {
	p.t.Helper()
	var moved bool
	if !p.find("slider", label).is(&moved, `function(v) { this.value = v; this.dispatchEvent(new Event("input", {bubbles: true})); return true; }`, value) {
		p.t.Fatalf("the slider %q does not move", label)
	}
}
