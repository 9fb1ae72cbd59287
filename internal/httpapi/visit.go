package httpapi

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"snowlink/internal/clicks"
	"snowlink/internal/link"
)

// A Recorder takes note of visits. It never blocks. The slices of a click are valid only while Record
// runs. All methods may be called concurrently.
type Recorder interface {
	Record(clicks.Click)
	// Miss takes note of a visit to a code that could have a link, and has none.
	Miss(code string, at time.Time)
}

// record takes note of a visit that is answered with a redirect. HEAD is none: programs that check
// links send it, not visitors.
func (a *API) record(ctx *fasthttp.RequestCtx, code string, l link.Link) {
	if a.Clicks == nil || !ctx.IsGet() {
		return
	}
	click := clicks.Click{Code: code, Link: l, At: ctx.Time(), Query: ctx.URI().QueryString()}
	var forwarded []byte
	// One pass: to look each of them up took longer than all else here.
	for name, value := range ctx.Request.Header.All() {
		switch string(name) {
		case "User-Agent":
			click.UserAgent = value
		case "Referer":
			click.Referrer = value
		case "X-Forwarded-For":
			forwarded = value
		case "Sec-Purpose":
			click.Purpose = value
		case "Purpose", "X-Moz": // of older browsers
			if click.Purpose == nil {
				click.Purpose = value
			}
		case a.countryHeader:
			click.Country = value
		}
	}
	peer, known := peerOf(ctx)
	if !known || near(peer) {
		click.Address = lastAddress(forwarded)
	}
	if len(click.Address) > 0 || !known {
		a.Clicks.Record(click)
		return
	}
	text := addressTexts.Get().(*[]byte)
	*text = peer.AppendTo((*text)[:0])
	click.Address = *text
	a.Clicks.Record(click)
	addressTexts.Put(text)
}

// noRedirect answers a visit that failed with err, and takes note of it if there is no such link.
func (a *API) noRedirect(ctx *fasthttp.RequestCtx, code string, err error) {
	if a.Clicks != nil && ctx.IsGet() && errors.Is(err, link.ErrNotFound) {
		a.Clicks.Miss(code, ctx.Time())
	}
	a.fail(ctx, err)
}

// addressTexts are *[]byte for one address each, which would otherwise be allocated for each visit.
var addressTexts = sync.Pool{New: func() any {
	text := make([]byte, 0, len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255"))
	return &text
}}

// peerOf returns who is at the other end of the connection, if that has an IP address.
func peerOf(ctx *fasthttp.RequestCtx) (peer netip.Addr, known bool) {
	tcp, ok := ctx.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return peer, false
	}
	peer = tcp.AddrPort().Addr().Unmap().WithZone("")
	return peer, peer.IsValid()
}

// addressOf returns the address of whoever sent the request, as record finds it. It is invalid if that
// is not known.
func addressOf(ctx *fasthttp.RequestCtx) netip.Addr {
	peer, known := peerOf(ctx)
	if !known || near(peer) {
		forwarded, err := netip.ParseAddr(string(lastAddress(ctx.Request.Header.Peek(fasthttp.HeaderXForwardedFor))))
		if err == nil {
			return forwarded.Unmap().WithZone("")
		}
	}
	return peer
}

// near reports whether the peer is on this machine or in a private network, as a proxy of ours is. Only
// then X-Forwarded-For says who the visitor is: a stranger could write anything there. Whoever sends
// it from nearby can at most make our own numbers wrong.
func near(peer netip.Addr) bool {
	return peer.IsLoopback() || peer.IsPrivate() || peer.IsLinkLocalUnicast()
}

// lastAddress returns the last address of an X-Forwarded-For: what our proxy saw itself. What stands
// before it came with the request.
func lastAddress(forwarded []byte) []byte {
	return bytes.TrimSpace(forwarded[bytes.LastIndexByte(forwarded, ',')+1:])
}
