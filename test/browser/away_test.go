package browser_test

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

// While Redis is away the page says so, keeps what is typed, and goes on when it is back.
func TestRedisAway(t *testing.T) {
	h := ownHouse(t, fleet.Options{Backends: 2, Env: []string{"STALE_IF_ERROR=0s"}})
	k := h.key(t, usual)
	p := signedIn(t, h, k, desk)
	p.visit("/dashboard/new")
	p.write("Leads to", "https://example.com/typed-before")
	h.Redis.Pause()
	defer h.Redis.Resume()
	p.click("button", "Create link")
	p.shows("The service does not answer.")
	p.find("status", "")
	p.until("the banner is there", func() bool { return eval[bool](p, `!!document.querySelector(".banner")?.offsetHeight`) })
	p.accessible("with the banner")
	if got := get[string](p.field("Leads to"), "value"); got != "https://example.com/typed-before" {
		t.Errorf("the field has %q", got)
	}
	p.write("Leads to", "https://example.com/typed-meanwhile")

	// Not even loading the page anew loses it.
	p.visit("/dashboard/new")
	p.shows("The service does not answer")
	h.Redis.Resume()
	p.until("what was typed is there", func() bool {
		all := p.things("", "textbox", "Leads to")
		return len(all) > 0 && get[string](all[0], "value") == "https://example.com/typed-meanwhile"
	})
	p.until("the banner is gone", func() bool { return eval[bool](p, `!document.querySelector(".banner")`) })
	p.click("button", "Create link")
	p.shows("Your link works")
}

// Somebody new runs the server, opens the link that it prints, makes a link, visits it, and sees the visit.
func TestFirstMinute(t *testing.T) {
	sharedChromium.Of(t, startChromium)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	listener.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	server := exec.CommandContext(ctx, fleettest.Binary(t, "snowlink/server"))
	server.Env = append(os.Environ(), "LISTEN="+addr, "METRICS_LISTEN=off")
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := server.StdoutPipe()
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = server.Wait() }()
	var printed string
	for lines := bufio.NewScanner(out); printed == "" && lines.Scan(); {
		printed = regexp.MustCompile(`http://\S+/dashboard/#token=\S+`).FindString(lines.Text())
	}
	base, path, found := strings.Cut(printed, "/dashboard/")
	if !found {
		t.Fatal("the server prints no link that signs in")
	}
	p := openTab(t, base, desk)
	p.visit("/dashboard/" + path)
	p.field("Shorten a long address")
	if address := eval[string](p, "location.href"); strings.Contains(address, "token") {
		t.Errorf("the token stands in the address: %s", address)
	}
	p.paste("https://example.com/first")
	p.press("Enter")
	p.shows("Copied")
	short := p.clipboard()
	h := &house{Fleet: &fleet.Fleet{URL: base}}
	code := short[strings.LastIndexByte(short, '/')+1:] // its host is localhost
	h.click(t, code, firefox)
	p.visit("/dashboard/links/" + code)
	p.until("the visit is in the numbers", func() bool { return p.figure("Clicks") == "1" })

	// Once is once.
	again := openTab(t, base, desk)
	again.visit("/dashboard/" + path)
	again.shows("This link to sign in was used before, or is too old.")
}
