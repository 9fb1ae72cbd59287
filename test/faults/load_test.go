package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// kind is one of the requests that load is made of.
type kind int

const (
	create    kind = iota
	hotGET         // of a few links, asked for again and again
	recentGET      // of a link made a moment ago
)

// plan is the load. It is far below what the fleet can do: the experiments are about faults, not
// overload.
var plan = [...]struct {
	name        string
	perSecond   int
	connections int
}{
	create:    {"create", 100, 16},
	hotGET:    {"hot GET", 300, 32},
	recentGET: {"recent GET", 100, 16},
}

// connections returns how many connections the whole plan has.
func connections() (n int) {
	for _, p := range plan {
		n += p.connections
	}
	return n
}

// GETs are both kinds of redirect.
var GETs = []kind{hotGET, recentGET}

const (
	hotLinks = 100
	// recentLinks is how many of the newest links recentGET draws from.
	recentLinks = 200
	// clientTimeout is longer than the slowest answer that Nginx may give: two tries
	// of 2 s, then as many at @last_resort.
	clientTimeout = 10 * time.Second
	// abnormal is a 99th percentile that a load of this size cannot explain, even on a busy
	// machine: half of the 500 ms that a dead address costs.
	abnormal = 250 * time.Millisecond
)

// sample is one request of the load, as its client saw it.
type sample struct {
	kind    kind
	code    string // of the link that was read or made
	began   time.Time
	took    time.Duration
	failure string // what went wrong, in a word or two; "" is success
	wrong   bool   // it led to another target than its own
	again   bool   // it was sent a second time: see request
}

func (s sample) ended() time.Time { return s.began.Add(s.took) }

// load sends mixed requests to a fleet at the plan's pace. A request that is due while its
// connection still waits for an answer is left out and not made up for.
type load struct {
	url, key string
	client   *http.Client
	fresh    *http.Client // a connection for each request
	ledger   *ledger
	hot      []entry
	prefix   string // of the targets, so that no two are alike
	made     atomic.Int64

	mu      sync.Mutex
	samples []sample

	began, ended time.Time
	cancel       context.CancelFunc
	workers      sync.WaitGroup
}

// newLoad makes the hot links and puts url under load until stop, or the test's end.
func newLoad(t *testing.T, url, key string, ledger *ledger) *load {
	t.Helper()
	l := quietLoad(t, url, key, ledger)
	for range hotLinks {
		if s := l.send(create); s.failure != "" {
			t.Fatalf("a create before the fault: %s", s.failure)
		}
	}
	l.hot = ledger.last(hotLinks)
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	t.Cleanup(l.stop)
	l.began = time.Now()
	for k, p := range plan {
		period := time.Second * time.Duration(p.connections) / time.Duration(p.perSecond)
		for i := range p.connections {
			l.workers.Go(func() {
				l.work(ctx, kind(k), period, period*time.Duration(i)/time.Duration(p.connections))
			})
		}
	}
	return l
}

// quietLoad is a load that sends only what it is told to.
func quietLoad(t *testing.T, url, key string, ledger *ledger) *load {
	l := &load{
		url: url, key: key, ledger: ledger, client: newClient(t), fresh: newClient(t),
		prefix: fmt.Sprintf("https://example.com/%x/", rand.Uint64()),
	}
	l.fresh.Transport.(*http.Transport).DisableKeepAlives = true
	return l
}

// newClient makes a client that follows no redirect and keeps its connections.
func newClient(t *testing.T) *http.Client {
	transport := &http.Transport{
		MaxIdleConnsPerHost: 256, DisableCompression: true,
		IdleConnTimeout: time.Minute, // below Nginx's 75 s: one kept for longer may end under a request
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		Timeout:       clientTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// stop ends the load, once what was begun has its answer.
func (l *load) stop() {
	if l.ended.IsZero() {
		l.ended = time.Now()
	}
	l.cancel()
	l.workers.Wait()
}

// work sends a request of a kind every period until ctx ends.
func (l *load) work(ctx context.Context, k kind, period, offset time.Duration) {
	select { // so that a kind's requests come evenly
	case <-ctx.Done():
		return
	case <-time.After(offset):
	}
	due := time.NewTicker(period)
	defer due.Stop()
	for ctx.Err() == nil { // select has no preference, and a request that took long finds both ready
		s := l.send(k)
		l.mu.Lock()
		l.samples = append(l.samples, s)
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-due.C:
		}
	}
}

// send sends one request of a kind. A link that it made is in the ledger then.
func (l *load) send(k kind) sample {
	switch k {
	case create:
		e, s := l.create()
		if s.failure == "" {
			if err := l.ledger.add(e); err != nil {
				s.failure = err.Error()
			}
		}
		return s
	case recentGET:
		return l.follow(k, l.ledger.last(recentLinks))
	default:
		return l.follow(k, l.hot)
	}
}

// create makes a link.
func (l *load) create() (entry, sample) {
	target := fmt.Sprintf("%s%d", l.prefix, l.made.Add(1))
	s, resp, answer := l.request(create, http.MethodPost, "/generate_url", fmt.Sprintf(`{"url":%q}`, target))
	if s.failure != "" {
		return entry{}, s
	}
	var made struct{ Code, URL string }
	if resp.StatusCode != http.StatusCreated {
		s.failure = strconv.Itoa(resp.StatusCode)
	} else if err := json.Unmarshal(answer, &made); err != nil || made.URL != target || made.Code == "" {
		s.failure = fmt.Sprintf("201 with %q", answer)
	}
	s.code = made.Code
	return entry{made.Code, target}, s
}

// follow asks for one of some links and compares where it leads.
func (l *load) follow(k kind, from []entry) sample {
	e := from[rand.IntN(len(from))]
	s, resp, _ := l.request(k, http.MethodGet, "/"+e.code, "")
	s.code = e.code
	if s.failure != "" {
		return s
	}
	if resp.StatusCode != http.StatusFound {
		s.failure = strconv.Itoa(resp.StatusCode)
	} else {
		s.wrong = resp.Header.Get("Location") != e.target
	}
	return s
}

// request does what browsers and curl do, whatever the method. If a request went out on a kept
// connection, which then closed before any of the answer came, it is sent once more on a new one. A
// server may close an idle connection at any time, and its client cannot know in time.
func (l *load) request(k kind, method, path, body string) (s sample, resp *http.Response, answer []byte) {
	s = sample{kind: k, began: time.Now()}
	var kept, answered atomic.Bool
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{ // without the context of work: a request that was begun is finished
		GotConn:              func(info httptrace.GotConnInfo) { kept.Store(info.Reused) },
		GotFirstResponseByte: func() { answered.Store(true) },
	})
	resp, answer, err := do(ctx, l.client, method, l.url+path, l.key, body)
	if timeout, ok := errors.AsType[net.Error](err); err != nil && kept.Load() && !answered.Load() && !(ok && timeout.Timeout()) {
		s.again = true
		resp, answer, err = do(context.Background(), l.fresh, method, l.url+path, l.key, body)
	}
	s.took = time.Since(s.began)
	if err != nil {
		s.failure = failureOf(err)
	}
	return s, resp, answer
}

// do sends one request, once, and reads the answer.
func do(ctx context.Context, c *http.Client, method, url, key, body string) (*http.Response, []byte, error) {
	// http.Client sends a GET again by itself, unseen, when the server closed the
	// connection meanwhile; not one whose body it cannot read twice, be it empty.
	once := struct{ io.Reader }{strings.NewReader(body)}
	req, err := http.NewRequestWithContext(ctx, method, url, once)
	if err != nil {
		return nil, nil, err
	}
	req.ContentLength = int64(len(body))
	req.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0") // whose clicks are those of a person
	if key != "" {
		req.Header.Set("API-Key", key)
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp, answer, err
}

// failureOf describes an error of the transport without its addresses, so that equal ones can be
// counted.
func failureOf(err error) string {
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return "no answer"
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return fmt.Sprintf("%s: %v", e.Op, e.Err)
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}

// measured holds the requests of a span of time.
type measured struct {
	samples  []sample // by when they began
	from, to time.Time
}

// between returns the requests that began in a span. A zero time stands for the beginning or the
// end of the load. Stop the load first.
func (l *load) between(from, to time.Time) measured {
	m := measured{from: from, to: to}
	if from.IsZero() {
		m.from = l.began
	}
	if to.IsZero() {
		m.to = l.ended
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.samples {
		if !s.began.Before(from) && (to.IsZero() || s.began.Before(to)) { // the last may begin as the load ends
			m.samples = append(m.samples, s)
		}
	}
	slices.SortFunc(m.samples, func(a, b sample) int { return a.began.Compare(b.began) })
	return m
}

// of returns the requests of some kinds.
func (m measured) of(kinds ...kind) measured {
	some := measured{from: m.from, to: m.to}
	for _, s := range m.samples {
		if slices.Contains(kinds, s.kind) {
			some.samples = append(some.samples, s)
		}
	}
	return some
}

func (m measured) count() int { return len(m.samples) }

// failed counts the requests that were not answered as they should be, and wrong
// those that led to another target.
func (m measured) failed() int {
	return m.countIf(func(s sample) bool { return s.failure != "" })
}
func (m measured) wrong() int { return m.countIf(func(s sample) bool { return s.wrong }) }

// sentAgain counts the requests that took a second connection.
func (m measured) sentAgain() int { return m.countIf(func(s sample) bool { return s.again }) }

func (m measured) countIf(is func(sample) bool) (n int) {
	for _, s := range m.samples {
		if is(s) {
			n++
		}
	}
	return n
}

// failures counts what went wrong, by kind and failure.
func (m measured) failures() map[string]int {
	counts := map[string]int{}
	for _, s := range m.samples {
		if s.failure != "" {
			counts[plan[s.kind].name+": "+s.failure]++
		}
	}
	return counts
}

// percentile returns the latency that a part of the requests, such as 0.99, stayed within; 1 gives
// the slowest of all. Failed requests count too.
func (m measured) percentile(part float64) time.Duration {
	if len(m.samples) == 0 {
		return 0
	}
	var took []time.Duration
	for _, s := range m.samples {
		took = append(took, s.took)
	}
	slices.Sort(took)
	return took[min(len(took)-1, int(part*float64(len(took))))]
}

// outage returns the longest span in which no request succeeded.
func (m measured) outage() (longest time.Duration) {
	ended := []time.Time{m.from, m.to}
	for _, s := range m.samples {
		if s.failure == "" && s.ended().Before(m.to) {
			ended = append(ended, s.ended())
		}
	}
	slices.SortFunc(ended, time.Time.Compare)
	for i := range ended[1:] {
		longest = max(longest, ended[i+1].Sub(ended[i]))
	}
	return longest
}

func TestMeasured(t *testing.T) {
	began := time.Now()
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	l := &load{began: at(0), ended: at(1000), samples: []sample{
		{kind: create, began: at(500), took: 10 * time.Millisecond, failure: "503"},
		{kind: hotGET, began: at(100), took: 20 * time.Millisecond},
		{kind: hotGET, began: at(200), took: 700 * time.Millisecond},
		{kind: recentGET, began: at(300), took: 10 * time.Millisecond, wrong: true},
		{kind: hotGET, began: at(1000), took: 10 * time.Millisecond}, // as the load ended
	}}
	m := l.between(time.Time{}, time.Time{})
	if m.count() != 5 || m.failed() != 1 || m.wrong() != 1 || m.failures()["create: 503"] != 1 {
		t.Errorf("%d requests, %d failed, %d wrong, %v", m.count(), m.failed(), m.wrong(), m.failures())
	}
	// Answers came after 120, 310 and 900 ms of 1,000.
	if got := m.outage(); got != 590*time.Millisecond {
		t.Errorf("the longest outage is %s", got)
	}
	if got := m.of(create).outage(); got != time.Second {
		t.Errorf("the longest outage of creates, none of which succeeded, is %s", got)
	}
	if got := m.percentile(1); got != 700*time.Millisecond {
		t.Errorf("the slowest request took %s", got)
	}
	if got := l.between(at(300), at(500)).count(); got != 1 {
		t.Errorf("%d requests began between 300 and 500 ms", got)
	}
}
