package browser_test

import (
	"fmt"
	"strings"
	"testing"
)

// Whoever runs the service sees how it is, who holds a node ID, which keys there are, and how it sees them; and never
// a secret.
func TestService(t *testing.T) {
	h := home(t)
	k := h.key(t, everything)
	p := signedIn(t, h, k, desk)
	p.visit("/dashboard/service")
	p.settled()
	p.shows("All is well", "volatile-lru", "Redis of the links", "Redis of everything else", "answered this page")
	rows := func(table string) int {
		return eval[int](p, fmt.Sprintf(`document.querySelectorAll('[aria-label=%q] tbody tr').length`, table))
	}
	if n := rows("Backends"); n != len(h.Backends) {
		t.Errorf("%d backends are shown, want %d", n, len(h.Backends))
	}
	if n := rows("Keys"); n != keysOf*len(names)+1 {
		t.Errorf("%d keys are shown, want %d", n, keysOf*len(names)+1)
	}
	p.shows("This is how I see you", "127.0.0.1", h.URL)
	p.open("Headers that arrived")
	p.shows("User-Agent")
	p.open("Add a key")
	p.shows("server key shop")
	text := strings.ToLower(p.text())
	for _, secret := range []string{"snowlink_session", k.secret, strings.ToLower(h.APIKey)} {
		if strings.Contains(text, secret) {
			t.Errorf("the page shows %q", secret)
		}
	}

	p = signedIn(t, h, h.key(t, usual), desk)
	p.visit("/dashboard/service")
	p.shows("Your key may not see this")
}
