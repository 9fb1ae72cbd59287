package browser_test

import (
	"encoding/csv"
	"strconv"
	"strings"
	"testing"
	"time"

	snow "snowlink/client"
	"snowlink/internal/clicks"
)

// The address that a panel gives away asks the API for the same numbers.
func TestPanelsAddress(t *testing.T) {
	h := home(t)
	k := h.key(t, everything)
	code := k.name + "-address"
	h.importOld(t, k, []old{{code: code, url: "https://example.com/", age: 60 * 24 * time.Hour}})
	l := h.ledger(t)
	for days, country := range []string{"DE", "AT", "DE"} {
		l.counts = append(l.counts, clicks.Count{Code: code, Owner: k.name, Hour: time.Now().UTC().Truncate(time.Hour).AddDate(0, 0, -days), Clicks: 10,
			Facts: []clicks.FactCount{{Facts: clicks.Facts{clicks.Country: country}, Clicks: 10}}})
	}
	l.send(t)
	h.counted(t, k, code, 30)
	p := signedIn(t, h, k, desk)
	p.visit("/dashboard/links/" + code)
	p.panel("Countries", "Germany 20 67%", "Austria 10 33%")
	p.clickIn(`section[aria-label="Countries"]`, "button", "Numbers of…")
	p.click("button", "Copy the API’s address")
	p.shows("Copied")
	address := p.clipboard()
	text := h.get(t, k, address, "text/csv")
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", address, err)
	}
	sum := 0
	for _, row := range rows[1:] {
		for _, cell := range row {
			if n, err := strconv.Atoi(cell); err == nil {
				sum += n
				break
			}
		}
	}
	if sum != 30 {
		t.Errorf("%s gives %d clicks: %s", address, sum, text)
	}
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
	t.Log(p.things("", "slider", ""))
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
