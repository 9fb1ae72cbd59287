package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"snowlink/internal/clicks"
	"snowlink/internal/clicks/queuetest"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/kafka"
	"snowlink/internal/kafka/kafkatest"
	"snowlink/internal/link"
)

var quiet = slog.New(slog.DiscardHandler)

func TestMain(m *testing.M) {
	os.Exit(queuetest.Main(m, kafkatest.Main, func(name string) (clicks.Queue, error) {
		brokers, topic, _ := strings.Cut(name, "/")
		return kafka.Open(brokers, topic, quiet, prometheus.NewRegistry())
	}))
}

func open(t testing.TB, brokers, topic string) *kafka.Queue {
	t.Helper()
	return openWith(t, brokers, topic, quiet, prometheus.NewRegistry())
}

func openWith(t testing.TB, brokers, topic string, log *slog.Logger, reg *prometheus.Registry) *kafka.Queue {
	t.Helper()
	q, err := kafka.Open(brokers, topic, log, reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	return q
}

var topics atomic.Int64

// topic is a name that no other test uses.
func topic() string { return fmt.Sprintf("clicks%d", topics.Add(1)) }

func server(addr string) queuetest.Server {
	return queuetest.Server{
		New: func(testing.TB) string { return addr + "/" + topic() },
		Open: func(t testing.TB, name string) clicks.Queue {
			brokers, topic, _ := strings.Cut(name, "/")
			return open(t, brokers, topic)
		},
	}
}

func TestQueueContract(t *testing.T) {
	t.Run("Kafka", func(t *testing.T) {
		b := kafkatest.Shared(t)
		s := server(b.Addr)
		s.Kill = func() { b.Kill(t) }
		s.Restart = func() { b.Restart(t) }
		s.Pause = func() { b.Pause(t) }
		s.Resume = func() { b.Resume(t) }
		queuetest.Queue(t, s)
	})
	t.Run("kfake", func(t *testing.T) { queuetest.Queue(t, server(fake(t).ListenAddrs()[0])) })
}

// fake starts the brokers of franz-go in the process.
func fake(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// client is what others have who read the topic.
func client(t testing.TB, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append(opts, kgo.SeedBrokers(addr))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// read reads n records of a topic.
func read(t testing.TB, addr, topic string, n int) (records []*kgo.Record) {
	t.Helper()
	c := client(t, addr, kgo.ConsumeTopics(topic))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for len(records) < n {
		fetches := c.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d of %d records are there", len(records), n)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

// ends is how many records a topic ever had.
func ends(t testing.TB, addr, topic string) (n int64) {
	t.Helper()
	offsets, err := kadm.NewClient(client(t, addr)).ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	offsets.Each(func(o kadm.ListedOffset) { n += o.Offset })
	return n
}

// What is in the topic is what docs/clicks-kafka.md says.
func TestRecords(t *testing.T) {
	addr, topic := fake(t).ListenAddrs()[0], topic()
	q := open(t, addr, topic)
	b := queuetest.Batch("p", 7)
	queuetest.SendUntil(t, q, &b)
	records := read(t, addr, topic, 3)
	values := make(map[string]string)
	for _, r := range records {
		var parsed struct{ Code string }
		if err := json.Unmarshal(r.Value, &parsed, json.MatchCaseInsensitiveNames(true)); err != nil || parsed.Code != string(r.Key) {
			t.Errorf("%s is under the key %s: %v", r.Value, r.Key, err)
		}
		values[string(r.Key)] = string(r.Value)
	}
	want := `{"v":1,"type":"clicks","producer":"p","batch":7,"part":0,"hour":"2026-11-25T16:00:00Z","code":"pA7","owner":"shop",` +
		`"tags":["autumn","ü"],"clicks":17,"bots":1,"facts":[{"clicks":7,"country":"DE","browser":"Firefox","utm_campaign":"\"ä\\☃"},` +
		`{"clicks":1,"referrer":"example.org","bot":"crawler"},{"clicks":1}],"visitors":["1","18446744073709551615","9007199254740993","7"]}`
	if got := values["pA7"]; got != want {
		t.Errorf("a count is\n%s, want\n%s", got, want)
	}
	if got, want := values["pM7"], `{"v":1,"type":"miss","producer":"p","batch":7,"part":2,"hour":"2026-11-25T16:00:00Z","code":"pM7","clicks":2,"bots":0}`; got != want {
		t.Errorf("a miss is\n%s, want\n%s", got, want)
	}

	page, err := os.ReadFile("../../docs/clicks-kafka.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`"(\w+)":`).FindAllStringSubmatch(want, -1) {
		if !strings.Contains(string(page), "`"+m[1]+"`") {
			t.Errorf("docs/clicks-kafka.md does not describe %s", m[1])
		}
	}
	example := regexp.MustCompile("(?s)```json\n(.*?)```").FindSubmatch(page)
	client(t, addr).Produce(t.Context(), &kgo.Record{Topic: topic, Value: example[1]}, nil)
	for d := range clicks.Dimension(clicks.Dimensions) {
		if !strings.Contains(string(page), "`"+d.String()+"`") || !strings.Contains(string(page), " "+d.String()+" ") {
			t.Errorf("docs/clicks-kafka.md has no %s", d)
		}
	}
	got := make(chan clicks.Count, 100)
	fleettest.Background(t, func(ctx context.Context) error {
		return q.Receive(ctx, func(_ context.Context, batches []clicks.Batch) error {
			for _, b := range batches {
				for _, c := range b.Counts {
					got <- c
				}
			}
			return nil
		})
	})
	for {
		select {
		case c := <-got:
			if c.Code != "8h4LRT53E8" {
				continue
			}
			if c.Clicks != 3 || c.Bots != 1 || len(c.Facts) != 3 || len(c.Visitors) != 2 {
				t.Errorf("the example is read as %+v", c)
			}
			return
		case <-time.After(time.Minute):
			t.Fatal("the example cannot be read")
		}
	}
}

// A value of each dimension travels under its own name.
func TestDimensions(t *testing.T) {
	addr, topic := fake(t).ListenAddrs()[0], topic()
	b := queuetest.Batch("p", 1)
	b.Misses, b.Counts = nil, b.Counts[:1]
	for d := range b.Counts[0].Facts[0].Facts {
		b.Counts[0].Facts[0].Facts[d] = "of " + clicks.Dimension(d).String()
	}
	q := open(t, addr, topic)
	queuetest.SendUntil(t, q, &b)
	var parsed struct {
		Facts []map[string]any `json:"facts"`
	}
	if err := json.Unmarshal(read(t, addr, topic, 1)[0].Value, &parsed); err != nil {
		t.Fatal(err)
	}
	for d := range clicks.Dimension(clicks.Dimensions) {
		if got := parsed.Facts[0][d.String()]; got != "of "+d.String() {
			t.Errorf("%s is %v", d, got)
		}
	}
	sink := queuetest.NewSink(t)
	fleettest.Background(t, func(ctx context.Context) error { return q.Receive(ctx, sink.Apply) })
	sink.Await([]clicks.Batch{b})
}

// A count that is too large for a record is in several, and adds up to the same.
func TestLargeCounts(t *testing.T) {
	addr, topic := kafkatest.Shared(t).Addr, topic()
	c := clicks.Count{Code: "large", Owner: "o", Hour: time.Now().UTC().Truncate(time.Hour), Clicks: 100_000, Bots: 300}
	for i := range 3210 {
		f := clicks.FactCount{Clicks: 2}
		if i == 5 {
			f.Clicks = 50_000
		}
		for d := range clicks.Dimension(clicks.Dimensions) {
			if d != clicks.Bot || i == 6 {
				f.Facts[d] = fmt.Sprintf("%0*d", clicks.MaxValue, i)
			}
		}
		c.Facts = append(c.Facts, f)
	}
	for i := range 54_321 {
		c.Visitors = append(c.Visitors, 1<<63+uint64(i))
	}
	q := open(t, addr, topic)
	queuetest.SendUntil(t, q, &clicks.Batch{Producer: "p", Number: 1, Counts: []clicks.Count{c}})
	var mu sync.Mutex
	var sum clicks.Count
	facts, visitors := make(map[clicks.Facts]int64), make(map[uint64]int)
	fleettest.Background(t, func(ctx context.Context) error {
		return q.Receive(ctx, func(_ context.Context, batches []clicks.Batch) error {
			mu.Lock()
			defer mu.Unlock()
			for _, b := range batches {
				for _, c := range b.Counts {
					known := int64(0)
					for _, f := range c.Facts {
						known += f.Clicks
					}
					if known > c.Clicks+c.Bots || len(c.Visitors) > int(c.Clicks) {
						t.Errorf("of %d clicks and %d by bots %d are known, and %d visitors", c.Clicks, c.Bots, known, len(c.Visitors))
					}
					sum.Clicks, sum.Bots = sum.Clicks+c.Clicks, sum.Bots+c.Bots
					for _, f := range c.Facts {
						facts[f.Facts] += f.Clicks
					}
					for _, v := range c.Visitors {
						visitors[v]++
					}
				}
			}
			return nil
		})
	})
	fleettest.Eventually(t, time.Minute, "everything has come", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return sum.Clicks == c.Clicks && sum.Bots == c.Bots && len(facts) == len(c.Facts) && len(visitors) == len(c.Visitors)
	})
	for _, f := range c.Facts {
		if n := facts[f.Facts]; n != f.Clicks {
			t.Fatalf("%v has %d clicks, want %d", f.Facts, n, f.Clicks)
		}
	}
}

// What its context gave up, a Queue goes on to send, and sends once: whether the caller sends it
// again while it is on its way, or when it has arrived.
func TestSentOnceThroughOutages(t *testing.T) {
	broker := kafkatest.Shared(t)
	for name, outage := range map[string]func(during func()){
		"frozen": func(during func()) { broker.Pause(t); during(); broker.Resume(t) },
		"killed": func(during func()) { broker.Kill(t); during(); broker.Restart(t) },
	} {
		t.Run(name, func(t *testing.T) {
			topic := topic()
			q := open(t, broker.Addr, topic)
			first := queuetest.Batch("p", 1)
			queuetest.SendUntil(t, q, &first)
			b := queuetest.Batch("p", 2)
			outage(func() {
				for range 3 {
					ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
					if err := q.Send(ctx, &b); !errors.Is(err, link.ErrUnavailable) {
						t.Errorf("Send returns %v", err)
					}
					cancel()
				}
			})
			fleettest.Eventually(t, time.Minute, "it has arrived", func() bool { return ends(t, broker.Addr, topic) >= 6 })
			queuetest.SendUntil(t, q, &b)
			last := queuetest.Batch("p", 3)
			queuetest.SendUntil(t, q, &last)
			if n := ends(t, broker.Addr, topic); n != 9 {
				t.Errorf("the topic has %d records, want 9", n)
			}
		})
	}
}

// The answer to a record is lost: it is sent again, and is there once.
func TestLostAnswer(t *testing.T) {
	c := fake(t)
	topic := topic()
	q := open(t, c.ListenAddrs()[0], topic)
	first := queuetest.Batch("p", 1)
	queuetest.SendUntil(t, q, &first)
	var lost atomic.Int64
	c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if lost.Add(1)%2 == 1 { // the connection ends
			return nil, errors.New("lost"), true
		}
		return nil, nil, false
	})
	second := queuetest.Batch("p", 2)
	queuetest.SendUntil(t, q, &second)
	if n := ends(t, c.ListenAddrs()[0], topic); n != 6 || lost.Load() < 2 {
		t.Errorf("the topic has %d records, want 6, after %d requests", n, lost.Load())
	}
}

// Batches that are given up by whoever sends them do not pile up.
func TestSendIsBounded(t *testing.T) {
	c := fake(t)
	topic := topic()
	q := open(t, c.ListenAddrs()[0], topic)
	b := queuetest.Batch("p", 1)
	queuetest.SendUntil(t, q, &b)
	var hold atomic.Bool
	hold.Store(true)
	c.ControlKey(int16(kmsg.Produce), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if !hold.Load() {
			return nil, nil, false
		}
		req := kreq.(*kmsg.ProduceRequest)
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		for _, t := range req.Topics {
			rt := kmsg.NewProduceResponseTopic()
			rt.Topic, rt.TopicID = t.Topic, t.TopicID
			for _, p := range t.Partitions {
				rp := kmsg.NewProduceResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p.Partition, kerr.NotEnoughReplicas.Code
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	var full error
	for i := range clicks.ReorderMost + 1 {
		b := queuetest.Batch("p", uint64(i+2))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		full = q.Send(ctx, &b)
		cancel()
	}
	if !errors.Is(full, clicks.ErrQueueFull) {
		t.Errorf("Send returns %v", full)
	}
	hold.Store(false)
	b = queuetest.Batch("p", 100)
	queuetest.SendUntil(t, q, &b)
}

// A topic that is missing is made as documented; one that is deleted is made anew, and counts anew.
func TestTopicIsMade(t *testing.T) {
	addr, topic := kafkatest.Shared(t).Addr, topic()
	admin := kadm.NewClient(client(t, addr))
	q := open(t, addr, topic)
	var mu sync.Mutex
	producers := make(map[string]bool)
	sink := queuetest.NewSink(t)
	fleettest.Background(t, func(ctx context.Context) error {
		return q.Receive(ctx, func(ctx context.Context, batches []clicks.Batch) error {
			mu.Lock()
			defer mu.Unlock()
			for _, b := range batches {
				producers[b.Producer] = true
			}
			return sink.Apply(ctx, batches)
		})
	})
	first := queuetest.Batch("p", 1)
	queuetest.SendUntil(t, q, &first)
	sink.Await([]clicks.Batch{first})

	details, err := admin.ListTopics(t.Context(), topic)
	if err != nil || len(details[topic].Partitions) != kafka.Partitions {
		t.Errorf("the topic is %+v, %v", details, err)
	}
	configs, err := admin.DescribeTopicConfigs(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range configs[0].Configs {
		if want, ok := map[string]string{"retention.ms": "604800000", "message.timestamp.type": "LogAppendTime"}[c.Key]; ok && c.MaybeValue() != want {
			t.Errorf("%s is %s", c.Key, c.MaybeValue())
		}
	}
	mu.Lock()
	for p := range producers {
		if !regexp.MustCompile("^kafka:" + topic + "/[0-9]+@.{20,}$").MatchString(p) {
			t.Errorf("a producer is %s", p)
		}
	}
	before := len(producers)
	mu.Unlock()

	if _, err := admin.DeleteTopics(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	second := queuetest.Batch("p", 2)
	queuetest.SendUntil(t, q, &second)
	sink.Await([]clicks.Batch{first, second})
	mu.Lock()
	defer mu.Unlock()
	if len(producers) <= before {
		t.Errorf("the records of the new topic are numbered as those of the old one: %v", producers)
	}
}

// What cannot be read is counted and logged, and does not keep what follows from being applied.
func TestUnreadable(t *testing.T) {
	addr, topic := fake(t).ListenAddrs()[0], topic()
	var log fleettest.Output
	reg := prometheus.NewRegistry()
	q := openWith(t, addr, topic, slog.New(slog.NewTextHandler(&log, nil)), reg)
	c := client(t, addr)
	var batches []clicks.Batch
	poison := []string{"", "{", `{"v":2,"type":"clicks","hour":"2026-11-25T16:00:00Z","code":"a"}`, `{"v":1,"type":"x","hour":"2026-11-25T16:00:00Z","code":"a"}`,
		`{"v":1,"type":"clicks","code":"a"}`, `{"v":1,"type":"clicks","hour":"2026-11-25T16:00:00Z","code":"a","clicks":-1}`,
		`{"v":1,"type":"clicks","hour":"2026-11-25T16:00:00Z","code":"a","owner":"a\u0000b","clicks":1}`, `{"v":1,"type":"miss","hour":"2026-11-25T16:00:00Z","code":"a b","clicks":1}`,
		`{"v":1,"type":"clicks","hour":"2026-11-25T16:00:00Z","code":"a","clicks":1,"facts":[{"clicks":1,"os":"a\nb"}]}`,
		`{"v":1,"type":"clicks","hour":"2026-11-25T16:00:00Z","code":"a","clicks":1,"facts":[{"clicks":2}]}`, "null", "[]", strings.Repeat("[", 1000)}
	for i, value := range poison {
		b := queuetest.Batch("p", uint64(i+1))
		queuetest.SendUntil(t, q, &b)
		batches = append(batches, b)
		if err := c.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Key: []byte(strconv.Itoa(i)), Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	sink := queuetest.NewSink(t)
	fleettest.Background(t, func(ctx context.Context) error { return q.Receive(ctx, sink.Apply) })
	sink.Await(batches)
	fleettest.Eventually(t, 20*time.Second, "they are counted", func() bool {
		return queuetest.Counter(t, reg, "snowlink_clicks_queue_unreadable_total") == float64(len(poison))
	})
	if n := strings.Count(log.String(), "cannot be read"); n != len(poison) {
		t.Errorf("the log says so %d times:\n%s", n, log.String())
	}
	fleettest.Eventually(t, 20*time.Second, "they are behind us", func() bool {
		lag, err := q.Lag(t.Context())
		return err == nil && lag == clicks.Lag{}
	})
}

// A commit that fails is tried again, also if nothing more comes.
func TestCommitFails(t *testing.T) {
	c := fake(t)
	addr, topic := c.ListenAddrs()[0], topic()
	q := open(t, addr, topic)
	var fails atomic.Int64
	fails.Store(2)
	c.ControlKey(int16(kmsg.OffsetCommit), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if fails.Add(-1) < 0 {
			return nil, nil, false
		}
		req := kreq.(*kmsg.OffsetCommitRequest)
		resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
		for _, t := range req.Topics {
			rt := kmsg.NewOffsetCommitResponseTopic()
			rt.Topic, rt.TopicID = t.Topic, t.TopicID
			for _, p := range t.Partitions {
				rp := kmsg.NewOffsetCommitResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p.Partition, kerr.UnknownServerError.Code
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	b := queuetest.Batch("p", 1)
	queuetest.SendUntil(t, q, &b)
	sink := queuetest.NewSink(t)
	fleettest.Background(t, func(ctx context.Context) error { return q.Receive(ctx, sink.Apply) })
	sink.Await([]clicks.Batch{b})
	fleettest.Eventually(t, 20*time.Second, "it is committed", func() bool {
		lag, err := q.Lag(t.Context())
		return err == nil && lag == clicks.Lag{}
	})
	if r := sink.Repeated(); len(r) > 0 {
		t.Errorf("%d came more than once", len(r))
	}
}
