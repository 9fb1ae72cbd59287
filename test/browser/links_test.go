package browser_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/dom"

	snow "snowlink/client"
)

// Somebody makes a link with all that it may have, by keys, and is told at once whether the code is free.
func TestMakeLink(t *testing.T) {
	h := home(t)
	k := h.key(t, usual)
	h.make(t, k, snow.NewLink{URL: "https://example.com/", Code: k.name + "-taken"})
	p := signedIn(t, h, k, desk)
	p.settled()
	eval[bool](p, "document.activeElement.blur() ?? true")
	p.press("n")
	p.find("heading", "New link")
	p.write("Leads to", "https://example.com/a#b")
	p.write("Own code…", k.name+"-taken")
	p.shows("Taken. Choose another.")
	p.write("Own code…", "a b")
	p.hides("Taken.")
	p.write("Own code…", k.name+"-mine")
	p.shows("Free")
	p.open("Title and tags")
	p.write("Title", "A title — with “quotes”")
	p.write("Tags", "one")
	p.press("Enter")
	p.paste("two,")
	p.open("Expiry and visits")
	p.click("button", "7 days")
	p.write("Visits at most", "5")
	p.open("Redirect")
	p.choose("Status", "307, temporary, keeps the method")
	p.open("Campaign (UTM)")
	p.write("utm_source", "poster & co")
	if got := get[string](p.field("Leads to"), "value"); got != "https://example.com/a?utm_source=poster+%26+co#b" && got != "https://example.com/a?utm_source=poster%20%26%20co#b" {
		t.Errorf("with a campaign the target is %q", got)
	}
	p.press("Control+Enter")
	p.shows("Your link works")
	made, err := h.api(k).Get(t.Context(), k.name+"-mine")
	if err != nil || made.Title != "A title — with “quotes”" || !slices.Equal(made.Tags, []string{"one", "two"}) || made.MaxVisits != 5 || made.Status != 307 ||
		made.ExpiresAt.Sub(made.CreatedAt).Hours() < 7*24-1 || !strings.Contains(made.URL, "utm_source=poster") {
		t.Errorf("made %+v, %v", made, err)
	}
}

// open unfolds a part of a form.
func (p *tab) open(name string) {
	p.t.Helper()
	p.until(fmt.Sprintf("the part %q unfolds", name), func() bool {
		return eval[bool](p, fmt.Sprintf(`(() => {
			const fold = [...document.querySelectorAll("details")].find((d) => d.querySelector("summary").innerText.trim().startsWith(%q));
			if (fold && !fold.open) fold.querySelector("summary").click();
			return !!fold?.open;
		})()`, name))
	})
}

// Two people change one link. Whoever saves last sees both versions, and nothing is lost unseen.
func TestLostRace(t *testing.T) {
	h := home(t)
	k := h.key(t, usual)
	l := h.make(t, k, snow.NewLink{URL: "https://example.com/first", Title: "First"})
	p := signedIn(t, h, k, desk)
	p.visit("/dashboard/links/" + l.Code + "/edit")
	p.open("Title and tags")
	p.write("Title", "Mine")
	p.write("Leads to", "https://example.com/mine")
	if _, err := h.api(k).Update(t.Context(), l.Code, snow.Change{URL: new("https://example.com/theirs"), Tags: new([]string{"theirs"})}); err != nil {
		t.Fatal(err)
	}
	p.click("button", "Save")
	p.find("dialog", "Somebody else changed this link")
	p.shows("https://example.com/mine", "https://example.com/theirs", "Mine", "First")
	if now, err := h.api(k).Get(t.Context(), l.Code); err != nil || now.URL != "https://example.com/theirs" {
		t.Fatalf("before anybody chose, it leads to %q, %v", now.URL, err)
	}
	// Of the target, theirs; of the title, which only we changed, ours stands already.
	eval[bool](p, `[...document.querySelectorAll("dialog fieldset")].find((f) => f.innerText.includes("example.com")).querySelectorAll("input")[1].click() ?? true`)
	p.click("button", "Save this choice")
	p.gone("dialog", "Somebody else changed this link")
	p.until("the choice is saved", func() bool {
		now, err := h.api(k).Get(t.Context(), l.Code)
		return err == nil && now.URL == "https://example.com/theirs" && now.Title == "Mine" && slices.Equal(now.Tags, []string{"theirs"})
	})
}

// rows are the codes in the list, as they stand below each other.
func (p *tab) rows() []string {
	p.t.Helper()
	return eval[[]string](p, `[...document.querySelectorAll(".rows .link-row")].filter((r) => r.querySelector(".row-link"))
		.sort((a, b) => a.ariaRowIndex - b.ariaRowIndex).map((r) => r.querySelector(".row-link").title)`)
}

// lists waits until the list has these codes and no other.
func (p *tab) lists(codes ...string) {
	p.t.Helper()
	p.until(fmt.Sprintf("the list has %v", codes), func() bool {
		rows := p.rows()
		slices.Sort(rows)
		want := slices.Sorted(slices.Values(codes))
		return slices.Equal(rows, want)
	})
}

// Links are found as one types, by filters and by words, and the address leads back to what was found.
func TestFindLinks(t *testing.T) {
	h := home(t)
	k := h.key(t, usual)
	c := func(n string) string { return k.name + "-" + n }
	h.importOld(t, k, []old{
		{code: c("a"), url: "https://example.com/summer", title: "Summer sale", tags: []string{"sale", "shop"}},
		{code: c("b"), url: "https://example.com/winter", title: "Winter sale", tags: []string{"sale"}},
		{code: c("c"), url: "https://example.com/jobs", title: "Jobs", tags: []string{"people"}},
		{code: c("d"), url: "https://example.com/old", title: "Old", gone: true},
	})
	if _, err := h.api(k).Update(t.Context(), c("c"), snow.Change{Disabled: new(true)}); err != nil {
		t.Fatal(err)
	}
	p := signedIn(t, h, k, desk)
	p.press("Escape")
	eval[bool](p, "document.activeElement.blur() ?? true")
	p.press("/")
	p.field("Search code, target, title, tags")
	p.lists(c("a"), c("b"), c("c"))
	p.until("the search has the focus", func() bool { return strings.Contains(p.focused(), "Search code") })
	p.paste("sale")
	p.lists(c("a"), c("b"))
	p.paste(" winter")
	p.lists(c("b"))
	p.until("the address has what is searched", func() bool { return strings.Contains(p.path(), "winter") })
	p.visit(p.path())
	p.lists(c("b"))
	p.write("Search code, target, title, tags", "nothing-like-this")
	p.shows("No link fits")
	p.click("button", "Show all links")
	p.lists(c("a"), c("b"), c("c"))
	p.click("button", "Filters")
	p.choose("State", "Disabled")
	p.lists(c("c"))
	p.choose("State", "Gone: expired or deleted")
	p.lists(c("d"))
	p.click("button", "Reset")
	p.lists(c("a"), c("b"), c("c"))
	p.click("button", "people")
	p.lists(c("c"))
	p.click("link", c("c"))
	p.find("heading", "Jobs")
	run(p, back)
	p.lists(c("c"))
}

// Several links are changed at once, and that can be undone.
func TestBulk(t *testing.T) {
	h := home(t)
	k := h.key(t, usual)
	c := func(n int) string { return fmt.Sprintf("%s-bulk%d", k.name, n) }
	var links []old
	for n := range 5 {
		links = append(links, old{code: c(n), url: fmt.Sprintf("https://example.com/%d", n)})
	}
	h.importOld(t, k, links)
	p := signedIn(t, h, k, desk)
	p.visit("/dashboard/links")
	p.lists(c(0), c(1), c(2), c(3), c(4))
	eval[bool](p, "document.activeElement.blur() ?? true")
	p.press("j", "x", "j", "x", "j", "x")
	p.shows("3 selected")
	first := p.rows()[0]
	p.clickIn(".bulk", "button", "Tag")
	p.write("Add", "picked, more")
	p.press("Enter")
	p.shows("3 links changed")
	tagged := func() (codes []string) {
		for l, err := range h.api(k).List(t.Context(), "picked") {
			if err != nil {
				t.Fatal(err)
			}
			codes = append(codes, l.Code)
		}
		return codes
	}
	if got := tagged(); len(got) != 3 || !slices.Contains(got, first) {
		t.Errorf("tagged are %v, want three with %s", got, first)
	}
	p.hides("3 selected")
	p.click("checkbox", "Select all that are loaded")
	p.shows("5 selected")
	p.clickIn(".bulk", "button", "Disable")
	p.until("a link is disabled", func() bool { l, err := h.api(k).Get(t.Context(), first); return err == nil && l.Disabled })
	p.shows("5 links changed")
	p.clickIn(".toast:last-child", "button", "Undo")
	p.until("it is not disabled any more", func() bool { l, err := h.api(k).Get(t.Context(), first); return err == nil && !l.Disabled })

	for _, code := range p.rows()[:3] {
		p.click("checkbox", "Select "+code)
	}
	p.clickIn(".bulk", "button", "Delete")
	p.shows("3 links deleted")
	p.until("three links are gone from the list", func() bool { return len(p.rows()) == 2 })
	p.clickIn(".toast:last-child", "button", "Undo")
	p.lists(c(0), c(1), c(2), c(3), c(4))
	if _, err := h.api(k).Follow(t.Context(), first); err != nil {
		t.Errorf("after undoing, %s: %v", first, err)
	}
}

// A file is imported after a look at what would happen, and nothing is stored before.
func TestImport(t *testing.T) {
	h := home(t)
	k := h.key(t, usual)
	there := h.make(t, k, snow.NewLink{URL: "https://example.com/there", Code: k.name + "-there"})
	file := filepath.Join(t.TempDir(), "links.csv")
	text := "code,url,title\n" + k.name + "-new,https://example.com/new,New\n" + there.Code + ",https://example.com/other,Other\n" + k.name + "-bad,not a url,Bad\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := signedIn(t, h, k, desk)
	p.visit("/dashboard/links")
	p.lists(there.Code)
	p.click("button", "Import and export")
	p.click("button", "Import links")
	p.find("dialog", "Import links")
	p.upload("dialog input[type=file]", file)
	p.shows("This would happen with", "Would be created", "Code taken", "Invalid")
	p.until("one row each", func() bool {
		return eval[string](p, `[...document.querySelectorAll("dialog .count dd")].map((e) => e.innerText).join(" ")`) == "1 0 1 1"
	})
	if _, err := h.api(k).Get(t.Context(), k.name+"-new"); err == nil {
		t.Error("the look has stored a link")
	}
	p.accessible("import")
	p.click("button", "Import 1 link")
	p.shows("Imported")
	p.click("button", "Done")
	p.lists(there.Code, k.name+"-new")
	if l, err := h.api(k).Get(t.Context(), there.Code); err != nil || l.URL != "https://example.com/there" {
		t.Errorf("the link that was there leads to %q, %v", l.URL, err)
	}
}

// upload chooses a file.
func (p *tab) upload(selector, file string) {
	p.t.Helper()
	root := call(p, dom.GetDocument, dom.GetDocumentParams{}).Root
	node := call(p, dom.QuerySelector, dom.QuerySelectorParams{NodeID: root.NodeID, Selector: selector}).NodeID
	call(p, dom.SetFileInputFiles, dom.SetFileInputFilesParams{Files: []string{file}, NodeID: node})
}
