package clicks_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"snowlink/internal/clicks"
	"snowlink/internal/clicks/clickstest"
	"snowlink/internal/link"
)

const firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0"

// click is a click on code by somebody at noon.
func click(code string) clicks.Click {
	return clicks.Click{Code: code, At: noon, Address: []byte("203.0.113.7"), UserAgent: []byte(firefox)}
}

// A recorder is a Recorder that runs, and what is there to see of it.
type recorder struct {
	*clicks.Recorder
	queue    *clickstest.Queue
	registry *prometheus.Registry
	log      *logged
	stop     func() // and wait
}

// logged is a log that can be read while it is written.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// idle makes a recorder that does not run.
func idle(o clicks.Options) *recorder {
	r := &recorder{queue: new(clickstest.Queue), registry: prometheus.NewRegistry(), log: new(logged)}
	if o.Queue == nil {
		o.Queue = r.queue
	}
	if o.Salts == nil {
		o.Salts = clickstest.Salts{}
	}
	o.Every, o.Log, o.Registry = 10*time.Millisecond, slog.New(slog.NewTextHandler(r.log, nil)), r.registry
	r.Recorder = clicks.New(o)
	return r
}

func start(t *testing.T, o clicks.Options) *recorder {
	t.Helper()
	r := idle(o)
	r.start(t)
	return r
}

func (r *recorder) start(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(r.stop)
}

// metric returns a counter, or one of several of a name by its label.
func (r *recorder) metric(t *testing.T, name, label string) float64 {
	t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == "snowlink_clicks_"+name && (label == "" || m.Label[0].GetValue() == label) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("there is no metric %s{%s}", name, label)
	return 0
}

func (r *recorder) dropped(t *testing.T) (n float64) {
	for _, reason := range []string{"buffers", "waiting", "stop"} {
		n += r.metric(t, "dropped_total", reason)
	}
	return n
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("after 20 s not yet: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// total checks that batches are what they promise to be, and adds them up by links.
func total(t *testing.T, batches []clicks.Batch) map[string]int64 {
	t.Helper()
	sum := make(map[string]int64)
	for i, b := range batches {
		if b.Producer == "" || b.Producer != batches[0].Producer || b.Number != uint64(i+1) {
			t.Fatalf("batch %d is %d of %q, the first is of %q", i, b.Number, b.Producer, batches[0].Producer)
		}
		if len(b.Counts) > 5000 {
			t.Errorf("a batch has %d counts", len(b.Counts))
		}
		seen := make(map[string]bool)
		for _, c := range b.Counts {
			if key := fmt.Sprint(c.Code, c.Hour); seen[key] {
				t.Errorf("%s is twice in a batch", key)
			} else {
				seen[key] = true
			}
			left, bots := c.Clicks+c.Bots, c.Bots
			for _, f := range c.Facts {
				left -= f.Clicks
				if f.Facts[clicks.Bot] != "" {
					bots -= f.Clicks
				}
			}
			if left != 0 || bots != 0 {
				t.Errorf("%+v: %d clicks and %d bots have no facts", c, left, bots)
			}
			sum[c.Code] += c.Clicks + c.Bots
		}
	}
	return sum
}

// Whatever goes on at once, each click is counted once.
func TestEveryClickIsCounted(t *testing.T) {
	const goroutines, each, links = 8, 10_000, 50
	r := start(t, clicks.Options{})
	var fails atomic.Int64
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range each {
				c := click(fmt.Sprintf("code%d", i%links))
				c.UserAgent, c.Referrer = userAgents[i%len(userAgents)], referrers[(i+g)%len(referrers)]
				if i%10 == 0 {
					c.UserAgent = []byte("curl/8.5.0")
				}
				r.Record(c)
				if i%1000 == 0 && fails.Add(1)%4 == 0 { // now and then the queue is away
					r.queue.Fail(link.ErrUnavailable)
				} else if i%1000 == 500 {
					r.queue.Fail(nil)
				}
			}
		})
	}
	wg.Wait()
	r.queue.Fail(nil)
	r.stop()
	sum := total(t, r.queue.Batches(t))
	for i := range links {
		if code := fmt.Sprintf("code%d", i); sum[code] != goroutines*each/links {
			t.Errorf("%s: %d clicks, want %d", code, sum[code], goroutines*each/links)
		}
	}
	if n := r.metric(t, "recorded_total", ""); n != goroutines*each || r.dropped(t) != 0 {
		t.Errorf("recorded %v, dropped %v", n, r.dropped(t))
	}
}

func TestWhatABatchSays(t *testing.T) {
	r := start(t, clicks.Options{})
	c := click("abc")
	c.Link = link.Link{Owner: "shop", Options: &link.Options{Tags: []string{"autumn", "größer"}}}
	r.Record(c)
	r.Record(c) // the same visitor
	c.Address = []byte("203.0.113.8")
	r.Record(c)
	c.UserAgent = []byte("curl/8.5.0")
	r.Record(c)
	r.Record(click("abd"))
	r.Miss("nothing", noon)
	r.Miss("nothing", noon)
	r.stop()
	var counts []clicks.Count
	var misses []clicks.Miss
	for _, b := range r.queue.Batches(t) {
		counts, misses = append(counts, b.Counts...), append(misses, b.Misses...)
	}
	if len(counts) != 2 || len(misses) != 1 {
		t.Fatalf("got %+v, %+v", counts, misses)
	}
	slices.SortFunc(counts, func(a, b clicks.Count) int { return strings.Compare(a.Code, b.Code) })
	if a := counts[0]; a.Code != "abc" || a.Owner != "shop" || !slices.Equal(a.Tags, []string{"autumn", "größer"}) || !a.Hour.Equal(noon) || a.Clicks != 3 || a.Bots != 1 || len(a.Visitors) != 2 {
		t.Errorf("got %+v", a)
	}
	if b := counts[1]; b.Code != "abd" || b.Owner != link.DefaultOwner || b.Tags != nil || b.Clicks != 1 || b.Bots != 0 || len(b.Visitors) != 1 {
		t.Errorf("got %+v", b)
	}
	if want := (clicks.Miss{Hour: noon, Code: "nothing", Clicks: 2}); misses[0] != want {
		t.Errorf("got %+v", misses[0])
	}
}

// What finds no room is dropped, counted and said, and what has room is not lost.
func TestFullBuffers(t *testing.T) {
	const n = 50_000
	r := idle(clicks.Options{Buffers: 1 << 20})
	for range n {
		r.Record(click("abc")) // nobody drains
	}
	r.start(t)
	eventually(t, "all clicks are recorded or dropped", func() bool { return r.metric(t, "recorded_total", "")+r.metric(t, "dropped_total", "buffers") == n })
	r.Record(click("abc")) // there is room again
	r.stop()
	dropped := r.metric(t, "dropped_total", "buffers")
	if got := total(t, r.queue.Batches(t))["abc"]; dropped == 0 || dropped == n || float64(got) != n+1-dropped {
		t.Errorf("%d counted, %v dropped", got, dropped)
	}
	if why := r.Degraded(); !strings.Contains(why, "dropped within the last minute") {
		t.Errorf("degraded: %q", why)
	}
	if !strings.Contains(r.log.String(), "clicks so far were dropped") {
		t.Errorf("the log says %s", r.log)
	}
}

// failing fails, and remembers what it was sent.
type failing struct {
	clickstest.Queue
	mu     sync.Mutex
	tries  [][]byte
	answer error
}

func (q *failing) Send(_ context.Context, b *clicks.Batch) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.tries = append(q.tries, clicks.AppendBatch(nil, b))
	return q.answer
}

func (q *failing) tried() [][]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.tries)
}

func (q *failing) set(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.answer = err
}

// A batch that failed may have arrived. So the same one is sent again, and only then another.
func TestBatchIsRepeatedAsItIs(t *testing.T) {
	for _, answer := range []error{fmt.Errorf("redis: %w", link.ErrUnavailable), clicks.ErrQueueFull, errors.New("something else")} {
		t.Run(answer.Error(), func(t *testing.T) {
			q := &failing{answer: answer}
			r := start(t, clicks.Options{Queue: q})
			r.Record(click("abc"))
			eventually(t, "three tries", func() bool {
				r.Record(click("abd")) // this one waits
				return len(q.tried()) >= 3
			})
			q.set(nil)
			r.stop()
			tries := q.tried()
			var got []uint64
			for i, raw := range tries {
				b, err := clicks.ParseBatch(raw)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, b.Number)
				if b.Number == 1 && !bytes.Equal(raw, tries[0]) {
					t.Errorf("try %d differs", i)
				}
			}
			if !slices.IsSorted(got) || got[2] != 1 || got[len(got)-1] != 2 {
				t.Errorf("the numbers were %v", got)
			}
			if r.metric(t, "send_errors_total", "") == 0 || !strings.Contains(r.log.String(), "the queue of clicks") {
				t.Errorf("nothing is said: %s", r.log)
			}
		})
	}
}

// While the queue is away, links that have room are counted to the click. What else comes is dropped
// once the room is used up, and that is counted and said.
func TestQueueAwayForLong(t *testing.T) {
	const known, others = 1000, 30_000
	r := idle(clicks.Options{Waiting: 2 << 20})
	r.queue.Fail(link.ErrUnavailable)
	r.start(t)
	recorded := 0
	visit := func(name string, links int) {
		for i := range links {
			c := click(fmt.Sprintf("%s%d", name, i))
			c.UserAgent, c.Address = userAgents[i%len(userAgents)], fmt.Appendf(nil, "203.0.%d.%d", i>>8&255, i&255)
			r.Record(c)
		}
		recorded += links
		eventually(t, "all clicks are added up", func() bool { return r.metric(t, "recorded_total", "") == float64(recorded) })
	}
	visit("known", 1)
	eventually(t, "a batch waits", func() bool { return r.metric(t, "send_errors_total", "") > 0 })
	visit("known", known)
	visit("other", others)
	visit("known", known)
	if n := r.metric(t, "waiting_bytes", ""); n > 2<<20+1000 {
		t.Errorf("%v bytes wait", n)
	}
	r.queue.Fail(nil)
	r.stop()
	sum := total(t, r.queue.Batches(t))
	var counted int64
	for _, n := range sum {
		counted += n
	}
	for i := 1; i < known; i++ {
		if code := fmt.Sprintf("known%d", i); sum[code] != 2 {
			t.Fatalf("%s was clicked twice, of which %d were counted", code, sum[code])
		}
	}
	dropped := r.metric(t, "dropped_total", "waiting")
	if dropped == 0 || float64(counted)+dropped != float64(recorded) || len(sum) < 4000 {
		t.Errorf("%d clicks on %d links counted, %v dropped", counted, len(sum), dropped)
	}
	if r.metric(t, "reduced_total", "facts") == 0 || r.metric(t, "reduced_total", "visitors") == 0 {
		t.Error("facts and visitors are not dropped before links are")
	}
	if !strings.Contains(r.log.String(), "MiB of clicks wait for the queue") {
		t.Errorf("the log says %s", r.log)
	}
}

func TestStop(t *testing.T) {
	t.Run("sends what is left", func(t *testing.T) {
		r := start(t, clicks.Options{})
		for range 1000 {
			r.Record(click("abc"))
		}
		r.stop()
		if got := total(t, r.queue.Batches(t))["abc"]; got != 1000 {
			t.Errorf("%d were sent", got)
		}
	})
	t.Run("waits for the queue", func(t *testing.T) {
		r := idle(clicks.Options{Grace: time.Minute})
		r.queue.Fail(link.ErrUnavailable)
		r.start(t)
		r.Record(click("abc"))
		eventually(t, "a try", func() bool { return r.metric(t, "send_errors_total", "") > 0 })
		r.Record(click("abd"))
		time.AfterFunc(100*time.Millisecond, func() { r.queue.Fail(nil) })
		r.stop()
		if got := total(t, r.queue.Batches(t)); got["abc"] != 1 || got["abd"] != 1 {
			t.Errorf("%v were sent", got)
		}
	})
	t.Run("gives up", func(t *testing.T) {
		r := idle(clicks.Options{Grace: 100 * time.Millisecond})
		r.queue.Fail(link.ErrUnavailable)
		r.start(t)
		for i := range 6000 {
			r.Record(click(fmt.Sprintf("code%d", i)))
		}
		eventually(t, "a try", func() bool { return r.metric(t, "send_errors_total", "") > 0 })
		r.Record(click("abd"))
		r.stop()
		if n := r.metric(t, "dropped_total", "stop"); n != 6001 || len(r.queue.Bytes()) != 0 {
			t.Errorf("%v are said to be lost, of 6,001", n)
		}
		if !strings.Contains(r.log.String(), "clicks are lost") {
			t.Errorf("the log says %s", r.log)
		}
	})
}

func TestHoursAndDays(t *testing.T) {
	r := idle(clicks.Options{})
	midnight := noon.Add(12 * time.Hour)
	for _, at := range []time.Duration{-2 * time.Second, -time.Second, 0, time.Hour, time.Second, -3 * time.Second} {
		c := click("abc")
		c.At = midnight.Add(at)
		r.Record(c)
	}
	counts := r.DrainAndTake(true)[0].Counts
	slices.SortFunc(counts, func(a, b clicks.Count) int { return a.Hour.Compare(b.Hour) })
	if len(counts) != 3 {
		t.Fatalf("got %+v", counts)
	}
	for i, want := range []struct {
		hour   time.Duration
		clicks int64
	}{{-time.Hour, 3}, {0, 2}, {time.Hour, 1}} {
		if c := counts[i]; !c.Hour.Equal(midnight.Add(want.hour)) || c.Clicks != want.clicks {
			t.Errorf("got %+v, want %+v", c, want)
		}
	}
	// Somebody who comes in two hours of a day is one visitor.
	before, after := counts[0].Visitors, append(counts[1].Visitors, counts[2].Visitors...)
	if len(before) != 1 || len(after) != 1 || before[0] == after[0] {
		t.Errorf("the visitors are %v and then %v", before, after)
	}
}

// A batch is no larger than a queue should carry.
func TestBatchesAreSplit(t *testing.T) {
	t.Run("many links", func(t *testing.T) {
		r := start(t, clicks.Options{})
		for i := range 20_000 {
			r.Record(click(fmt.Sprintf("code%d", i)))
		}
		r.stop()
		if sum := total(t, r.queue.Batches(t)); len(sum) != 20_000 {
			t.Errorf("%d links", len(sum))
		}
	})
	t.Run("many visitors", func(t *testing.T) {
		const n = 100_000
		r := start(t, clicks.Options{Buffers: 64 << 20})
		for i := range n {
			c := click("abc")
			c.Address = fmt.Appendf(nil, "10.%d.%d.%d", i>>16, i>>8&255, i&255)
			c.Referrer = referrers[i%len(referrers)]
			if r.Record(c); i%5 == 0 {
				c.UserAgent = nil
				r.Record(c) // a bot
			}
		}
		r.stop()
		visitors := make(map[uint64]bool)
		batches := r.queue.Batches(t)
		if sum := total(t, batches)["abc"]; sum != n+n/5 {
			t.Errorf("%d clicks", sum)
		}
		for i, raw := range r.queue.Bytes() {
			if len(raw) > 300<<10 {
				t.Errorf("a batch has %d bytes", len(raw))
			}
			for _, c := range batches[i].Counts {
				for _, v := range c.Visitors {
					visitors[v] = true
				}
			}
		}
		if len(visitors) != n {
			t.Errorf("%d visitors", len(visitors))
		}
	})
}

// Of many codes without a link, the frequent ones are told, and no more than a few.
func TestMisses(t *testing.T) {
	r := idle(clicks.Options{})
	for i := range 50_000 {
		r.Miss(fmt.Sprintf("once%d", i), noon)
		if i%10 == 0 {
			r.Miss("often", noon)
		}
		if i%5000 == 0 {
			r.DrainAndTake(false)
		}
	}
	misses := r.DrainAndTake(true)[0].Misses
	if len(misses) > 100 || misses[0].Code != "often" || misses[0].Clicks < 4900 || misses[0].Clicks > 5000 {
		t.Errorf("%d misses, first %+v", len(misses), misses[0])
	}
}

// Nobody can make a dimension grow without end, or make us keep much, whatever is in the headers.
func TestHostileHeaders(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pool := make([]byte, 64<<10)
	for i := range pool {
		pool[i] = byte(random.Uint32())
	}
	junk := func(n int) []byte { return pool[random.IntN(len(pool)-n):][:n] }
	r := idle(clicks.Options{Waiting: 8 << 20})
	values := make(map[clicks.Dimension]map[string]bool)
	var bytes int
	for i := range 20_000 {
		c := click(fmt.Sprintf("code%d", i%10))
		big := 8 << 10
		switch i % 4 {
		case 0:
			c.UserAgent, c.Referrer, c.Query, c.Purpose, c.Country, c.Address = junk(big), junk(big), junk(big), junk(big), junk(2), junk(big)
		case 1:
			c.Referrer = fmt.Appendf(nil, "https://%d.example.com/%s", i, junk(big))
			c.Query = fmt.Appendf(nil, "utm_source=%d&utm_medium=%%F0%%9F%%98%%80%d&utm_campaign=%d", i, i, i)
			c.UserAgent = fmt.Appendf(nil, "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/%d.0", i)
		case 2:
			c.Referrer = fmt.Appendf(nil, "https://%s/", strings.Repeat("a.", 130))
			c.Query = []byte("utm_source=" + strings.Repeat("%", big) + "&" + strings.Repeat("utm_", big/4))
			c.UserAgent = []byte(strings.Repeat("Mozilla/5.0 (", big/13))
		case 3:
			c.Query = []byte(strings.Repeat("&utm_source=é", big/13))
			c.Link = link.Link{Owner: string(junk(100)), Options: &link.Options{Tags: []string{string(junk(50)), strings.Repeat("é", 300), string(junk(2000))}}}
		}
		r.Record(c)
		if i%100 != 0 {
			continue
		}
		for _, b := range r.DrainAndTake(true) {
			b.Producer = "P1"
			raw := clicks.AppendBatch(nil, &b)
			bytes += len(raw)
			b, err := clicks.ParseBatch(raw)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range b.Counts {
				for _, f := range c.Facts {
					for d, v := range f.Facts {
						if values[clicks.Dimension(d)] == nil {
							values[clicks.Dimension(d)] = make(map[string]bool)
						}
						values[clicks.Dimension(d)][v] = true
					}
				}
			}
		}
	}
	for d, v := range values {
		if len(v) > 1002 {
			t.Errorf("%s has %d values", d, len(v))
		}
	}
	if !values[clicks.Source][clicks.Other] || !values[clicks.Referrer][clicks.Other] {
		t.Error("values are not bounded")
	}
	if bytes > 20_000*100 {
		t.Errorf("%d bytes a click", bytes/20_000)
	}
}

// No address leaves the process, in whichever form.
func TestNoAddressInBatches(t *testing.T) {
	r := start(t, clicks.Options{})
	var addresses []netip.Addr
	for i := range 2000 {
		a := netip.AddrFrom4([4]byte{203, 0, byte(113 + i>>8), byte(i)})
		if i%2 == 1 {
			a = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i), 14: byte(i >> 8), 8: 0xfe})
		}
		addresses = append(addresses, a)
		c := click("abc")
		c.Address = []byte(a.String())
		r.Record(c)
	}
	r.stop()
	for _, raw := range r.queue.Bytes() {
		for _, a := range addresses {
			if bytes.Contains(raw, []byte(a.String())) || bytes.Contains(raw, a.AsSlice()) {
				t.Fatalf("a batch has %s", a)
			}
		}
	}
}

// switched are Salts that fail at times.
type switched struct {
	clickstest.Salts
	away atomic.Bool
}

func (s *switched) Salt(ctx context.Context, day time.Time) (clicks.Salt, error) {
	if s.away.Load() {
		return clicks.Salt{}, link.ErrUnavailable
	}
	return s.Salts.Salt(ctx, day)
}

func visitor(t *testing.T, r *recorder, at time.Time) uint64 {
	t.Helper()
	c := click("abc")
	c.At = at
	r.Record(c)
	return r.DrainAndTake(true)[0].Counts[0].Visitors[0]
}

func TestSalts(t *testing.T) {
	salts := new(switched)
	today := noon.Add(-12 * time.Hour)
	a, b := idle(clicks.Options{Salts: salts}), idle(clicks.Options{Salts: salts})
	for _, r := range []*recorder{a, b} {
		r.RefreshSalts(t.Context(), noon)
	}
	first := visitor(t, a, noon)
	if visitor(t, b, noon) != first {
		t.Error("two processes tell one visitor apart")
	}
	if visitor(t, a, noon.Add(time.Hour)) != first {
		t.Error("a visitor is another one an hour later")
	}

	// The salt of the next day is there before it begins.
	a.RefreshSalts(t.Context(), today.Add(24*time.Hour-time.Minute))
	b.RefreshSalts(t.Context(), today.Add(24*time.Hour-time.Minute))
	salts.away.Store(true)
	tomorrow := visitor(t, a, today.Add(24*time.Hour))
	if tomorrow == first || visitor(t, b, today.Add(24*time.Hour)) != tomorrow {
		t.Error("the salt does not change at midnight for both")
	}
	if visitor(t, a, today.Add(24*time.Hour-time.Second)) != first {
		t.Error("the salt of yesterday is gone too early")
	}
	a.RefreshSalts(t.Context(), today.Add(24*time.Hour+2*time.Minute))
	if n := a.SaltDays(); n != 1 {
		t.Errorf("%d salts are kept", n)
	}

	// Without the shared one, each process makes one, until it comes.
	after := today.Add(48*time.Hour + time.Hour)
	a.RefreshSalts(t.Context(), after)
	own := visitor(t, a, after)
	if visitor(t, b, after) == own || visitor(t, a, after) != own {
		t.Error("a process has no salt of its own, or more than one")
	}
	if a.metric(t, "salt_errors_total", "") != 1 || !strings.Contains(a.log.String(), "the salt of visitors") {
		t.Errorf("nothing is said: %s", a.log)
	}
	salts.away.Store(false)
	a.RefreshSalts(t.Context(), after)
	b.RefreshSalts(t.Context(), after)
	if shared := visitor(t, a, after); shared == own || visitor(t, b, after) != shared {
		t.Error("the shared salt is not used once it is there")
	}
}

// What tells visitors apart is the address, the user agent, the link and the day.
func TestVisitors(t *testing.T) {
	r := idle(clicks.Options{})
	for _, change := range []func(*clicks.Click){
		func(c *clicks.Click) {}, func(c *clicks.Click) { c.Address = []byte("203.0.113.70") }, func(c *clicks.Click) { c.UserAgent = userAgents[0] },
		func(c *clicks.Click) { c.Code = "abc2" }, func(c *clicks.Click) { c.Code, c.Address = "abc20", []byte("3.0.113.7") }, func(c *clicks.Click) { c.At = noon.AddDate(0, 0, 1) },
		func(c *clicks.Click) { c.Referrer = referrers[1] }, // the same as the first
	} {
		c := click("abc")
		change(&c)
		r.Record(c)
	}
	seen := make(map[uint64]bool)
	for _, c := range r.DrainAndTake(true)[0].Counts {
		for _, v := range c.Visitors {
			seen[v] = true
		}
	}
	if len(seen) != 6 {
		t.Errorf("%d visitors, want 6", len(seen))
	}
}

func TestNilRecorder(t *testing.T) {
	var r *clicks.Recorder
	r.Record(click("abc"))
	r.Miss("abc", noon)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Run(ctx); err != nil {
		t.Error(err)
	}
}

// FuzzRecord: whatever strangers send, and whatever a link says, it becomes a batch that can be read.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(firefox), []byte("https://user@www.example.com:80/?a"), []byte("a=b&utm_source=%C3%B6+&utm_medium&utm_campaign=c"), []byte("prefetch;prerender"), []byte("de"), []byte("203.0.113.7"), "shop", "autumn")
	f.Add([]byte("curl/8.5.0"), []byte("android-app://com.example/"), []byte("qr"), []byte(nil), []byte("XX"), []byte("2001:db8::1"), "", "größer")
	f.Add([]byte("\xff"), []byte("://"), []byte("utm_source=%&utm_source=%F0%9F"), []byte("\x00"), []byte("\x01\x02"), []byte("::ffff:1.2.3.4%eth0"), "\xff\n", "\x00")
	r := idle(clicks.Options{})
	f.Fuzz(func(t *testing.T, agent, referrer, query, purpose, country, address []byte, owner, tag string) {
		r.Record(clicks.Click{
			Code: "abc", At: noon, UserAgent: agent, Referrer: referrer, Query: query, Purpose: purpose, Country: country, Address: address,
			Link: link.Link{Owner: owner, Options: &link.Options{Tags: []string{tag, "other", tag}}},
		})
		sent := r.DrainAndTake(true)[0]
		raw := clicks.AppendBatch(nil, &sent)
		got, err := clicks.ParseBatch(raw)
		if err != nil || !bytes.Equal(clicks.AppendBatch(nil, &got), raw) {
			t.Fatalf("%+v became %+v, %v", sent, got, err)
		}
		if c := got.Counts[0]; c.Clicks+c.Bots != 1 || len(c.Facts) != 1 {
			t.Errorf("got %+v", c)
		}
	})
}

// While the queue is away, clicks wait. After a minute the operator hears of it.
func TestDegradedByTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := idle(clicks.Options{})
		r.queue.Fail(clicks.ErrQueueFull)
		r.start(t)
		r.Record(clicks.Click{Code: "abc", At: time.Now()})
		time.Sleep(50 * time.Second)
		if why := r.Degraded(); why != "" {
			t.Errorf("degraded too soon: %q", why)
		}
		time.Sleep(15 * time.Second)
		if why := r.Degraded(); !strings.Contains(why, "the queue has accepted no clicks since") {
			t.Errorf("degraded: %q", why)
		}
		r.queue.Fail(nil)
		time.Sleep(3 * time.Second)
		if why := r.Degraded(); why != "" {
			t.Errorf("still degraded: %q", why)
		}
		r.stop()
	})
}
