package faults_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	snow "snowlink/client"
	"snowlink/internal/clicks"
	"snowlink/internal/clickstream"
	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/httpapi"
	"snowlink/internal/kafka/kafkatest"
)

// clickCounts is what the fleet says of clicks, and what the load saw answered.
type clickCounts struct {
	x   *experiment
	api *snow.Client
}

func (x *experiment) clicks() *clickCounts {
	return &clickCounts{x, &snow.Client{BaseURL: x.fleet.URL, APIKey: x.fleet.APIKey}}
}

// counted returns how many clicks the fleet has counted, bots with them, or -1 if it cannot tell now.
func (c *clickCounts) counted() int {
	answer, err := c.api.Clicks(c.x.t.Context(), snow.ClicksQuery{Bots: "include", Unit: "whole"})
	if err != nil {
		return -1
	}
	return int(answer.Clicks)
}

// answered counts the redirects that the load has received, by code. Redirects whose answer may have
// been lost on the way are unsure: they may have been counted.
func (c *clickCounts) answered() (byCode map[string]int, all, unsure int) {
	byCode = map[string]int{}
	for _, s := range c.x.load.between(time.Time{}, time.Time{}).of(GETs...).samples {
		if s.failure == "" {
			byCode[s.code]++
			all++
		}
		if s.failure != "" || s.again {
			unsure++
		}
	}
	return byCode, all, unsure
}

// judge ends the load, waits until as many clicks are counted as redirects were answered, but for
// those that may be lost, and compares them link by link. It returns how many are missing.
func (c *clickCounts) judge(mayBeLost int) (missing int) {
	x := c.x
	x.t.Helper()
	x.load.stop()
	byCode, all, unsure := c.answered()
	last, since := -1, time.Now()
	fleettest.Eventually(x.t, catchUp, "the clicks are counted", func() bool {
		n := c.counted()
		if n != last {
			last, since = n, time.Now()
		}
		// Who was killed has sent all it ever will. What is late comes within seconds.
		return n >= all || n >= all-mayBeLost && time.Since(since) > 5*time.Second
	})
	missing = all - last
	if missing > mayBeLost || -missing > unsure {
		x.t.Errorf("%d redirects were answered and %d clicks counted; %d may be lost, and %d answers may have been", all, last, mayBeLost, unsure)
	}
	over, under := 0, 0
	for l, err := range c.api.Search(x.t.Context(), snow.Query{WithClicks: true}) {
		if err != nil {
			x.t.Fatal(err)
		}
		d := int(*l.Clicks) - byCode[l.Code]
		over, under = over+max(0, d), under+max(0, -d)
	}
	if under > mayBeLost || over > unsure {
		x.t.Errorf("link by link, %d clicks are missing and %d are too many; %d may be lost, and %d answers may have been", under, over, mayBeLost, unsure)
	}
	x.t.Logf("%d redirects answered, %d clicks counted, %d may be lost, %d unsure; by link %d missing, %d too many", all, last, mayBeLost, unsure, under, over)
	return max(0, missing)
}

// lastSecond is for how long a backend keeps clicks at most, if the queue takes them: a second, and
// what a batch takes on its way.
const lastSecond = 1500 * time.Millisecond

// answeredSince counts the redirects that the load has received since a time: no fewer than one backend
// has answered then.
func (c *clickCounts) answeredSince(at time.Time) int {
	l := c.x.load
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, s := range l.samples {
		if s.kind != create && s.failure == "" && s.ended().After(at) {
			n++
		}
	}
	return n
}

// Experiment 24. Whatever counts clicks dies in turn. What a backend had not sent dies with it.
func TestKilledClickCounters(t *testing.T) {
	for _, kafka := range pick([]bool{false}, []bool{false, true}) { // the brief tests of Kafka are in its package
		queue := "a Redis stream"
		if kafka {
			queue = "Kafka"
		}
		t.Run(queue, func(t *testing.T) {
			options := fleet.Options{Archive: 3}
			var broker *kafkatest.Broker
			if kafka {
				broker = kafkatest.Start(t)
				options.Env = append(options.Env, "KAFKA_BROKERS="+broker.Addr)
			}
			rounds := pick(1, 5)
			x := start(t, 24, "", options)
			x.archive()
			c := x.clicks()
			x.wait(pick(time.Second, 5*time.Second))
			mayBeLost, kills := 0, 0
			for i := range rounds {
				b := x.fleet.Backends[i%3]
				b.Kill() // which is a worker, too
				at := time.Now()
				x.wait(100 * time.Millisecond) // until what it answered has arrived
				mayBeLost += c.answeredSince(at.Add(-lastSecond))
				x.restart(b)
				x.wait(pick(500*time.Millisecond, 5*time.Second))

				x.fleet.State.Kill()
				x.wait(time.Second)
				x.startAgain(x.fleet.State)
				x.wait(pick(500*time.Millisecond, 5*time.Second))

				x.fleet.Archive[i%3].Kill()
				x.wait(time.Second)
				x.startPostgres()
				x.wait(pick(500*time.Millisecond, 5*time.Second))
				kills += 3

				if kafka {
					broker.Kill(t)
					x.wait(time.Second)
					broker.Restart(t)
					x.wait(pick(500*time.Millisecond, 5*time.Second))
					kills++
				}
			}
			missing := c.judge(mayBeLost)
			x.fault = fmt.Sprintf("kill -9 a backend, the Redis of %s and a PostgreSQL in turn, %d kills: %d clicks of the last second of a backend were not counted", queue, kills, missing)
			if kafka {
				x.fault = fmt.Sprintf("kill -9 a backend, Redis, a PostgreSQL and Kafka in turn, %d kills: %d clicks of the last second of a backend were not counted", kills, missing)
			}
			o := x.finish()
			o.nothingLost(t)
			o.noneFailed(t, hotGET)
		})
	}
}

// Experiment 25. Clicks wait in the backends while the queue is away.
func TestClickQueueAway(t *testing.T) {
	away := pick(5*time.Second, 60*time.Second)
	x := start(t, 25, fmt.Sprintf("the queue of clicks is away for %s", away), fleet.Options{Archive: 3})
	x.archive()
	c := x.clicks()
	x.wait(pick(2*time.Second, 20*time.Second))
	from := time.Now()
	x.fleet.State.Kill()
	x.wait(away)
	until := time.Now()
	memory := fleettest.Metric(t, x.fleet.Backends[0], "snowlink_clicks_waiting_bytes")
	x.startAgain(x.fleet.State)
	x.wait(pick(2*time.Second, 20*time.Second))
	missing := c.judge(0)
	o := x.finish()

	o.nothingLost(t)
	o.noneFailed(t, GETs...)
	if memory == 0 {
		t.Error("no click waited: this tested nothing")
	}
	before, meanwhile := x.load.between(time.Time{}, from).of(hotGET), x.load.between(from, until).of(hotGET)
	x.fault += fmt.Sprintf(": %d clicks lost, hot p99 %.1f ms, %.1f before", missing, ms(meanwhile.percentile(0.99)), ms(before.percentile(0.99)))
	t.Log(x.fault)
	if p99 := meanwhile.percentile(0.99); p99 > abnormal {
		t.Errorf("hot redirects took %s", p99)
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Experiment 26. What strangers send must not fill memory, nor the tables.
func TestHostileVisitors(t *testing.T) {
	links, visits := pick(2000, 1_000_000), pick(3000, 200_000)
	x := start(t, 26, "", fleet.Options{Archive: 3})
	a := x.archive()
	c := x.clicks()
	made, at := []entry{}, time.Now()
	for len(made) < links {
		some, failed := x.bulk(min(httpapi.MaxItems, links-len(made)), 0)
		if len(failed) > 0 {
			t.Fatalf("a bulk failed: %v", failed)
		}
		made = append(made, some...)
	}
	t.Logf("%d links made in %s", len(made), time.Since(at))
	memory := func() (most float64) {
		for _, b := range x.fleet.Backends {
			most = max(most, fleettest.Metric(t, b, "process_resident_memory_bytes"))
		}
		return most
	}
	before := memory()

	// One link at full speed, and each of many once.
	hot := x.load.hot[0]
	var extra sync.WaitGroup
	next := each(made)
	sent := make(chan int, 16)
	for range cap(sent) {
		extra.Go(func() {
			l, n := quietLoad(t, x.fleet.URL, "", nil), 0
			for range (len(made) + cap(sent) - 1) / cap(sent) {
				for _, e := range []entry{hot, next()} {
					if s := l.follow(recentGET, []entry{e}); s.failure == "" {
						n++
					}
				}
			}
			sent <- n
		})
	}
	extra.Wait()
	more := 0
	for range cap(sent) {
		more += <-sent
	}

	// Each visit with another user agent, referrer and query of some KiB.
	client := newClient(t)
	for i := range visits {
		junk := strings.Repeat(fmt.Sprintf("%x", rand.Uint64()), 2000/16)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, x.fleet.URL+"/"+hot.code+"?utm_source="+junk+"&utm_campaign="+junk[:100], nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("User-Agent", fmt.Sprintf("Mozilla/5.0 (X11; Linux x86_64) %d/%s", i, junk))
		req.Header.Set("Referer", fmt.Sprintf("https://h%d.example/%s", i, junk))
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusFound {
			t.Fatalf("a hostile visit: %s", resp.Status)
		}
		more++
	}
	x.load.stop()
	_, all, unsure := c.answered()
	all += more
	fleettest.Eventually(t, catchUp, "all clicks are counted", func() bool { return c.counted() >= all })
	if n := c.counted(); n > all+unsure {
		t.Errorf("%d redirects were answered and %d clicks counted", all, n)
	}
	grown := (memory() - before) / (1 << 20)
	dimensions := map[string]int{}
	for _, by := range []string{"referrer", "utm_source", "utm_campaign", "browser", "os", "device", "country"} {
		answer, err := c.api.Clicks(t.Context(), snow.ClicksQuery{Code: hot.code, By: []string{by}, Bots: "include", Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		total := 0
		for _, r := range answer.Rows {
			total += int(r.Clicks)
		}
		if total != int(answer.Clicks) {
			t.Errorf("by %s there are %d clicks of %d", by, total, answer.Clicks)
		}
		dimensions[by] = len(answer.Rows)
	}
	a.drained()
	x.fault = fmt.Sprintf("%d links once each, one as often, and %d visits with 8 KiB of junk: %d values of referrers kept, %.0f MiB more memory a backend", len(made), visits, dimensions["referrer"], grown)
	t.Log(x.fault, dimensions)
	if grown > 256 {
		t.Errorf("a backend has grown by %.0f MiB", grown)
	}
	o := x.finish()
	o.nothingLost(t)
	o.noneFailed(t, GETs...)
}

// Experiment 27. Batches come twice, in another order, and from a producer that began anew.
func TestRepeatedBatches(t *testing.T) {
	x := start(t, 27, "batches of clicks sent three times each and out of order, by a producer that then begins anew", fleet.Options{Archive: 3})
	x.archive()
	c := x.clicks()
	silent := slog.New(slog.DiscardHandler)
	queue := clickstream.New(fleettest.Conn(t, "redis://"+x.fleet.State.Addr, silent), silent, prometheus.NewRegistry(), clickstream.Options{})
	e := x.load.hot[0]
	batches, sent := pick(50, 1000), 0
	for _, producer := range []string{"first", "second"} {
		for number := 0; number < batches; number += 10 {
			var some []*clicks.Batch
			for i := range 10 {
				b := &clicks.Batch{Producer: producer, Number: uint64(number + i + 1), Counts: []clicks.Count{{
					Code: e.code, Owner: "default", Hour: time.Now().UTC().Truncate(time.Hour), Clicks: 1,
					Facts: []clicks.FactCount{{Clicks: 1}},
				}}}
				some = append(some, b, b, b)
			}
			rand.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
			for _, b := range some {
				fleettest.Eventually(t, recovery, "the queue takes a batch", func() bool { return queue.Send(t.Context(), b) == nil })
			}
			sent += 10
			x.wait(pick(100*time.Millisecond, 250*time.Millisecond))
		}
	}
	x.load.stop()
	_, all, unsure := c.answered()
	fleettest.Eventually(t, catchUp, "all clicks are counted", func() bool { return c.counted() >= all+sent })
	x.wait(2 * time.Second) // whatever is counted twice is counted by then
	if n := c.counted(); n > all+sent+unsure {
		t.Errorf("%d clicks were counted, of %d redirects and %d clicks sent", n, all, sent)
	}
	o := x.finish()
	o.nothingLost(t)
}
