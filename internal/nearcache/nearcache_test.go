package nearcache_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"snowlink/internal/embedded"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/link/linktest"
	"snowlink/internal/nearcache"
	"snowlink/internal/redisstore"
)

// memory is a link.Store for tests on virtual time, where Redis cannot be. It has the methods that
// such tests use, counts its reads, and can be made to fail or to wait.
type memory struct {
	link.Store
	mu    sync.Mutex
	links map[string]link.Link
	reads atomic.Int64
	away  atomic.Bool
	bad   sync.Map     // codes that cannot be read
	hung  sync.Map     // codes whose reads hang, as those of a paused master do
	wait  atomic.Int64 // a time.Duration that a read takes
}

func newMemory() *memory { return &memory{links: make(map[string]link.Link)} }

func (m *memory) Get(ctx context.Context, code string) (link.Link, error) {
	m.reads.Add(1)
	m.mu.Lock()
	l, ok := m.links[code]
	m.mu.Unlock()
	wait := time.Duration(m.wait.Load())
	_, hangs := m.hung.Load(code)
	if hangs {
		wait = hangsFor
	}
	if wait > 0 { // the answer is on its way
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return link.Link{}, fmt.Errorf("%w: %w", link.ErrUnavailable, ctx.Err())
		}
	}
	switch {
	case hangs, m.away.Load():
		return link.Link{}, link.ErrUnavailable
	case m.isBad(code):
		return link.Link{}, link.ErrUnreadable
	case !ok:
		return link.Link{}, link.ErrNotFound
	}
	return l, nil
}

func (m *memory) isBad(code string) bool {
	_, bad := m.bad.Load(code)
	return bad
}

func (m *memory) GetAll(ctx context.Context, codes []string) ([]link.Link, []error) {
	links, errs := make([]link.Link, len(codes)), make([]error, len(codes))
	var wg sync.WaitGroup // they share their round trip
	for i, code := range codes {
		wg.Go(func() { links[i], errs[i] = m.Get(ctx, code) })
	}
	wg.Wait()
	return links, errs
}

func (m *memory) Create(_ context.Context, _, code string, l link.Link) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, ok := m.links[code]; ok && old != l {
		return link.ErrExists
	}
	m.links[code] = l
	return nil
}

func (m *memory) CreateAll(ctx context.Context, owner string, links []link.Coded) []error {
	errs := make([]error, len(links))
	for i, l := range links {
		errs[i] = m.Create(ctx, owner, l.Code, l.Link)
	}
	return errs
}

func (m *memory) forget(code string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.links, code)
}

func (m *memory) set(code, target string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.links[code] = link.Link{Target: target}
}

const (
	megabyte     = 1 << 20
	staleIfError = time.Hour

	// gathering is more than the cache waits for others before it refreshes a link.
	gathering = nearcache.GatherFor + 10*time.Millisecond

	// hangsFor is the time after which a store gives up a read that hangs, if its reader has no
	// deadline of its own: redisconn.OperationTime.
	hangsFor = 1200 * time.Millisecond
)

// inBubble runs f on virtual time over a store that holds code "a" -> "one".
func inBubble(t *testing.T, f func(t *testing.T, m *memory, c *nearcache.Cache)) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.set("a", "one")
		c := nearcache.New(m, megabyte, staleIfError, prometheus.NewRegistry())
		defer c.Close()
		f(t, m, c)
		time.Sleep(5 * time.Second) // reads in the background end, too
	})
}

func wantTarget(t *testing.T, c *nearcache.Cache, code, want string) {
	t.Helper()
	if l, err := c.Get(t.Context(), code); err != nil || l.Target != want {
		t.Errorf("Get(%s) = %q, %v, want %q", code, l.Target, err, want)
	}
}

func wantReads(t *testing.T, m *memory, want int64) {
	t.Helper()
	synctest.Wait()
	if got := m.reads.Load(); got != want {
		t.Errorf("the store was read %d times, want %d", got, want)
	}
}

func TestContract(t *testing.T) {
	redis, err := embedded.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer redis.Close()
	store := redisstore.New(fleettest.Conn(t, redis.URL(), slog.New(slog.DiscardHandler)), redisstore.Options{JournalMax: 1000})
	c := nearcache.New(store, megabyte, staleIfError, prometheus.NewRegistry())
	defer c.Close()
	linktest.Store(t, c, "x")
}

func TestHotLinkIsReadOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, c *nearcache.Cache) {
		for range 1000 {
			wantTarget(t, c, "a", "one")
		}
		wantReads(t, m, 1)
	})
}

func TestManyAtOnceReadOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, c *nearcache.Cache) {
		m.wait.Store(int64(time.Millisecond))
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { wantTarget(t, c, "a", "one") })
		}
		wg.Wait()
		wantReads(t, m, 1)
	})
}

func TestMissingIsRememberedForTwoSeconds(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, c *nearcache.Cache) {
		missing := func() {
			t.Helper()
			if _, err := c.Get(t.Context(), "b"); !errors.Is(err, link.ErrNotFound) {
				t.Errorf("Get = %v, want ErrNotFound", err)
			}
		}
		missing()
		missing()
		wantReads(t, m, 1)
		m.set("b", "two") // by another backend, unannounced
		time.Sleep(nearcache.MissingFor - time.Millisecond)
		missing()
		time.Sleep(2 * time.Millisecond)
		wantTarget(t, c, "b", "two")
	})
}

func TestOwnCreateEndsMissing(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, c *nearcache.Cache) {
		if _, err := c.Get(t.Context(), "b"); !errors.Is(err, link.ErrNotFound) {
			t.Fatal(err)
		}
		if err := c.Create(t.Context(), "owner", "b", link.Link{Target: "two"}); err != nil {
			t.Fatal(err)
		}
		wantTarget(t, c, "b", "two")
	})
}

// The store forgets a link while the cache has it, or reads it, and its code is made again. The old
// link is not seen any more.
func TestOwnCreateEndsAForgottenLink(t *testing.T) {
	two := link.Link{Target: "two", Options: &link.Options{Created: time.UnixMilli(1)}}
	for name, create := range map[string]func(*testing.T, *nearcache.Cache) error{
		"Create": func(t *testing.T, c *nearcache.Cache) error { return c.Create(t.Context(), "owner", "a", two) },
		"CreateAll": func(t *testing.T, c *nearcache.Cache) error {
			return c.CreateAll(t.Context(), "owner", []link.Coded{{Code: "b", Link: two}, {Code: "a", Link: two}})[1]
		},
		"CreateAll of a minted code": func(t *testing.T, c *nearcache.Cache) error {
			return c.CreateAll(t.Context(), "owner", []link.Coded{{Code: "a", Link: link.Link{Target: "two"}}})[0]
		},
	} {
		for _, loaded := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, the old one loaded %t", name, loaded), func(t *testing.T) {
				inBubble(t, func(t *testing.T, m *memory, c *nearcache.Cache) {
					if loaded {
						wantTarget(t, c, "a", "one")
					}
					m.wait.Store(int64(10 * time.Millisecond))
					if loaded { // and is read again
						c.Distrust()
						time.Sleep(time.Millisecond)
						wantTarget(t, c, "a", "one")
						time.Sleep(nearcache.GatherFor)
					}
					go c.Get(t.Context(), "a") // reads "one", and is slow to bring it
					time.Sleep(5 * time.Millisecond)
					m.forget("a")
					if err := create(t, c); err != nil {
						t.Fatal(err)
					}
					wantTarget(t, c, "a", "two")
					time.Sleep(20 * time.Millisecond)
					wantTarget(t, c, "a", "two")
				})
			})
		}
	}
}

// A create that failed says nothing of the link that is kept: it must not take it from its visitors.
func TestFailedCreateLeavesTheLink(t *testing.T) {
	other := link.Link{Target: "two", Options: &link.Options{Created: time.UnixMilli(1)}}
	inBubble(t, func(t *testing.T, m *memory, c *nearcache.Cache) {
		wantTarget(t, c, "a", "one")
		reads := m.reads.Load()
		if err := c.Create(t.Context(), "owner", "a", other); !errors.Is(err, link.ErrExists) {
			t.Fatal(err)
		}
		if err := c.CreateAll(t.Context(), "owner", []link.Coded{{Code: "a", Link: other}})[0]; !errors.Is(err, link.ErrExists) {
			t.Fatal(err)
		}
		m.away.Store(true)
		wantTarget(t, c, "a", "one")
		if got := m.reads.Load(); got != reads {
			t.Errorf("the store was read %d times", got-reads)
		}
	})
}

// This is the bound on staleness if nothing is announced: a link in steady use and one that rested
// are both right after FreshFor.
func TestUnannouncedChangeShowsWithinFreshFor(t *testing.T) {
	for _, pause := range []time.Duration{10 * time.Millisecond, time.Second, 29 * time.Second, nearcache.FreshFor + 2*time.Millisecond} {
		t.Run(pause.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, m *memory, c *nearcache.Cache) {
				m.wait.Store(int64(time.Millisecond))
				wantTarget(t, c, "a", "one")
				m.set("a", "two")
				changed := time.Now()
				for {
					time.Sleep(pause)
					l, err := c.Get(t.Context(), "a")
					if err != nil {
						t.Fatal(err)
					}
					if l.Target == "two" {
						break
					}
					if age := time.Since(changed); age > nearcache.FreshFor {
						t.Fatalf("still %q %s after the change", l.Target, age)
					}
				}
			})
		})
	}
}

func TestLinkInUseIsRefreshedWithoutWaiting(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, c *nearcache.Cache) {
		wantTarget(t, c, "a", "one")
		m.wait.Store(int64(time.Second))
		const every, hour = time.Second, time.Hour
		for began := time.Now(); time.Since(began) < hour; time.Sleep(every) {
			asked := time.Now()
			wantTarget(t, c, "a", "one")
			if time.Since(asked) > 0 {
				t.Fatal("a visitor waited for the store")
			}
		}
		// Once every RefreshAfter, and the second that a read takes here.
		synctest.Wait()
		most := int64(hour/nearcache.RefreshAfter) + 1
		if got := m.reads.Load(); got > most || got < most*9/10 {
			t.Errorf("the store was read %d times in an hour, want about %d", got, most)
		}
	})
}

func TestAnnouncedChangeShowsAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, c *nearcache.Cache) {
		wantTarget(t, c, "a", "one")
		m.set("a", "two")
		c.Drop("a")
		wantTarget(t, c, "a", "two")

		// Codes without a link are dropped, too.
		if _, err := c.Get(t.Context(), "b"); !errors.Is(err, link.ErrNotFound) {
			t.Fatal(err)
		}
		m.set("b", "three")
		c.Drop("b")
		wantTarget(t, c, "b", "three")
	})
}

// A read that was under way when the change was announced must not bring the old link back.
func TestReadUnderWayDoesNotOutliveAChange(t *testing.T) {
	for name, begin := range map[string]func(*testing.T, *memory, *nearcache.Cache){
		"load":    func(*testing.T, *memory, *nearcache.Cache) {},
		"missing": func(_ *testing.T, m *memory, _ *nearcache.Cache) { delete(m.links, "a") },
		"refresh": func(t *testing.T, _ *memory, c *nearcache.Cache) {
			wantTarget(t, c, "a", "one")
			c.Distrust()
			time.Sleep(time.Millisecond)
			wantTarget(t, c, "a", "one") // is due
			time.Sleep(nearcache.GatherFor - 2*time.Millisecond)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, m *memory, c *nearcache.Cache) {
				begin(t, m, c)
				m.wait.Store(int64(10 * time.Millisecond))
				go c.Get(t.Context(), "a") // reads "one", and is slow to bring it
				time.Sleep(5 * time.Millisecond)
				m.set("a", "two")
				c.Drop("a")
				time.Sleep(20 * time.Millisecond)
				wantTarget(t, c, "a", "two")
			})
		})
	}
}

func TestDistrustRefreshesAtTheNextUse(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, c *nearcache.Cache) {
		wantTarget(t, c, "a", "one")
		m.set("a", "two")
		c.Distrust()
		time.Sleep(time.Millisecond)
		wantTarget(t, c, "a", "one") // nobody waits
		time.Sleep(gathering)
		wantTarget(t, c, "a", "two")
		wantReads(t, m, 2)
	})
}

// Reads under way when announcements may have been missed are not trusted either.
func TestDistrustReachesReadsUnderWay(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, c *nearcache.Cache) {
		m.wait.Store(int64(10 * time.Millisecond))
		go c.Get(t.Context(), "a") // reads "one", and is slow to bring it
		time.Sleep(5 * time.Millisecond)
		m.set("a", "two")
		c.Distrust()
		time.Sleep(20 * time.Millisecond)
		wantTarget(t, c, "a", "one") // and is refreshed
		time.Sleep(gathering + 10*time.Millisecond)
		wantTarget(t, c, "a", "two")
	})
}

// A failure long ago does not excuse an old answer: the store may be back.
func TestOldFailureIsNoExcuse(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, c *nearcache.Cache) {
		wantTarget(t, c, "a", "one")
		m.away.Store(true)
		if _, err := c.Get(t.Context(), "b"); !errors.Is(err, link.ErrUnavailable) {
			t.Fatal(err)
		}
		m.away.Store(false)
		m.set("a", "two")
		time.Sleep(time.Minute) // without visitors
		wantTarget(t, c, "a", "two")
	})
}

func TestDeletedLinkGoes(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, c *nearcache.Cache) {
		wantTarget(t, c, "a", "one")
		delete(m.links, "a")
		time.Sleep(nearcache.FreshFor + time.Millisecond)
		if _, err := c.Get(t.Context(), "a"); !errors.Is(err, link.ErrNotFound) {
			t.Errorf("Get = %v, want ErrNotFound", err)
		}
	})
}

func TestStoreAway(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, c *nearcache.Cache) {
		wantTarget(t, c, "a", "one")
		m.away.Store(true)
		m.wait.Store(int64(time.Second)) // and slow to say so

		if _, err := c.Get(t.Context(), "b"); !errors.Is(err, link.ErrUnavailable) || errors.Is(err, link.ErrNotFound) {
			t.Errorf("a link not in memory = %v, want ErrUnavailable", err)
		}
		reads := m.reads.Load()
		const outage = 2 * time.Minute
		for began := time.Now(); time.Since(began) < outage; time.Sleep(10 * time.Millisecond) {
			asked := time.Now()
			wantTarget(t, c, "a", "one")
			if time.Since(asked) > 0 {
				t.Fatal("a visitor waited for a store that is known to be away")
			}
		}
		synctest.Wait()
		if tried, most := m.reads.Load()-reads, int64(outage/time.Second); tried > most {
			t.Errorf("the store was tried %d times, want %d at most", tried, most)
		}

		m.set("a", "two")
		m.away.Store(false)
		eventually := time.Now()
		for {
			if l, _ := c.Get(t.Context(), "a"); l.Target == "two" {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(eventually); took > 5*time.Second {
			t.Errorf("the store was back for %s before it was used", took)
		}
	})
}

// One part of the store hangs, as one master of a Cluster does, and the others answer. Nobody waits
// for what is in memory, the others' links keep the bound, and the part's keep it again once it is
// back.
func TestHungPartHoldsNobodyUp(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, c *nearcache.Cache) {
		const each = 500
		hung := func(i int) string { return fmt.Sprint("hung", i) }
		healthy := func(i int) string { return fmt.Sprint("healthy", i) }
		setAll := func(code func(int) string, target string) {
			for i := range each {
				m.set(code(i), target)
			}
		}
		setAll(hung, "0")
		setAll(healthy, "0")
		type change struct {
			target string
			at     time.Time
		}
		// visit asks for all of them, each of which must be as it was within FreshFor, or newer.
		visit := func(code func(int) string, changes []change) {
			t.Helper()
			want := ""
			for _, ch := range changes {
				if time.Since(ch.at) > nearcache.FreshFor {
					want = ch.target
				}
			}
			for i := range each {
				asked := time.Now()
				l, err := c.Get(t.Context(), code(i))
				if err != nil || l.Target < want {
					t.Fatalf("%s = %q, %v; for %s it has been %q", code(i), l.Target, err, nearcache.FreshFor, want)
				}
				if took := time.Since(asked); took > 0 {
					t.Fatalf("a visitor of %s waited %s", code(i), took)
				}
			}
		}
		visit(hung, nil)
		visit(healthy, nil)
		for i := range each {
			m.hung.Store(hung(i), true)
		}
		var changes []change
		for began := time.Now(); time.Since(began) < 2*time.Minute; time.Sleep(500 * time.Millisecond) {
			if n := len(changes) + 1; time.Since(began) > time.Duration(n)*10*time.Second {
				changes = append(changes, change{fmt.Sprintf("%02d", n), time.Now()})
				setAll(healthy, changes[n-1].target) // unannounced
			}
			visit(hung, nil)
			visit(healthy, changes)
		}

		m.hung.Clear()
		setAll(hung, "back")
		changes = []change{{"back", time.Now()}}
		for time.Since(changes[0].at) < 2*nearcache.FreshFor {
			time.Sleep(500 * time.Millisecond)
			visit(hung, changes)
		}
	})
}

// Nobody visited a link for a while, and its part of the store hangs. Its first visitor waits for
// as long as he can, and the next ones do not, although other parts answer all the time.
func TestOnlyTheFirstVisitorWaitsForAHungPart(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, c *nearcache.Cache) {
		const patience = 300 * time.Millisecond
		m.set("b", "one")
		wantTarget(t, c, "a", "one")
		time.Sleep(2 * nearcache.FreshFor)
		m.hung.Store("a", true)
		visit := func() time.Duration {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			asked := time.Now()
			if l, err := c.Get(ctx, "a"); err != nil || l.Target != "one" {
				t.Errorf("Get = %q, %v", l.Target, err)
			}
			return time.Since(asked)
		}
		others := func() { // are answered
			c.Drop("b")
			wantTarget(t, c, "b", "one")
		}
		go visit()
		time.Sleep(hangsFor / 2)
		others()
		time.Sleep(hangsFor/2 + time.Millisecond)
		for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(100 * time.Millisecond) {
			others()
			if took := visit(); took > 0 {
				t.Fatalf("%s later a visitor waited %s", time.Since(began), took)
			}
		}
		m.hung.Clear()
		m.set("a", "two")
		time.Sleep(nearcache.FreshFor)
		wantTarget(t, c, "a", "two")
	})
}

// One link that cannot be read is no outage. The others are still refreshed within the bound, and
// it is not served for ever.
func TestUnreadableLinkIsNoOutage(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, c *nearcache.Cache) {
		const hot = 500
		code := func(i int) string { return fmt.Sprint("hot", i) }
		for i := range hot {
			m.set(code(i), "one")
			wantTarget(t, c, code(i), "one")
		}
		m.bad.Store(code(7), true)
		for i := range hot {
			m.set(code(i), "two") // unannounced
		}
		for began := time.Now(); time.Since(began) < nearcache.FreshFor; time.Sleep(100 * time.Millisecond) {
			for i := range hot {
				c.Get(t.Context(), code(i))
			}
		}
		for i := range hot {
			if l, err := c.Get(t.Context(), code(i)); i == 7 && !errors.Is(err, link.ErrUnreadable) || i != 7 && l.Target != "two" {
				t.Errorf("Get(%s) = %q, %v after %s", code(i), l.Target, err, nearcache.FreshFor)
			}
		}
		m.bad.Clear()
		wantTarget(t, c, code(7), "two")

		// Nor is it served after a rest, which ends in a read for its visitor.
		m.bad.Store(code(7), true)
		time.Sleep(2 * nearcache.FreshFor)
		for range 2 {
			if _, err := c.Get(t.Context(), code(7)); !errors.Is(err, link.ErrUnreadable) {
				t.Errorf("Get = %v, want ErrUnreadable", err)
			}
		}
		wantTarget(t, c, code(8), "two")
	})
}

// A visitor who has little time left waits no longer than that, although others ask for the same
// link. He neither cuts them off nor makes the store look away.
func TestWaitersKeepTheirOwnDeadlines(t *testing.T) {
	const short, slow = 100 * time.Millisecond, 500 * time.Millisecond
	for _, old := range []bool{false, true} {
		for _, shortFirst := range []bool{false, true} {
			t.Run(fmt.Sprintf("old %t, the short one first %t", old, shortFirst), func(t *testing.T) {
				inBubble(t, func(t *testing.T, m *memory, c *nearcache.Cache) {
					if old {
						wantTarget(t, c, "a", "one")
						time.Sleep(2 * nearcache.FreshFor)
					}
					m.set("a", "two")
					m.wait.Store(int64(slow))
					var all sync.WaitGroup
					for i := range 4 {
						hasLittle := (i == 0) == shortFirst && (i == 0 || i == 3)
						all.Go(func() {
							ctx, asked := t.Context(), time.Now()
							if hasLittle {
								var cancel context.CancelFunc
								ctx, cancel = context.WithTimeout(ctx, short)
								defer cancel()
							}
							l, err := c.Get(ctx, "a")
							took := time.Since(asked)
							if hasLittle && (took != short || !old && err == nil || old && l.Target != "one") {
								t.Errorf("who has %s: %q, %v after %s", short, l.Target, err, took)
							}
							if !hasLittle && (err != nil || l.Target != "two" || took > slow+short) {
								t.Errorf("who has time: %q, %v after %s", l.Target, err, took)
							}
						})
						time.Sleep(time.Millisecond)
					}
					all.Wait()
					// The store does not count as away: what is old is read, not served as it is.
					time.Sleep(2 * nearcache.FreshFor)
					m.set("a", "three")
					wantTarget(t, c, "a", "three")
				})
			})
		}
	}
}

func TestStaleIfErrorEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, c *nearcache.Cache) {
		wantTarget(t, c, "a", "one")
		m.away.Store(true)
		time.Sleep(staleIfError - time.Minute)
		wantTarget(t, c, "a", "one")
		time.Sleep(2 * time.Minute)
		if _, err := c.Get(t.Context(), "a"); !errors.Is(err, link.ErrUnavailable) {
			t.Errorf("Get = %v, want ErrUnavailable", err)
		}
	})
}

// Guessed codes do not push links out.
func TestMissingHasItsShare(t *testing.T) {
	m := newMemory()
	c := nearcache.New(m, megabyte, staleIfError, prometheus.NewRegistry())
	defer c.Close()
	const links = 1000
	for i := range links {
		code := fmt.Sprintf("hot%d", i)
		m.set(code, "https://example.com/")
		c.Get(t.Context(), code)
	}
	for i := range 100_000 {
		c.Get(t.Context(), fmt.Sprintf("guess%d", i))
	}
	before := m.reads.Load()
	for i := range links {
		c.Get(t.Context(), fmt.Sprintf("hot%d", i))
	}
	if again := m.reads.Load() - before; again > 0 {
		t.Errorf("%d of %d links were pushed out by guesses", again, links)
	}
}

func BenchmarkHit(b *testing.B) {
	m := newMemory()
	m.set("8h4LRT53E8", "https://example.com/")
	c := nearcache.New(m, megabyte, staleIfError, prometheus.NewRegistry())
	defer c.Close()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c.Get(context.Background(), "8h4LRT53E8")
		}
	})
}
