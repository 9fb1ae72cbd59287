package faults_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"snowlink/internal/fleet"
)

// slow is a kind of slow client. A server cannot tell one that says nothing from one that has
// vanished and left the connection half-open.
type slow struct {
	name    string
	first   string // what it sends at once
	drip    string // and then once a second; "" for nothing
	deaf    bool   // it reads nothing
	clients int
}

// crowd is how many slow clients there are of each kind.
type crowd struct {
	slowloris, halfOpen, deaf int
	asks                      int // of a deaf one, at once
	dripping                  int // bodies: for those at Nginx see TestDrippingBodies
}

// slowClients lists the kinds. They use a key and a link that is known.
func slowClients(c crowd, key string, known entry) []slow {
	post := "POST /generate_url HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\nAPI-Key: " + key + "\r\n\r\n{"
	ask := "GET /" + known.code + " HTTP/1.1\r\nHost: a\r\n\r\n"
	return []slow{
		{name: "slowloris", first: "GET /a HTTP/1.1\r\nHost: a\r\nX-Slow: ", drip: "a", clients: c.slowloris},
		{name: "half-open before a request", clients: c.halfOpen},
		{name: "half-open in a request", first: "GET /a HTTP/1.1\r\nHost", clients: c.halfOpen},
		{name: "half-open in a body", first: post, clients: c.halfOpen},
		{name: "dripping body", first: post, drip: " ", clients: c.dripping},
		{name: "reading nothing", first: strings.Repeat(ask, c.asks), drip: strings.Repeat(ask, 200), deaf: true, clients: c.deaf},
	}
}

// longLink makes a link whose redirect is as large as one can be.
func (x *experiment) longLink() entry {
	x.t.Helper()
	l := quietLoad(x.t, x.fleet.URL, x.fleet.APIKey, x.ledger)
	l.prefix += strings.Repeat("a", 2000-len(l.prefix))
	if s := l.send(create); s.failure != "" {
		x.t.Fatal(s.failure)
	}
	return x.ledger.find(l.prefix)
}

// besiege keeps slow clients at addr until ctx ends, each from its own address. A client that is
// thrown out comes back. It returns when each has been thrown out once more; if that takes longer
// than patience, the test fails.
func besiege(ctx context.Context, t *testing.T, addr string, patience time.Duration, kinds []slow) {
	t.Helper()
	type ending struct {
		kind  int
		after time.Duration
		err   error
	}
	endings := make(chan ending)
	var clients sync.WaitGroup
	for i, kind := range kinds {
		for n := range kind.clients {
			from := fmt.Sprintf("127.%d.%d.%d", 1+i, n/250, 1+n%250)
			clients.Go(func() {
				for again := true; again; again = ctx.Err() == nil {
					after, _, err := kind.visit(addr, from, patience)
					endings <- ending{i, after, err}
					if err != nil {
						return
					}
				}
			})
		}
	}
	go func() { clients.Wait(); close(endings) }()

	visits, longest := make([]int, len(kinds)), make([]time.Duration, len(kinds))
	failures := map[string]int{}
	for e := range endings {
		visits[e.kind]++
		longest[e.kind] = max(longest[e.kind], e.after)
		if e.err != nil {
			failures[kinds[e.kind].name+": "+failureOf(e.err)]++
		}
	}
	for i, kind := range kinds {
		if kind.clients == 0 {
			continue
		}
		t.Logf("%s: %d clients, %d connections, the longest thrown out after %s", kind.name, kind.clients, visits[i], longest[i].Round(time.Millisecond))
	}
	if len(failures) > 0 {
		t.Errorf("slow clients were not thrown out within %s: %v", patience, failures)
	}
}

// errKept reports that a slow client was still connected when its time was over.
var errKept = errors.New("still connected")

// visit opens one connection of a slow client. It returns how long the server kept it, and whether
// the client had an answer before.
func (s slow) visit(addr, from string, patience time.Duration) (kept time.Duration, answered bool, err error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	conn, err := dialer.Dial("tcp", addr)
	if err != nil {
		return 0, false, err
	}
	defer conn.Close()
	if s.deaf { // the smaller this buffer, the sooner the server's is full
		if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
			return 0, false, err
		}
	}
	began, rest, answer := time.Now(), s.first, make([]byte, 4<<10)
	for time.Since(began) < patience {
		turn := time.Now().Add(time.Second)
		_ = conn.SetDeadline(turn) // fails on a closed connection only
		n, err := conn.Write([]byte(rest))
		if rest = rest[n:]; rest == "" {
			rest = s.drip
		}
		for err == nil && !s.deaf {
			n, err = conn.Read(answer)
			answered = answered || n > 0
		}
		if timeout, ok := errors.AsType[net.Error](err); err != nil && !(ok && timeout.Timeout()) {
			return time.Since(began), answered, nil // EOF, or a reset
		}
		time.Sleep(time.Until(turn))
	}
	return patience, answered, errKept
}

// Experiment 12.
func TestSlowClients(t *testing.T) {
	x := start(t, 12, "1,000 slowloris, 300 half-open connections, 10 that read nothing", fleet.Options{})
	known := x.longLink()
	x.wait(pick(time.Second, 10*time.Second))
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), pick(0, 60*time.Second))
	defer cancel()
	// Nginx lets an address ask for 400 redirects at once and 200 a second. They take some seconds
	// to fill the buffers of a connection, which are megabytes: too long for a brief run.
	many := crowd{slowloris: 1000, halfOpen: 100, deaf: pick(0, 10), asks: 400}
	// 10 s is what Nginx gives a header, a body and an answer.
	besiege(ctx, t, strings.TrimPrefix(x.fleet.URL, "http://"), 40*time.Second, slowClients(many, x.fleet.APIKey, known))
	o := x.finish()

	x.unharmed(o, began)
}

// Experiment 12, without Nginx: a backend must survive by itself.
func TestSlowClientsAtABackend(t *testing.T) {
	x := start(t, 12, "a tenth of them at a backend, past Nginx", fleet.Options{})
	b := x.fleet.Backends[0]
	known := x.longLink()
	x.wait(pick(time.Second, 10*time.Second))
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), pick(0, 60*time.Second))
	defer cancel()
	few := crowd{slowloris: 100, halfOpen: 10, deaf: 2, asks: 2000, dripping: 10}
	// 5 s is what a backend gives a request and an answer, and then 1 s to read on.
	besiege(ctx, t, strings.TrimPrefix(b.URL, "http://"), 30*time.Second, slowClients(few, x.fleet.APIKey, known))
	o := x.finish()

	x.unharmed(o, began)
}

// unharmed fails the test if the load noticed anything since began.
func (x *experiment) unharmed(o *outcome, began time.Time) {
	x.t.Helper()
	o.nothingLost(x.t)
	o.noneFailed(x.t, GETs...)
	o.noneFailed(x.t, create)
	normal, since := x.load.between(time.Time{}, began).percentile(0.99), x.load.between(began, time.Time{}).percentile(0.99)
	x.t.Logf("p99 with slow clients: %s; before: %s", since, normal)
	if *long && since > max(5*normal, abnormal) {
		x.t.Errorf("p99 is %s with slow clients, normal was %s", since, normal)
	}
}

// Experiment 12. Bodies that drip in stay within every timeout of Nginx. They are bounded by the
// number of requests that one address may have in flight.
func TestDrippingBodies(t *testing.T) {
	const clients, allowed = 150, 100
	x := start(t, 12, "150 bodies that drip in, from one address", fleet.Options{})
	x.wait(pick(time.Second, 10*time.Second))
	began := time.Now()
	drip := slow{first: "POST /generate_url HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n", drip: " "}
	answered := make(chan bool)
	for range clients {
		go func() {
			_, refused, _ := drip.visit(strings.TrimPrefix(x.fleet.URL, "http://"), "127.0.0.2", pick(3*time.Second, 60*time.Second))
			answered <- refused
		}()
	}
	waiting := clients
	for range clients {
		if <-answered {
			waiting--
		}
	}
	o := x.finish()

	x.unharmed(o, began)
	if waiting == 0 || waiting > allowed {
		t.Errorf("%d dripping bodies were waited for, want 1 to %d", waiting, allowed)
	}
}
