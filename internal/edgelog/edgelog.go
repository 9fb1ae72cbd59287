// Package edgelog counts the visits that Nginx answers itself, from its edge cache. Nginx reports each
// of them in a datagram, in the form of its syslog; see nginx/snippets/edge-cache.conf.
//
// It holds one decision: what arrives is counted like a visit that the backend answered, and what is
// lost on the way is not: UDP tells nobody. So the receiving side does as little as it can for each
// datagram, and counts what it has to leave out.
package edgelog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"snowlink/internal/clicks"
	"snowlink/internal/link"
)

const (
	// bufferSize is what the kernel is asked to keep of datagrams that were not read yet, in bytes. It
	// gives net.core.rmem_max at most: see sysctl.conf.
	bufferSize = 8 << 20
	// waiting is how many reports wait for their links at most, and readers how many links are looked
	// up at a time. Almost all links are in memory.
	waiting = 8192
	readers = 16
	// lookFor is how long a link may take to be found.
	lookFor = 2 * time.Second
	// lastLook is how long links are looked up still at its end. Reports of others are not counted.
	lastLook = time.Second
	// restFor is how long it goes on reading at its end, for what the kernel has kept.
	restFor = 50 * time.Millisecond
	// skewMost is how far the clock of Nginx may be from ours. Beyond it, ours counts.
	skewMost = time.Hour
)

// A Listener counts what Nginx reports.
type Listener struct {
	conn    *net.UDPConn
	get     func(ctx context.Context, code string) (link.Link, error)
	record  func(clicks.Click)
	country int // the field with the visitor's country, or 0

	received                             prometheus.Counter
	malformed, overflow, unknown, failed prometheus.Counter // of reports that were not counted
}

// Listen listens on a UDP address. get finds links, and record takes note of visits. countryHeader is the
// header that says which country a visitor is in. Unless it is one of CountryHeaders, no report says so.
func Listen(address, countryHeader string, get func(context.Context, string) (link.Link, error), record func(clicks.Click), reg prometheus.Registerer) (*Listener, error) {
	at, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenUDP("udp", at)
	if err != nil {
		return nil, err
	}
	if err := conn.SetReadBuffer(bufferSize); err != nil {
		conn.Close()
		return nil, fmt.Errorf("set the size of the receive buffer: %w", err)
	}
	register := promauto.With(reg)
	received := register.NewCounter(prometheus.CounterOpts{
		Name: "snowlink_edge_reports_total", Help: "Visits that Nginx reported as answered from its edge cache."})
	lost := register.NewCounterVec(prometheus.CounterOpts{
		Name: "snowlink_edge_reports_lost_total", Help: "Reports of Nginx that were not counted as clicks: malformed; overflow, more came than links were found; unknown, the link is gone by now; failed, the link could not be read.",
	}, []string{"reason"})
	return &Listener{
		conn: conn, get: get, record: record, received: received,
		country:   countryField(countryHeader),
		malformed: lost.WithLabelValues("malformed"), overflow: lost.WithLabelValues("overflow"),
		unknown: lost.WithLabelValues("unknown"), failed: lost.WithLabelValues("failed"),
	}, nil
}

// Addr is where it listens.
func (l *Listener) Addr() net.Addr { return l.conn.LocalAddr() }

// Close ends a listener that does not run.
func (l *Listener) Close() error { return l.conn.Close() }

// Run counts what is reported until ctx ends, and returns nil then. What has arrived by then is counted.
func (l *Listener) Run(ctx context.Context) error {
	reports := make(chan []byte, waiting)
	looking, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastLook, giveUp) })()
	var all sync.WaitGroup
	for range readers {
		all.Go(func() {
			for text := range reports {
				l.count(looking, text)
			}
		})
	}
	defer all.Wait()
	defer close(reports)
	defer context.AfterFunc(ctx, func() { l.conn.SetReadDeadline(time.Now().Add(restFor)) })()

	buffer := make([]byte, 64<<10)
	for {
		n, _, err := l.conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			if ctx.Err() != nil {
				return l.conn.Close()
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			continue // of one datagram
		}
		l.received.Inc()
		select {
		case reports <- bytes.Clone(buffer[:n]):
		default:
			l.overflow.Inc()
		}
	}
}

func (l *Listener) count(ctx context.Context, text []byte) {
	click, ok := parse(text, l.country, time.Now())
	if !ok {
		l.malformed.Inc()
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	var err error
	switch click.Link, err = l.get(ctx, click.Code); {
	case err == nil:
		l.record(click)
	case errors.Is(err, link.ErrNotFound):
		l.unknown.Inc()
	default:
		l.failed.Inc()
	}
}

// The fields of a report, as the log_format of edge-cache.conf has them, after the colon and the space
// that end syslog's own header.
const (
	fieldTime    = iota // seconds since 1970, with a fraction
	fieldRequest        // path and query, as the client wrote them
	fieldAddress
	fieldUserAgent
	fieldReferrer
	fieldPurpose
	fieldCountry // and one more for each other of CountryHeaders
)

// CountryHeaders are the headers that Nginx passes on and reports, of those in which networks in front of
// it say which country a visitor is in: Cloudflare, CloudFront, and others.
var CountryHeaders = []string{"Cf-Ipcountry", "Cloudfront-Viewer-Country", "X-Country-Code"}

const fields = fieldCountry + 3

// countryField returns the field with that header, or 0.
func countryField(header string) int {
	if i := slices.Index(CountryHeaders, textproto.CanonicalMIMEHeaderKey(header)); i >= 0 {
		return fieldCountry + i
	}
	return 0
}

// marker begins a report, after the header.
var marker = []byte(" edge: ")

// parse reads a report, with the country from that field unless it is 0. The click has no link.
func parse(text []byte, country int, now time.Time) (clicks.Click, bool) {
	_, text, ok := bytes.Cut(text, marker)
	if !ok {
		return clicks.Click{}, false
	}
	var field [fields][]byte
	for i := range field {
		if field[i], text, ok = bytes.Cut(text, []byte{'\t'}); ok == (i == fields-1) {
			return clicks.Click{}, false // there is one more or one less
		}
		field[i] = unescape(field[i])
	}
	path, query, _ := bytes.Cut(field[fieldRequest], []byte{'?'})
	code, ok := bytes.CutPrefix(path, []byte{'/'})
	seconds, err := strconv.ParseFloat(string(field[fieldTime]), 64)
	if !ok || err != nil || !link.CouldBeCode(string(code)) {
		return clicks.Click{}, false
	}
	at := time.UnixMilli(int64(seconds * 1000))
	if at.Sub(now).Abs() > skewMost {
		at = now
	}
	click := clicks.Click{
		Code: string(code), At: at, Query: query, Address: field[fieldAddress], UserAgent: field[fieldUserAgent],
		Referrer: field[fieldReferrer], Purpose: field[fieldPurpose],
	}
	if country > 0 {
		click.Country = field[country]
	}
	return click, true
}

// unescape returns a value as it was before Nginx escaped it: quotation marks, backslashes and bytes that
// are no printable ASCII stand there as \xHH, and nothing as a hyphen. It may change b.
func unescape(b []byte) []byte {
	if len(b) == 1 && b[0] == '-' {
		return nil
	}
	i := bytes.IndexByte(b, '\\')
	if i < 0 {
		return b
	}
	out := b[:i]
	for ; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) && b[i+1] == 'x' {
			if n, err := strconv.ParseUint(string(b[i+2:i+4]), 16, 8); err == nil {
				out = append(out, byte(n))
				i += 3
				continue
			}
		}
		out = append(out, b[i])
	}
	return out
}
