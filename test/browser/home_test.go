package browser_test

import (
	"strings"
	"testing"

	snow "snowlink/client"
)

// Somebody pastes an address, presses Enter, and has the short link in the clipboard.
func TestPasteEnterCopied(t *testing.T) {
	h := home(t)
	k := h.key(t, usual)
	p := signedIn(t, h, k, desk)
	p.shows("Your first link is one paste away", "No clicks yet.")
	if got := p.focused(); got != "textbox Shorten a long address" {
		t.Errorf("the focus is on %q", got)
	}
	p.press("Enter")
	p.shows("Paste the address that the link shall lead to.")
	p.paste("example.com/a?b=1&c=%20d")
	p.press("Enter")
	p.shows("Copied")
	short := p.clipboard()
	code, ours := strings.CutPrefix(short, h.URL+"/")
	if !ours {
		t.Fatalf("the clipboard has %q", short)
	}
	target, err := h.api(k).Follow(t.Context(), code)
	if err != nil || target != "https://example.com/a?b=1&c=%20d" {
		t.Errorf("%s leads to %q, %v", short, target, err)
	}
	if got := p.field("Shorten a long address"); get[string](got, "value") != "" {
		t.Errorf("the field has %q still", get[string](got, "value"))
	}
	p.visit("/dashboard/")
	p.shows(code)
	p.hides("Your first link is one paste away")

	// What the service refuses is said in its words, and stays to be changed.
	p.write("Shorten a long address", "https://user:secret@example.com/")
	p.press("Enter")
	p.shows("The URL must not contain a user name or password.")
	if got := get[string](p.field("Shorten a long address"), "value"); got != "https://user:secret@example.com/" {
		t.Errorf("after a refusal the field has %q", got)
	}
}

// Whoever may only make links makes some, and is shown nothing that their key cannot do.
func TestKeyThatOnlyCreates(t *testing.T) {
	h := home(t)
	k := h.key(t, onlyCreate)
	p := signedIn(t, h, k, desk)
	p.shows("Your key makes links, but may not list them.")
	for _, name := range []string{"Links", "Overview", "Service"} {
		if len(p.things("nav", "link", name)) > 0 {
			t.Errorf("the navigation has %s", name)
		}
	}
	p.write("Shorten a long address", "https://example.com/made-only")
	p.press("Enter")
	p.shows("Copied", "example.com/made-only")
	for _, path := range []string{"/links", "/overview", "/service", "/links/abc", "/links/abc/edit"} {
		p.visit("/dashboard" + path)
		p.shows("Your key may not see this")
	}
	p.visit("/dashboard/nowhere")
	p.shows("There is nothing here")
}

// Whoever may only read sees links, and nothing to make or change them with.
func TestKeyThatOnlyReads(t *testing.T) {
	h := home(t)
	p := signedIn(t, h, h.key(t, onlyRead), desk)
	p.find("heading", "Newest links")
	p.gone("link", "New link")
	p.gone("textbox", "Shorten a long address")
	p.press("n")
	p.find("heading", "Newest links")
	p.visit("/dashboard/new")
	p.shows("Your key may not see this")
}

// Home has what was clicked today, and links by how often they were clicked.
func TestHomeCounts(t *testing.T) {
	h := home(t)
	k := h.key(t, everything)
	l := h.make(t, k, snow.NewLink{URL: "https://example.com/", Title: "Counted"})
	for range 3 {
		h.click(t, l.Code, firefox)
	}
	h.click(t, l.Code, "Googlebot/2.1")
	h.counted(t, k, l.Code, 3)
	p := signedIn(t, h, k, desk)
	p.shows("Counted", "3 clicks")
	p.until("three clicks are those of today", func() bool {
		var card string
		return p.find("heading", "Clicks today").is(&card, "function() { return this.closest('.card').innerText }") && strings.Contains(card, "\n3\n")
	})
}
