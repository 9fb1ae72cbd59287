package clickstream_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"snowlink/internal/clicks"
	"snowlink/internal/clicks/queuetest"
	"snowlink/internal/clickstream"
	"snowlink/internal/embedded"
	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/redisconn"
)

// lease is short, so that tests need not wait for it for long.
const lease = 2 * time.Second

var quiet = slog.New(slog.DiscardHandler)

func TestMain(m *testing.M) {
	os.Exit(queuetest.Main(m, (*testing.M).Run, func(url string) (clicks.Queue, error) {
		conn, err := redisconn.Open(url, quiet, prometheus.NewRegistry())
		if err != nil {
			return nil, err
		}
		return clickstream.New(conn, quiet, prometheus.NewRegistry(), clickstream.Options{Lease: lease}), nil
	}))
}

func open(t testing.TB, url string) clicks.Queue {
	t.Helper()
	return clickstream.New(fleettest.Conn(t, url, quiet), quiet, prometheus.NewRegistry(), clickstream.Options{Lease: lease})
}

// server is the queue over a Redis, or over a Cluster of which r is one.
func server(t *testing.T, url string, r *fleet.Redis) queuetest.Server {
	client := fleettest.Conn(t, url, quiet).Client
	s := queuetest.Server{
		New: func(t testing.TB) string {
			if err := client.Del(context.Background(), clickstream.StreamKey, clickstream.UnreadableKey, "{clicks}:state").Err(); err != nil {
				t.Fatal(err)
			}
			return url
		},
		Open: open,
	}
	if r != nil {
		s.Kill, s.Pause, s.Resume = r.Kill, r.Pause, r.Resume
		s.Restart = func() {
			if err := r.Start(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

func TestQueueContract(t *testing.T) {
	t.Run("redis-server", func(t *testing.T) {
		r := fleettest.Redis(t, "appendonly yes", "appendfsync always")
		queuetest.Queue(t, server(t, "redis://"+r.Addr, r))
	})
	t.Run("Valkey", func(t *testing.T) {
		program := newRedis()
		if program == "" {
			t.Skip("neither TEST_REDIS nor valkey-server names another server")
		}
		r := fleettest.Start(t, fleet.Options{NoBackends: true, NoNginx: true, RedisProgram: program}).Redis
		queuetest.Queue(t, server(t, "redis://"+r.Addr, nil))
	})
	t.Run("Redis Cluster", func(t *testing.T) {
		cluster := fleettest.Start(t, fleet.Options{NoBackends: true, NoNginx: true, Cluster: true}).Cluster
		queuetest.Queue(t, server(t, cluster.URL(), nil))
	})
	t.Run("embedded", func(t *testing.T) {
		r, err := embedded.Start()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		queuetest.Queue(t, server(t, r.URL(), nil))
	})
}

// newRedis is a newer Redis, or a Valkey: the one that TEST_REDIS names, or valkey-server, or "" if
// there is none.
func newRedis() string {
	if program := os.Getenv("TEST_REDIS"); program != "" {
		return program
	}
	for _, program := range []string{"valkey-server", "../../bin/valkey-server"} {
		if found, err := exec.LookPath(program); err == nil {
			found, _ = filepath.Abs(found)
			return found
		}
	}
	return ""
}

// all gives what is received to the sink, until stop is called.
func all(t testing.TB, q clicks.Queue, sink *queuetest.Sink) (stop func() error) {
	return fleettest.Background(t, func(ctx context.Context) error { return q.Receive(ctx, sink.Apply) })
}

// A queue that is full refuses batches until some are applied, and loses none.
func TestFull(t *testing.T) {
	r := fleettest.Redis(t)
	url := "redis://" + r.Addr
	reg := prometheus.NewRegistry()
	q := clickstream.New(fleettest.Conn(t, url, quiet), quiet, reg, clickstream.Options{MaxBytes: 20_000})
	var batches []clicks.Batch
	for {
		b := queuetest.Batch("p", uint64(len(batches)+1))
		err := q.Send(t.Context(), &b)
		if errors.Is(err, clicks.ErrQueueFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if batches = append(batches, b); len(batches) > 1000 {
			t.Fatal("it is never full")
		}
	}
	if len(batches) < 10 {
		t.Errorf("it is full with %d batches", len(batches))
	}
	sink := queuetest.NewSink(t)
	stop := all(t, q, sink)
	sink.Await(batches)
	b := queuetest.Batch("p", uint64(len(batches)+1))
	queuetest.SendUntil(t, q, &b)
	sink.Await(append(batches, b))
	if err := stop(); err != nil {
		t.Error(err)
	}

	// A batch that is larger than the queue is taken when there is no other.
	large := queuetest.Batch("large", 1)
	large.Counts[0].Clicks, large.Counts[0].Visitors = 20_000, make([]uint64, 20_000)
	if err := q.Send(t.Context(), &large); err != nil {
		t.Errorf("a large batch: %v", err)
	}
	if err := q.Send(t.Context(), &b); !errors.Is(err, clicks.ErrQueueFull) {
		t.Errorf("behind a large batch: %v", err)
	}
	if n := queuetest.Counter(t, reg, "snowlink_clicks_queue_refused_total"); n < 2 {
		t.Errorf("%v were refused", n)
	}
}

// A queue takes no more than a quarter of a small Redis.
func TestShareOfRedis(t *testing.T) {
	const memory = 16 << 20
	r := fleettest.Redis(t, fmt.Sprint("maxmemory ", memory), "maxmemory-policy noeviction")
	q, sent := open(t, "redis://"+r.Addr), 0
	for number := uint64(1); ; number++ {
		b := queuetest.Batch("p", number)
		b.Counts[0].Clicks, b.Counts[0].Visitors = 10_000, make([]uint64, 10_000)
		for i := range b.Counts[0].Visitors {
			b.Counts[0].Visitors[i] = rand.Uint64()
		}
		err := q.Send(t.Context(), &b)
		if errors.Is(err, clicks.ErrQueueFull) {
			break
		}
		if sent += 8 * 10_000; err != nil || sent > memory/4 {
			t.Fatalf("after %d bytes: %v", sent, err)
		}
	}
	if sent < memory/8 {
		t.Errorf("it is full with %d bytes", sent)
	}
}

// A Redis that is full takes no batches and gives those it has.
func TestRedisIsFull(t *testing.T) {
	for name, program := range map[string]string{"redis-server": "", "Valkey": newRedis()} {
		if name == "Valkey" && program == "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			r := fleettest.Start(t, fleet.Options{NoBackends: true, NoNginx: true, RedisProgram: program}).Redis
			client := fleettest.RedisClient(t, r.Addr)
			q := open(t, "redis://"+r.Addr)
			var batches []clicks.Batch
			for i := range 10 {
				b := queuetest.Batch("p", uint64(i+1))
				queuetest.SendUntil(t, q, &b)
				batches = append(batches, b)
			}
			poison := client.XAdd(t.Context(), &redis.XAddArgs{Stream: clickstream.StreamKey, Values: []any{"b", "poison"}}).Err()
			if err := errors.Join(poison, client.ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err(),
				client.ConfigSet(t.Context(), "maxmemory", "1").Err()); err != nil {
				t.Fatal(err)
			}
			b := queuetest.Batch("p", 11)
			if err := q.Send(t.Context(), &b); !errors.Is(err, clicks.ErrQueueFull) {
				t.Errorf("Send returns %v", err)
			}
			sink := queuetest.NewSink(t)
			all(t, q, sink)
			sink.Await(batches)
			fleettest.Eventually(t, 20*time.Second, "nothing is left", func() bool {
				return client.XLen(t.Context(), clickstream.StreamKey).Val() == 0
			})
		})
	}
}

// What cannot be read is set aside, and does not keep what follows from being applied.
func TestUnreadable(t *testing.T) {
	r := fleettest.Redis(t)
	client := fleettest.RedisClient(t, r.Addr)
	var log fleettest.Output
	reg := prometheus.NewRegistry()
	q := clickstream.New(fleettest.Conn(t, "redis://"+r.Addr, quiet), slog.New(slog.NewTextHandler(&log, nil)), reg, clickstream.Options{})
	var batches []clicks.Batch
	for i, values := range [][]any{{"b", "poison"}, {"b", ""}, {"x", "y", "z", "1"}, {"b", strings.Repeat("x", 1<<20)}} {
		if err := client.XAdd(t.Context(), &redis.XAddArgs{Stream: clickstream.StreamKey, Values: values}).Err(); err != nil {
			t.Fatal(err)
		}
		b := queuetest.Batch("p", uint64(i+1))
		queuetest.SendUntil(t, q, &b)
		batches = append(batches, b)
	}
	sink := queuetest.NewSink(t)
	all(t, q, sink)
	sink.Await(batches)
	fleettest.Eventually(t, 20*time.Second, "nothing is left", func() bool {
		return client.XLen(t.Context(), clickstream.StreamKey).Val() == 0
	})
	kept, err := client.XRange(t.Context(), clickstream.UnreadableKey, "-", "+").Result()
	if err != nil || len(kept) != 4 || kept[0].Values["b"] != "poison" || kept[2].Values["z"] != "1" {
		t.Errorf("what was set aside is %.200v, %v", kept, err)
	}
	if n := queuetest.Counter(t, reg, "snowlink_clicks_queue_unreadable_total"); n != 4 {
		t.Errorf("%v were unreadable", n)
	}
	if n := strings.Count(log.String(), "cannot be read"); n != 4 {
		t.Errorf("the log says so %d times:\n%.2000s", n, log.String())
	}
}

// A Redis that loses everything loses what waited, and nothing that is sent later.
func TestFlushed(t *testing.T) {
	r := fleettest.Redis(t)
	client := fleettest.RedisClient(t, r.Addr)
	q := open(t, "redis://"+r.Addr)
	sink := queuetest.NewSink(t)
	all(t, q, sink)
	all(t, open(t, "redis://"+r.Addr), sink)
	var batches []clicks.Batch
	for i := range 5 {
		b := queuetest.Batch("p", uint64(i+1))
		queuetest.SendUntil(t, q, &b)
		sink.Await(append(batches, b))
		batches = append(batches, b)
		if err := client.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// Redis evicts the stream after what is used less. If it does, that is counted, and the log says so.
func TestEvicted(t *testing.T) {
	for name, program := range map[string]string{"redis-server": "", "Valkey": newRedis()} {
		if name == "Valkey" && program == "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			r := fleettest.Start(t, fleet.Options{NoBackends: true, NoNginx: true, RedisProgram: program}).Redis
			client, reg := fleettest.RedisClient(t, r.Addr), prometheus.NewRegistry()
			var log fleettest.Output
			q := clickstream.New(fleettest.Conn(t, "redis://"+r.Addr, quiet), slog.New(slog.NewTextHandler(&log, nil)), reg, clickstream.Options{})
			send := func(number uint64) {
				b := queuetest.Batch("p", number)
				queuetest.SendUntil(t, q, &b)
			}
			send(1)
			fleettest.Eventually(t, 10*time.Second, "the stream looks unused", func() bool {
				return client.ObjectIdleTime(t.Context(), clickstream.StreamKey).Val() >= 2*time.Second
			})
			send(2)
			if idle := client.ObjectIdleTime(t.Context(), clickstream.StreamKey).Val(); idle >= 2*time.Second {
				t.Errorf("the stream was just used, and looks unused for %s", idle)
			}
			if n := queuetest.Counter(t, reg, "snowlink_clicks_queue_gone_total"); n != 0 {
				t.Errorf("the stream was gone %v times", n)
			}
			if err := client.Del(t.Context(), clickstream.StreamKey).Err(); err != nil {
				t.Fatal(err)
			}
			send(3)
			send(4)
			if n := queuetest.Counter(t, reg, "snowlink_clicks_queue_gone_total"); n != 1 || strings.Count(log.String(), "are gone") != 1 {
				t.Errorf("the stream was gone %v times, and the log says: %s", n, &log)
			}
		})
	}
}

// Whoever works long on batches keeps them: nobody else works on the same.
func TestSlowReceiverKeepsWhatItTook(t *testing.T) {
	r := fleettest.Redis(t)
	client := fleettest.RedisClient(t, r.Addr)
	q := open(t, "redis://"+r.Addr)
	sink := queuetest.NewSink(t)
	b := queuetest.Batch("p", 1)
	queuetest.SendUntil(t, q, &b)
	var mu sync.Mutex
	given := 0
	for range 3 {
		other := open(t, "redis://"+r.Addr)
		fleettest.Background(t, func(ctx context.Context) error {
			return other.Receive(ctx, func(ctx context.Context, batches []clicks.Batch) error {
				mu.Lock()
				given++
				mu.Unlock()
				first := client.HGet(ctx, "{clicks}:state", "until").Val()
				renewals := 0
				for last := first; renewals < 6; time.Sleep(10 * time.Millisecond) { // longer than the lease
					if until := client.HGet(ctx, "{clicks}:state", "until").Val(); until != last {
						last, renewals = until, renewals+1
					}
					if ctx.Err() != nil {
						return ctx.Err()
					}
				}
				return sink.Apply(ctx, batches)
			})
		})
	}
	sink.Await([]clicks.Batch{b})
	mu.Lock()
	defer mu.Unlock()
	if given != 1 {
		t.Errorf("the batch was given %d times", given)
	}
}

func TestFeed(t *testing.T) {
	embeddedRedis, err := embedded.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer embeddedRedis.Close()
	for name, url := range map[string]string{
		"redis-server":  "redis://" + fleettest.Redis(t).Addr,
		"Redis Cluster": fleettest.Start(t, fleet.Options{NoBackends: true, NoNginx: true, Cluster: true}).Cluster.URL(),
		"embedded":      embeddedRedis.URL(),
	} {
		t.Run(name, func(t *testing.T) {
			publisher := clickstream.NewFeed(fleettest.Conn(t, url, quiet))
			publisher.Publish(t.Context(), []clicks.Batch{queuetest.Batch("unheard", 1)})
			var mu sync.Mutex
			heard := make(map[string]int)
			for range 2 {
				fleettest.Background(t, func(ctx context.Context) error {
					clickstream.NewFeed(fleettest.Conn(t, url, quiet)).Subscribe(ctx, func(c clicks.Count) {
						mu.Lock()
						defer mu.Unlock()
						if len(c.Visitors) > 0 {
							t.Error("visitors are told")
						}
						heard[fmt.Sprintf("%s %s %d %d %d", c.Code, c.Owner, c.Clicks, c.Bots, len(c.Facts))]++
					})
					return nil
				})
			}
			n := uint64(0)
			fleettest.Eventually(t, 20*time.Second, "both hear it", func() bool {
				n++
				publisher.Publish(t.Context(), []clicks.Batch{queuetest.Batch("p", n)})
				time.Sleep(20 * time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				for _, times := range heard {
					if times == 2 {
						return true
					}
				}
				return false
			})
			mu.Lock()
			defer mu.Unlock()
			for what := range heard {
				if strings.HasPrefix(what, "unheard") {
					t.Errorf("%s was told to nobody, and heard", what)
				}
			}
		})
	}
}

// What is told at once is bounded.
func TestFeedIsBounded(t *testing.T) {
	url := "redis://" + fleettest.Redis(t).Addr
	feed := clickstream.NewFeed(fleettest.Conn(t, url, quiet))
	large := clicks.Batch{Producer: "p", Number: 1}
	for i := range 50_000 {
		c := queuetest.Batch("p", uint64(i)).Counts[0]
		c.Clicks = int64(i)
		large.Counts = append(large.Counts, c)
	}
	client := fleettest.Conn(t, url, quiet).Client
	sub := client.Subscribe(t.Context(), "clicks:live")
	defer sub.Close()
	if _, err := sub.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := client.Set(t.Context(), "clicks:heard", 1, time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	feed.Publish(t.Context(), []clicks.Batch{large})
	m, err := sub.ReceiveMessage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Payload) > 1<<20 {
		t.Errorf("%d bytes are told", len(m.Payload))
	}
	if len(large.Counts) != 50_000 || len(large.Counts[0].Visitors) == 0 {
		t.Error("what was published is no longer as it was")
	}
}
