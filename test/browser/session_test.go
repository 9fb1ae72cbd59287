package browser_test

import (
	"testing"
)

// A session ends when somebody signs out, and when it is ended from another browser. What was typed meanwhile
// is there after signing in again.
func TestSessions(t *testing.T) {
	h := home(t)
	k := h.key(t, usual)
	here, there := signedIn(t, h, k, desk), signedIn(t, h, k, phone)
	here.click("link", "Settings")
	here.find("heading", "Sessions")
	here.shows("You are signed in as "+k.name, "This one", "on Linux")
	there.write("Shorten a long address", "https://example.com/half-typ")
	here.click("button", "End the session of "+k.name+"…")
	here.shows("The session has ended.")
	here.until("one session is left", func() bool { return len(here.things(".sessions", "listitem", "")) == 1 })

	there.paste("ed")
	there.press("Enter")
	there.shows("Your session has ended. Sign in again as " + k.name)
	there.write("API key", k.secret)
	there.press("Enter")
	there.gone("dialog", "Sign in")
	if got := get[string](there.field("Shorten a long address"), "value"); got != "https://example.com/half-typed" {
		t.Errorf("after signing in again the field has %q", got)
	}
	there.press("Enter")
	there.shows("Copied")

	here.click("button", k.name)
	here.click("button", "Sign out")
	here.find("heading", "Sign in")
	here.visit("/dashboard/settings")
	here.find("heading", "Sign in")
}
