// Package clickstream carries batches of clicks through Redis: a queue over one stream, and a feed
// for live views over a channel.
//
// It holds one decision: one receiver at a time has the head of the stream, under a lease in Redis,
// and the others wait for their turn. What it takes, it takes from the head, and deletes when it is
// applied. So batches are applied in the order in which they were sent, whoever dies in between: a
// batch is never late by more than was in the hands of one receiver. A consumer group would give the
// next batches to others while those of a dead receiver wait to be claimed. In an outage that is
// thousands of batches, and a store can no longer tell a batch that is that late from one that is
// repeated. Turns cost little: whoever has one takes everything that waits, up to some MiB. Those
// who need several at a time have Kafka.
package clickstream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/redis/go-redis/v9"

	"snowlink/internal/clicks"
	"snowlink/internal/deadline"
	"snowlink/internal/link"
	"snowlink/internal/outage"
	"snowlink/internal/redisconn"
)

var _ clicks.Queue = (*Queue)(nil)

// The keys. All are in the slot of the first.
const (
	// StreamKey is the key of the stream. An entry has a batch in the field "b".
	StreamKey = "clicks"
	// UnreadableKey is the key of a stream with the last entries that could not be read.
	UnreadableKey = "{clicks}:unreadable"

	// stateKey is a hash: "bytes" is about how much the stream has, "who" has its head until "until"
	// (milliseconds), and "last" is the last entry that anybody was given.
	stateKey = "{clicks}:state"
)

const (
	// DefaultMaxBytes is how much the stream may have at most: a quarter of the Redis that Compose
	// starts for what is no link. In a smaller Redis it may have a quarter, too.
	DefaultMaxBytes = 64 << 20
	share           = 4
	// DefaultLease is for how long whoever took batches has them, without a sign of life.
	DefaultLease = 10 * time.Second

	// entryBytes is about what Redis needs for an entry beside its batch.
	entryBytes = 100
	// takeMost and takeBytes are how many batches a receiver takes at a time, and how much: the batch
	// that passes takeBytes is the last.
	takeMost  = 256
	takeBytes = 4 << 20
	// idleFor is how long a receiver rests when there is nothing for it.
	idleFor = 200 * time.Millisecond
	// backOff is how long it rests when something failed: twice as long each time, up to backOffMost.
	backOff     = 100 * time.Millisecond
	backOffMost = 5 * time.Second
	// unreadableMost is how many entries that cannot be read are kept.
	unreadableMost = 16
)

// Options say how a Queue differs from the usual one. Zero values stand for the defaults.
type Options struct {
	// MaxBytes bounds the stream: without it DefaultMaxBytes, or a quarter of maxmemory if that is
	// less. Batches count as they are encoded, and a little more. A batch that is larger is taken when
	// there is no other.
	MaxBytes int64
	// Lease is how long the batches wait of a receiver that died.
	Lease time.Duration
}

// Queue is a clicks.Queue over a stream. All methods may be called concurrently.
type Queue struct {
	conn     *redisconn.Conn
	op       *redisconn.Operation
	log      *slog.Logger
	o        Options
	share    *redisconn.Share
	applying *outage.Outage
	metrics  *clicks.QueueMetrics
	gone     prometheus.Counter
}

// New makes a Queue over the connections, which stay the caller's to close. Its collectors are
// registered with reg.
func New(conn *redisconn.Conn, log *slog.Logger, reg prometheus.Registerer, o Options) *Queue {
	if o.Lease == 0 {
		o.Lease = DefaultLease
	}
	return &Queue{
		conn: conn, op: conn.Operation("clicks"), log: log, o: o, share: conn.Share(share, DefaultMaxBytes),
		applying: outage.New(log, "the applying of clicks"), metrics: clicks.NewQueueMetrics(reg),
		gone: promauto.With(reg).NewCounter(prometheus.CounterOpts{
			Name: "snowlink_clicks_queue_gone_total", Help: "Times that Redis had lost the batches of clicks in the queue, as by eviction.",
		}),
	}
}

// send adds the batch ARGV[1] to the stream if that has room for it. It answers whether it has, and
// whether the stream has lost what it had: whoever takes the last entry deletes "bytes", too.
var send = newScript(`
local used, gone = tonumber(redis.call("HGET", KEYS[2], "bytes") or 0), 0
if redis.call("XLEN", KEYS[1]) == 0 then
  if used > 0 then
    gone = 1
  end
  used = 0
end
local size = #ARGV[1] + tonumber(ARGV[3])
if used > 0 and used + size > tonumber(ARGV[2]) then
  return {0, gone}
end
redis.call("XADD", KEYS[1], "*", "b", ARGV[1])
redis.call("HSET", KEYS[2], "bytes", string.format("%.0f", used + size))
return {1, gone}`)

// Send is that of clicks.Queue. The stream is in the memory of Redis, and on its disk as Redis is
// configured. A Redis that is full is a full queue.
func (q *Queue) Send(ctx context.Context, b *clicks.Batch) error {
	ctx, cancel := q.conn.Limit(ctx)
	defer cancel()
	most := q.most(ctx)
	sent, err := q.run(ctx, send, false, clicks.AppendBatch(nil, b), most, entryBytes)
	switch {
	case redis.IsOOMError(err):
		q.metrics.Refused.Inc()
		return fmt.Errorf("redis: send clicks: %w: %w", clicks.ErrQueueFull, err)
	case err != nil:
		q.metrics.Refused.Inc()
		return q.op.Unavailable(q.conn.Writes, err)
	}
	if sent[1] == int64(1) {
		q.gone.Inc()
		q.log.Error("batches of clicks are gone, which nobody had added up: redis has evicted the stream, or somebody has deleted it", "stream", StreamKey)
	}
	if sent[0] != int64(1) {
		q.metrics.Refused.Inc()
		return fmt.Errorf("send clicks: %w: it has %d bytes", clicks.ErrQueueFull, most)
	}
	q.conn.Writes.Ended()
	q.metrics.Sent.Inc()
	return nil
}

// most returns how much the stream may have.
func (q *Queue) most(ctx context.Context) int64 {
	if q.o.MaxBytes > 0 {
		return q.o.MaxBytes
	}
	if n := q.share.Bytes(ctx); n > 0 {
		return min(n, DefaultMaxBytes)
	}
	return DefaultMaxBytes
}

// Receive is that of clicks.Queue. Of several, one at a time applies.
func (q *Queue) Receive(ctx context.Context, apply func(context.Context, []clicks.Batch) error) error {
	r := receiver{Queue: q, who: rand.Text(), apply: apply}
	for pause := backOff; ctx.Err() == nil; {
		more, err := r.round(ctx)
		switch {
		case err != nil:
			deadline.Sleep(ctx, pause)
			pause = min(2*pause, backOffMost)
			continue
		case !more:
			deadline.Sleep(ctx, idleFor)
		}
		pause = backOff
	}
	return nil
}

// receiver is a call of Receive.
type receiver struct {
	*Queue
	who   string // under which it has the head of the stream
	apply func(context.Context, []clicks.Batch) error
}

// round applies what waits at the head of the stream, some of it. It reports whether there is
// probably more.
func (r *receiver) round(ctx context.Context) (more bool, err error) {
	entries, err := r.take(ctx)
	if err != nil || len(entries) == 0 {
		return false, err
	}
	var batches []clicks.Batch
	var readable []entry
	size := 0
	for _, e := range entries {
		b, err := clicks.ParseBatch([]byte(e.batch))
		if err != nil {
			if err := r.setAside(ctx, e, err); err != nil {
				return false, err
			}
			continue
		}
		size += len(e.batch)
		batches, readable = append(batches, b), append(readable, e)
	}
	if len(batches) > 0 {
		r.metrics.Received.Add(float64(len(batches)))
		err = r.hold(ctx, func() error { return r.apply(ctx, batches) })
		if err == nil {
			r.applying.Ended()
		} else {
			readable = nil // another may try
			if ctx.Err() == nil {
				r.applying.Observed(err)
			}
		}
	}
	// What is done is done, even if ctx has ended.
	return len(entries) == takeMost || size >= takeBytes, errors.Join(err, r.done(context.WithoutCancel(ctx), readable))
}

// entry is one of the stream.
type entry struct {
	id    string
	batch string // "" if it has none
}

// take takes entries from the head, at most ARGV[3] and about ARGV[4] bytes of them, unless somebody
// else has it. Whoever took something has the head for ARGV[2] milliseconds. It answers with the last
// entry that anybody was given before, and the entries.
var take = newScript(`
local t = redis.call("TIME")
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local state = redis.call("HMGET", KEYS[2], "who", "until", "last")
if state[1] and state[1] ~= ARGV[1] then
  local left = tonumber(state[2]) - now
  if left > 0 and left <= tonumber(ARGV[2]) then -- or the clock went back
    return {}
  end
end
local found, size, from = {"0-0"}, 0, "-"
while #found <= tonumber(ARGV[3]) and size < tonumber(ARGV[4]) do
  local e = redis.call("XRANGE", KEYS[1], from, "+", "COUNT", 1)[1]
  if not e then
    break
  end
  local batch = ""
  if e[2][1] == "b" then
    batch = e[2][2]
  end
  found[#found + 1] = {e[1], batch}
  size = size + #batch
  from = "(" .. e[1]
end
if #found == 1 then
  return {}
end
redis.call("HSET", KEYS[2], "who", ARGV[1], "until", string.format("%.0f", now + ARGV[2]), "last", found[#found][1])
if state[3] then
  found[1] = state[3]
end
return found`)

func (r *receiver) take(ctx context.Context) ([]entry, error) {
	ctx, cancel := r.conn.Limit(ctx)
	defer cancel()
	found, err := r.run(ctx, take, true, r.who, r.o.Lease.Milliseconds(), takeMost, takeBytes)
	if err != nil {
		return nil, r.op.Unavailable(r.conn.Reads, err)
	}
	r.conn.Reads.Ended()
	if len(found) == 0 {
		return nil, nil
	}
	last, _ := found[0].(string)
	var entries []entry
	for _, f := range found[1:] {
		e, _ := f.([]any)
		if len(e) != 2 {
			return nil, r.op.Unavailable(r.conn.Reads, fmt.Errorf("%w: not an entry of a stream: %v", link.ErrUnreadable, f))
		}
		id, _ := e[0].(string)
		batch, _ := e[1].(string)
		entries = append(entries, entry{id, batch})
		if !before(last, id) {
			r.metrics.Repeated.Inc()
		}
	}
	return entries, nil
}

// before reports whether an entry comes before another, by their IDs.
func before(a, b string) bool {
	parse := func(id string) (ms, seq uint64) {
		first, second, _ := strings.Cut(id, "-")
		ms, _ = strconv.ParseUint(first, 10, 64) // 0 if it is none
		seq, _ = strconv.ParseUint(second, 10, 64)
		return ms, seq
	}
	aMs, aSeq := parse(a)
	bMs, bSeq := parse(b)
	return aMs < bMs || aMs == bMs && aSeq < bSeq
}

// keep has the head for ARGV[2] milliseconds more, if the caller has it.
var keep = newScript(`
if redis.call("HGET", KEYS[2], "who") == ARGV[1] then
  local t = redis.call("TIME")
  redis.call("HSET", KEYS[2], "until", string.format("%.0f", t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[2]))
end
return {}`)

// hold calls f and keeps the head of the stream meanwhile. If that fails, another receiver applies
// the same batches at the same time. A store counts them once all the same.
func (r *receiver) hold(ctx context.Context, f func() error) error {
	ctx, stop := context.WithCancel(ctx)
	var holding sync.WaitGroup
	defer holding.Wait()
	defer stop()
	holding.Go(func() {
		for deadline.Sleep(ctx, r.o.Lease/4) {
			limited, cancel := r.conn.Limit(ctx)
			if _, err := r.run(limited, keep, true, r.who, r.o.Lease.Milliseconds()); err != nil && ctx.Err() == nil {
				_ = r.op.Unavailable(r.conn.Writes, err) // which takes note
			}
			cancel()
		}
	})
	return f()
}

// done deletes entries, ARGV[3] and so on, each followed by its size, and leaves the head of the
// stream to whoever comes.
var done = newScript(`
local gone = 0
for i = 3, #ARGV, 2 do
  if redis.call("XDEL", KEYS[1], ARGV[i]) == 1 then
    gone = gone + ARGV[i + 1] + ARGV[2]
  end
end
if redis.call("XLEN", KEYS[1]) == 0 then
  redis.call("HDEL", KEYS[2], "bytes")
elseif gone > 0 then
  redis.call("HINCRBY", KEYS[2], "bytes", string.format("%.0f", -gone))
end
if redis.call("HGET", KEYS[2], "who") == ARGV[1] then
  redis.call("HDEL", KEYS[2], "who", "until")
end
return {}`)

func (r *receiver) done(ctx context.Context, entries []entry) error {
	ctx, cancel := r.conn.Limit(ctx)
	defer cancel()
	args := []any{r.who, entryBytes}
	for _, e := range entries {
		args = append(args, e.id, len(e.batch))
	}
	if _, err := r.run(ctx, done, true, args...); err != nil {
		return r.op.Unavailable(r.conn.Writes, err)
	}
	r.conn.Writes.Ended()
	return nil
}

// aside moves the entry ARGV[1] to KEYS[3], which keeps ARGV[2] of them.
var aside = newScript(`
local e = redis.call("XRANGE", KEYS[1], ARGV[1], ARGV[1])[1]
if not e then
  return {}
end
redis.call("XADD", KEYS[3], "MAXLEN", ARGV[2], "*", unpack(e[2]))
redis.call("XDEL", KEYS[1], ARGV[1])
local used = tonumber(redis.call("HGET", KEYS[2], "bytes") or 0)
redis.call("HSET", KEYS[2], "bytes", string.format("%.0f", math.max(0, used - ARGV[3])))
return {}`)

// setAside moves an entry that cannot be read out of the way.
func (r *receiver) setAside(ctx context.Context, e entry, because error) error {
	ctx, cancel := r.conn.Limit(ctx)
	defer cancel()
	if _, err := r.run(ctx, aside, true, e.id, unreadableMost, len(e.batch)+entryBytes); err != nil {
		return r.op.Unavailable(r.conn.Writes, err)
	}
	r.metrics.Unreadable.Inc()
	r.log.Error("a batch of clicks cannot be read, and is not counted", "entry", e.id, "kept in", UnreadableKey, "err", because)
	return nil
}

// waiting answers with how many entries there are and, if there are any, with the ID of the oldest
// and the time of Redis in milliseconds.
var waiting = newScript(`
local n = redis.call("XLEN", KEYS[1])
if n == 0 then
  return {0}
end
local t = redis.call("TIME")
return {n, redis.call("XRANGE", KEYS[1], "-", "+", "COUNT", 1)[1][1], string.format("%.0f", t[1] * 1000 + math.floor(t[2] / 1000))}`)

// Lag is that of clicks.Queue.
func (q *Queue) Lag(ctx context.Context) (clicks.Lag, error) {
	ctx, cancel := q.conn.Limit(ctx)
	defer cancel()
	answer, err := q.run(ctx, waiting, false)
	if err != nil {
		return clicks.Lag{}, q.op.Unavailable(q.conn.Reads, err)
	}
	q.conn.Reads.Ended()
	n, _ := answer[0].(int64)
	if len(answer) < 3 {
		return clicks.Lag{Batches: n}, nil
	}
	oldest, _ := answer[1].(string)
	at, _, _ := strings.Cut(oldest, "-")
	sent, _ := strconv.ParseInt(at, 10, 64)
	text, _ := answer[2].(string)
	now, _ := strconv.ParseInt(text, 10, 64)
	// At least a millisecond, so that it is not none; a clock may also have gone back.
	return clicks.Lag{Batches: n, Oldest: max(time.Millisecond, time.Duration(now-sent)*time.Millisecond)}, nil
}

// A script has the keys of this package and answers with a list.
type script struct{ plain, evenIfFull *redis.Script }

// newScript makes a script of its source.
func newScript(source string) script {
	return script{redis.NewScript(source), redis.NewScript("#!lua flags=allow-oom\n" + source)}
}

// run runs a script. evenIfFull says that it runs even if Redis is full.
func (q *Queue) run(ctx context.Context, s script, evenIfFull bool, args ...any) ([]any, error) {
	keys := []string{StreamKey, stateKey, UnreadableKey}
	// Not over Aside, where the stream would look unused and be evicted before links.
	answer, err := s.plain.Run(ctx, q.conn.Client, keys, args...).Slice()
	if evenIfFull && redis.IsOOMError(err) {
		// The flag is not set from the start, since the embedded Redis does not know it.
		answer, err = s.evenIfFull.Run(ctx, q.conn.Client, keys, args...).Slice()
	}
	return answer, err
}
