package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

// anyClient starts a fleet that takes the address of a client from X-Forwarded-For.
// It shows at /.network what the limits count a client by.
func anyClient(t *testing.T) *fleet.Fleet {
	t.Helper()
	f := fleettest.Start(t, fleet.Options{Backends: 1})
	for _, edit := range [][3]string{
		{"conf.d/limits.conf", "# set_real_ip_from 10.203.113.1;", "set_real_ip_from 127.0.0.1;"},
		{"conf.d/limits.conf", "# real_ip_header   X-Forwarded-For;", "real_ip_header X-Forwarded-For;"},
		{"conf.d/server.conf", "location = /metrics { return 404; }", "location = /.network { return 200 $client_network; }"},
	} {
		if err := f.Nginx.Edit(edit[0], edit[1], edit[2]); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Nginx.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

// from sends a request that seems to come from addr.
func from(t *testing.T, c *http.Client, addr, method, url string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Forwarded-For", addr)
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b strings.Builder
	if err := resp.Write(&b); err != nil {
		t.Fatal(err)
	}
	_, answer, _ = strings.Cut(b.String(), "\r\n\r\n")
	return resp.StatusCode, answer
}

// The limits count IPv4 by address and IPv6 by network, however it is written.
func TestClientIsAnAddressOrANetwork(t *testing.T) {
	f := anyClient(t)
	c := client(t, "127.0.0.1")
	spellings := []string{
		"192.0.2.1", "10.0.0.10", "::ffff:192.0.2.1", "::ffff:c000:201", "::ffff:10.0.0.10", "::fffe:192.0.2.1",
		"::", "::1", "::192.0.2.1", "1::", "2001:db8::1", "2001:DB8::1", "2001:db8:1:2::5", "2001:db8:1::2:5", "2001::1:2:3:4:5", "2001:db8:a0a:a0a:a0a:a0a:a0a:a0a",
		"0:0:0:1::", "::1:0:0:0:0", "0:1::1", "ff02::1", "64:ff9b::192.0.2.1", "fe80::ffff:192.0.2.1", "2001:0db8:0000:0000:0000:0000:0000:0001",
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		var b [16]byte
		for i := range b {
			if random.IntN(2) == 0 { // zeros make for the most spellings
				b[i] = byte(random.Uint32())
			}
		}
		addr := netip.AddrFrom16(b)
		spellings = append(spellings, addr.String(), addr.StringExpanded())
	}
	for _, spelling := range spellings {
		addr := netip.MustParseAddr(spelling).Unmap()
		want := addr.AsSlice()
		if addr.Is6() {
			want = netip.PrefixFrom(addr, 64).Masked().Addr().AsSlice()[:8]
		}
		if status, got := from(t, c, spelling, "GET", f.URL+"/.network"); got != string(want) {
			t.Errorf("%s counts as %x (%d), want %x", spelling, got, status, want)
		}
	}
}

// A client that changes its address within its network does not escape the limits.
func TestLimitsOfAnIPv6Network(t *testing.T) {
	f := anyClient(t)
	c := client(t, "127.0.0.1")
	limited := func(addr func(i int) string) (n int) {
		for i := range 400 {
			if status, _ := from(t, c, addr(i), "POST", f.URL+"/generate_url"); status == http.StatusTooManyRequests {
				n++
			}
		}
		return n
	}
	if n := limited(func(i int) string { return fmt.Sprintf("2001:db8:1:2:%x::%x", 1+i, i) }); n == 0 {
		t.Error("400 POSTs from changing addresses of one network: 0 limited")
	} else {
		t.Logf("400 POSTs from changing addresses of one network: %d limited", n)
	}
	if n := limited(func(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", 3+i) }); n > 0 {
		t.Errorf("400 POSTs from as many networks: %d limited", n)
	}
}
