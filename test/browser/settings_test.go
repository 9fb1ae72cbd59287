package browser_test

import (
	"strings"
	"testing"
)

// Settings are there at once, and after the page is loaded anew.
func TestSettings(t *testing.T) {
	h := home(t)
	k := h.key(t, usual)
	p := signedIn(t, h, k, desk)
	p.visit("/dashboard/settings")
	dark := func() bool {
		return eval[string](p, "getComputedStyle(document.body).backgroundColor") == "rgb(15, 20, 26)"
	}
	if dark() {
		t.Fatal("the page is dark where the system is light")
	}
	p.click("radio", "Dark")
	p.until("the page is dark", dark)
	p.choose("Time zone", "Asia/Tokyo")
	p.choose("Redirect", "307, temporary, keeps the method")
	p.write("Expires after, in days", "30")
	p.write("Tags", "poster, spring")
	p.click("checkbox", "Pass the query…")
	p.choose("Language", "Deutsch")
	p.find("heading", "Optionen")
	p.visit("/dashboard/settings")
	p.find("heading", "Optionen")
	if !dark() {
		t.Error("loaded anew, the page is light")
	}
	if got := get[string](p.find("combobox", "Zeitzone"), "value"); got != "Asia/Tokyo" {
		t.Errorf("the time zone is %q", got)
	}
	if lang := eval[string](p, "document.documentElement.lang"); lang != "de" {
		t.Errorf("the language of the page is %q", lang)
	}

	// A new link begins with what was chosen.
	p.visit("/dashboard/")
	p.find("heading", "Neueste Links")
	eval[bool](p, `navigator.clipboard.writeText("").then(() => true)`) // it is the system's, and other tests copy too
	p.paste("https://example.com/with-defaults")
	p.press("Enter")
	p.until("the link is copied", func() bool { return strings.HasPrefix(p.clipboard(), h.URL) })
	made, err := h.api(k).Get(t.Context(), strings.TrimPrefix(p.clipboard(), h.URL+"/"))
	if err != nil || made.Status != 307 || !made.ForwardQuery || strings.Join(made.Tags, " ") != "poster spring" || made.ExpiresAt.Sub(made.CreatedAt).Hours() != 30*24 {
		t.Errorf("made %+v, %v", made, err)
	}
}

// Everything is reached with the keyboard alone, and ? says how.
func TestKeyboardOnly(t *testing.T) {
	h := home(t)
	k := h.key(t, everything)
	p := openTab(t, h.URL, desk)
	p.visit("/dashboard/")
	p.find("heading", "Sign in")
	p.paste(k.secret)
	p.press("Enter")
	p.find("navigation", "Sections")
	p.settled()
	p.press("Escape")
	for _, step := range []struct {
		keys    []string
		heading string
	}{
		{[]string{"g", "l"}, "Links…"}, {[]string{"g", "o"}, "Overview"}, {[]string{"g", "s"}, "Service"}, {[]string{"g", ","}, "Settings"},
		{[]string{"n"}, "New link"},
	} {
		eval[bool](p, "document.activeElement.blur() ?? true")
		p.press(step.keys...)
		p.find("heading", step.heading)
	}
	eval[bool](p, "document.activeElement.blur() ?? true")
	p.press("?")
	p.find("dialog", "Keyboard")
	p.shows("Search the links")
	p.press("Escape")
	p.gone("dialog", "Keyboard")

	// Tab goes through the page: each stop has a name, is seen, and shows that it has the focus.
	p.visit("/dashboard/settings")
	p.settled()
	eval[bool](p, "document.activeElement.blur() ?? true")
	stops := map[string]bool{}
	for rounds := 0; len(stops) < 100; {
		p.press("Tab")
		if eval[bool](p, "document.activeElement === document.body") {
			if rounds++; rounds == 2 { // it began in the middle
				break
			}
			continue
		}
		stop := p.focused()
		if role, name, _ := strings.Cut(stop, " "); name == "" {
			t.Errorf("a %s that has the focus has no name", role)
		}
		if !eval[bool](p, `(() => {
			const e = document.activeElement, shown = e.closest(".segment") ?? e, s = getComputedStyle(shown), r = shown.getBoundingClientRect();
			return s.outlineStyle !== "none" && r.width > 0 && r.bottom > 0 && r.top < innerHeight;
		})()`) {
			t.Errorf("one does not see that %s has the focus", stop)
		}
		stops[stop] = true
	}
	for _, want := range []string{"link Skip to the content", "link New link", "link Home", "link Settings", "radio System", "combobox Language", "button Sign out"} {
		if !stops[want] {
			t.Errorf("Tab does not come to %q, but to %v", want, stops)
		}
	}
}
