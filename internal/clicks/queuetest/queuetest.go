// Package queuetest is the contract of clicks.Queue as a test. Every queue there is has to pass it,
// so that all keep the same promises.
package queuetest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"snowlink/internal/clicks"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
)

// Server is what carries a queue.
type Server struct {
	// New makes an empty queue. Its name is for Open.
	New func(testing.TB) (name string)
	// Open opens a queue, as each process does.
	Open func(t testing.TB, name string) clicks.Queue
	// Kill, Restart, Pause and Resume are as those of a process. They are nil for a server in the
	// process of the test.
	Kill, Restart, Pause, Resume func()
}

const patience = 60 * time.Second

// holdEnv names a queue to a process that takes batches and does nothing with them.
const holdEnv = "QUEUETEST_HOLD"

// Main runs a package's tests. In a process that a test has started to take batches, it does that,
// until it is killed. A package that calls Queue calls it from its TestMain.
func Main(m *testing.M, run func(*testing.M) int, open func(name string) (clicks.Queue, error)) int {
	name := os.Getenv(holdEnv)
	if name == "" {
		return run(m)
	}
	q, err := open(name)
	if err == nil {
		err = q.Receive(context.Background(), func(context.Context, []clicks.Batch) error {
			fmt.Println("taken")
			select {}
		})
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// Queue checks that a queue keeps the promises of clicks.Queue.
func Queue(t *testing.T, s Server) {
	t.Run("what is sent arrives as it is, in order", s.arrives)
	t.Run("receivers share", s.shared)
	t.Run("what is not applied comes again", s.again)
	t.Run("a receiver that stops leaves what it did not apply", s.stopped)
	t.Run("lag", s.lag)
	if s.Kill != nil {
		t.Run("a receiver is killed", s.killed)
		t.Run("the server is away", s.away)
		t.Run("the server hangs", s.hangs)
	}
}

// Batch makes a batch of two links, and misses, that is like no other.
func Batch(producer string, number uint64) clicks.Batch {
	hour := time.Date(2026, 11, 25, 16, 0, 0, 0, time.UTC)
	n := int64(number)
	return clicks.Batch{Producer: producer, Number: number,
		Counts: []clicks.Count{
			{
				Code: fmt.Sprintf("%sA%d", producer, number), Owner: "shop", Tags: []string{"autumn", "ü"}, Hour: hour, Clicks: n + 10, Bots: 1,
				Facts: []clicks.FactCount{
					{Facts: clicks.Facts{clicks.Country: "DE", clicks.Browser: "Firefox", clicks.Campaign: `"ä\` + "☃"}, Clicks: n},
					{Facts: clicks.Facts{clicks.Bot: "crawler", clicks.Referrer: "example.org"}, Clicks: 1},
					{Clicks: 1},
				},
				Visitors: []uint64{1, 1<<64 - 1, 1<<53 + 1, number},
			},
			{Code: fmt.Sprintf("%sB%d", producer, number), Owner: link.DefaultOwner, Hour: hour.Add(time.Hour), Clicks: 1},
		},
		Misses: []clicks.Miss{{Hour: hour, Code: fmt.Sprintf("%sM%d", producer, number), Clicks: 2}},
	}
}

// Sink is something to apply batches to.
type Sink struct {
	t       testing.TB
	mu      sync.Mutex
	got     map[string]int // contents of counts and misses, how often they came
	highest map[string]uint64
	seen    map[string]bool // producers with numbers
}

// NewSink makes a Sink. It fails the test if batches come in an order in which they must not.
func NewSink(t testing.TB) *Sink {
	return &Sink{t: t, got: make(map[string]int), highest: make(map[string]uint64), seen: make(map[string]bool)}
}

// Apply applies batches.
func (s *Sink) Apply(_ context.Context, batches []clicks.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(batches) == 0 {
		s.t.Error("no batches came")
	}
	for _, b := range batches {
		if !b.Ordered {
			s.number(b.Producer, b.Number, clicks.ReorderMost)
		}
		for _, c := range b.Counts {
			if b.Ordered {
				s.number(b.Producer+" counts", c.Number, 0)
			}
			s.got[content(c)]++
		}
		for _, m := range b.Misses {
			if b.Ordered {
				s.number(b.Producer+" misses", m.Number, 0)
			}
			s.got[missed(m)]++
		}
	}
	return nil
}

func (s *Sink) number(producer string, n uint64, late uint64) {
	key := fmt.Sprintf("%s %d", producer, n)
	if n == 0 || !s.seen[key] && n+late < s.highest[producer] {
		s.t.Errorf("%d of %s came after %d", n, producer, s.highest[producer])
	}
	s.seen[key] = true
	s.highest[producer] = max(s.highest[producer], n)
}

func content(c clicks.Count) string {
	c.Number = 0
	return fmt.Sprintf("%+v", c)
}

func missed(m clicks.Miss) string {
	m.Number = 0
	return fmt.Sprintf("miss %+v", m)
}

// Lacks returns what of the batches has not come.
func (s *Sink) Lacks(batches []clicks.Batch) (lacks []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range batches {
		for _, c := range b.Counts {
			if s.got[content(c)] == 0 {
				lacks = append(lacks, content(c))
			}
		}
		for _, m := range b.Misses {
			if s.got[missed(m)] == 0 {
				lacks = append(lacks, missed(m))
			}
		}
	}
	return lacks
}

// Repeated returns what came more than once.
func (s *Sink) Repeated() (repeated []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for what, n := range s.got {
		if n > 1 {
			repeated = append(repeated, what)
		}
	}
	return repeated
}

// Await waits until everything in the batches has come, and fails if anything else has.
func (s *Sink) Await(batches []clicks.Batch) {
	s.t.Helper()
	for until := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		lacks := s.Lacks(batches)
		if len(lacks) == 0 {
			break
		}
		if time.Now().After(until) {
			s.t.Fatalf("%d have not come, the first is %s", len(lacks), lacks[0])
		}
	}
	parts := 0
	for _, b := range batches {
		parts += len(b.Counts) + len(b.Misses)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.got) != parts {
		s.t.Errorf("%d counts and misses came that are different; %d were sent", len(s.got), parts)
	}
}

// send sends n batches of a producer, each until the queue has it, beginning with a number.
func send(t testing.TB, q clicks.Queue, producer string, from, n int) (batches []clicks.Batch) {
	t.Helper()
	for i := range n {
		b := Batch(producer, uint64(from+i))
		batches = append(batches, b)
		SendUntil(t, q, &b)
	}
	return batches
}

// SendUntil sends a batch until the queue has it.
func SendUntil(t testing.TB, q clicks.Queue, b *clicks.Batch) {
	t.Helper()
	for until := time.Now().Add(patience); ; {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Second)
		err := q.Send(ctx, b)
		cancel()
		if err == nil {
			return
		}
		if !errors.Is(err, link.ErrUnavailable) && !errors.Is(err, clicks.ErrQueueFull) {
			t.Fatalf("Send fails with %v", err)
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
	}
}

func receive(t testing.TB, q clicks.Queue, apply func(context.Context, []clicks.Batch) error) (stop func()) {
	t.Helper()
	stopped := fleettest.Background(t, func(ctx context.Context) error { return q.Receive(ctx, apply) })
	return func() {
		t.Helper()
		if err := stopped(); err != nil {
			t.Errorf("Receive returns %v", err)
		}
	}
}

func (s Server) arrives(t *testing.T) {
	name := s.New(t)
	q := s.Open(t, name)
	sink := NewSink(t)
	batches := send(t, q, "before", 1, 20)
	stop := receive(t, s.Open(t, name), sink.Apply)
	sink.Await(batches)

	// Several producers, while it is received.
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range 3 {
		all.Go(func() {
			more := send(t, q, fmt.Sprintf("p%d", i), 1, 50)
			mu.Lock()
			defer mu.Unlock()
			batches = append(batches, more...)
		})
	}
	all.Wait()
	nothing := clicks.Batch{Producer: "nothing", Number: 1}
	if err := q.Send(t.Context(), &nothing); err != nil {
		t.Errorf("send a batch of nothing: %v", err)
	}
	sink.Await(batches)
	stop()
	if r := sink.Repeated(); len(r) > 0 {
		t.Errorf("%d came more than once, the first is %s", len(r), r[0])
	}
}

func (s Server) shared(t *testing.T) {
	name := s.New(t)
	q := s.Open(t, name)
	sink := NewSink(t)
	var mu sync.Mutex
	turns := make(map[int]int)
	for i := range 2 {
		receive(t, s.Open(t, name), func(ctx context.Context, batches []clicks.Batch) error {
			mu.Lock()
			turns[i]++
			mu.Unlock()
			return sink.Apply(ctx, batches)
		})
	}
	var batches []clicks.Batch
	fleettest.Eventually(t, patience, "both receive", func() bool {
		batches = append(batches, send(t, q, "p", len(batches)+1, 3)...)
		mu.Lock()
		defer mu.Unlock()
		return len(turns) == 2
	})
	sink.Await(batches)
}

func (s Server) again(t *testing.T) {
	name := s.New(t)
	q := s.Open(t, name)
	sink := NewSink(t)
	var mu sync.Mutex
	fails := 3
	receive(t, q, func(ctx context.Context, batches []clicks.Batch) error {
		mu.Lock()
		defer mu.Unlock()
		if fails > 0 {
			fails--
			return fmt.Errorf("not now: %w", link.ErrUnavailable)
		}
		return sink.Apply(ctx, batches)
	})
	sink.Await(send(t, q, "p", 1, 40))
	mu.Lock()
	defer mu.Unlock()
	if fails != 0 {
		t.Errorf("apply was called so seldom that %d failures are left", fails)
	}
}

func (s Server) stopped(t *testing.T) {
	name := s.New(t)
	q := s.Open(t, name)
	sink := NewSink(t)
	batches := send(t, q, "p", 1, 10)
	began := make(chan struct{}, 100)
	stop := receive(t, s.Open(t, name), func(ctx context.Context, _ []clicks.Batch) error {
		began <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	select {
	case <-began:
	case <-time.After(patience):
		t.Fatal("nothing was given")
	}
	stop()
	receive(t, s.Open(t, name), sink.Apply)
	sink.Await(batches)
}

func (s Server) lag(t *testing.T) {
	name := s.New(t)
	q := s.Open(t, name)
	lag := func() clicks.Lag {
		t.Helper()
		l, err := q.Lag(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if got := lag(); got != (clicks.Lag{}) {
		t.Errorf("an empty queue has the lag %+v", got)
	}
	sink := NewSink(t)
	began := time.Now()
	batches := send(t, q, "p", 1, 5)
	fleettest.Eventually(t, patience, "the lag grows", func() bool {
		got := lag()
		if got.Batches < 5 || got.Oldest <= 0 || got.Oldest > time.Since(began)+2*time.Second {
			t.Fatalf("the lag of 5 batches is %+v", got)
		}
		return got.Oldest > 100*time.Millisecond
	})
	stop := receive(t, s.Open(t, name), sink.Apply)
	sink.Await(batches)
	fleettest.Eventually(t, patience, "there is no lag", func() bool { return lag() == clicks.Lag{} })
	stop()

	// What was applied long ago does not count.
	fleettest.Eventually(t, patience, "half a second has passed", func() bool { return time.Since(began) > 500*time.Millisecond })
	began = time.Now()
	send(t, q, "p", 6, 1)
	if got := lag(); got.Batches == 0 || got.Oldest <= 0 || got.Oldest > time.Since(began)+100*time.Millisecond {
		t.Errorf("the lag of a batch sent %s ago is %+v", time.Since(began), got)
	}
}

func (s Server) killed(t *testing.T) {
	name := s.New(t)
	q := s.Open(t, name)
	batches := send(t, q, "p", 1, 40)

	held := exec.Command(os.Args[0])
	held.Env = append(os.Environ(), holdEnv+"="+name)
	held.Stderr = os.Stderr
	held.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := held.StdoutPipe()
	if err == nil {
		err = held.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = held.Process.Kill(); _ = held.Wait() })
	if said, err := bufio.NewReader(out).ReadString('\n'); strings.TrimSpace(said) != "taken" {
		t.Fatalf("the receiver says %q, %v", said, err)
	}
	sink := NewSink(t)
	receive(t, q, sink.Apply)
	batches = append(batches, send(t, q, "p", 41, 40)...)
	if err := held.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	batches = append(batches, send(t, q, "p", 81, 40)...)
	sink.Await(batches)
}

// sendUntilRefused sends batches until one is not taken, and returns them all.
func sendUntilRefused(t testing.TB, q clicks.Queue, producer string) (batches []clicks.Batch) {
	t.Helper()
	for until := time.Now().Add(patience); time.Now().Before(until); {
		b := Batch(producer, uint64(len(batches)+1))
		batches = append(batches, b)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		err := q.Send(ctx, &b)
		cancel()
		if errors.Is(err, link.ErrUnavailable) {
			return batches
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("every batch was taken")
	return nil
}

func (s Server) away(t *testing.T) {
	name := s.New(t)
	q := s.Open(t, name)
	sink := NewSink(t)
	receive(t, s.Open(t, name), sink.Apply)
	batches := send(t, q, "before", 1, 5)
	sink.Await(batches)

	s.Kill()
	refused := sendUntilRefused(t, q, "while")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	if _, err := q.Lag(ctx); !errors.Is(err, link.ErrUnavailable) {
		t.Errorf("Lag returns %v", err)
	}
	cancel()
	s.Restart()
	SendUntil(t, q, &refused[len(refused)-1])
	batches = slices.Concat(batches, refused, send(t, q, "after", 1, 5))
	sink.Await(batches)
}

func (s Server) hangs(t *testing.T) {
	name := s.New(t)
	q := s.Open(t, name)
	sink := NewSink(t)
	receive(t, s.Open(t, name), sink.Apply)
	batches := send(t, q, "before", 1, 5)
	sink.Await(batches)

	s.Pause()
	refused := sendUntilRefused(t, q, "while")
	s.Resume()
	SendUntil(t, q, &refused[len(refused)-1])
	batches = slices.Concat(batches, refused, send(t, q, "after", 1, 5))
	sink.Await(batches)
}

// Counter returns the value of the counter of that name, which reg has.
func Counter(t testing.TB, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}
