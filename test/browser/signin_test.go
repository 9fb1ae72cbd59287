package browser_test

import (
	"strings"
	"testing"
)

// signIn opens the dashboard and signs in with the key.
func (p *tab) signIn(k key) {
	p.t.Helper()
	p.visit("/dashboard/")
	p.enter(k)
}

// enter writes the key into the form and waits until the page is open.
func (p *tab) enter(k key) {
	p.t.Helper()
	p.write("API key", k.secret)
	p.press("Enter")
	p.find("navigation", "Sections")
}

// signedIn opens a tab for whoever has the key.
func signedIn(t testing.TB, h *house, k key, l look) *tab {
	t.Helper()
	p := openTab(t, h.URL, l)
	p.signIn(k)
	return p
}

func TestSignIn(t *testing.T) {
	h := home(t)
	p := openTab(t, h.URL, desk)
	p.visit("/dashboard/settings?a=b")
	p.find("heading", "Sign in")
	p.click("button", "Sign in")
	p.shows("Enter a key.")
	p.write("API key", "not-a-key")
	p.click("button", "Sign in")
	p.shows("The service does not know this key.")
	if got := p.focused(); got != "textbox API key" {
		t.Errorf("after a wrong key the focus is on %q", got)
	}
	p.enter(h.key(t, usual))
	if got := p.path(); got != "/dashboard/settings?a=b" {
		t.Errorf("after signing in the address is %s", got)
	}
	if cookies := eval[string](p, "document.cookie"); cookies != "" {
		t.Errorf("scripts can read the cookie %q", cookies)
	}
	if kept := eval[string](p, "JSON.stringify([localStorage, sessionStorage])"); strings.Contains(kept, "secret-of") {
		t.Errorf("the browser keeps the key: %s", kept)
	}
}
