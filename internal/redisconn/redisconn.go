// Package redisconn is what every user of Redis shares: the connections that REDIS_URL describes,
// the deadline of an operation, the translation of errors, the few log lines of an outage, and what
// Redis tells of itself.
//
// Its decisions. Concurrent commands share round trips, through go-redis's auto-pipelining, and no
// command waits for a master of a Cluster that it does not concern. Lists, bulks and people who
// manage links have connections of their own, on which no link looks used, and leave the others
// free. A failure of Redis becomes link.ErrUnavailable, or link.ErrFull for a write that found no
// room. What a missing key means is for the caller to say.
package redisconn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"snowlink/internal/deadline"
	"snowlink/internal/link"
	"snowlink/internal/outage"
)

const (
	// OperationTime is how long an operation may take if its context has no deadline. That is
	// enough for a try and its retry, unless the command first waits for the batches in flight,
	// which have the same limits.
	OperationTime = 1200 * time.Millisecond

	// maxQueued bounds the commands that wait for Redis, for each master of a Cluster apart, and
	// with them the memory of an outage. A request waits for a few at a time, so it takes thousands
	// of connections to a backend to reach it.
	maxQueued = 16 << 10
)

// quiet silences go-redis's own log, which is one for the whole process and has a line for every
// failed dial. An Outage says it in fewer.
var quiet = sync.OnceFunc(logging.Disable)

// Outage is [outage.Outage].
type Outage = outage.Outage

// Conn is the connections of a process to one Redis, one that Sentinels guard, or a Cluster. All
// methods may be called concurrently. The fields are only read.
type Conn struct {
	// Client is for leases, health and the subscription: one command, one round trip.
	Client redis.UniversalClient
	// Pipe is for links: concurrent commands share round trips.
	Pipe *redis.AutoPipeliner

	// Aside has connections of its own, on which no key that is read counts as used. It is for
	// lists and for people who manage links. It is for bulks, too, so that many of them leave the
	// connections of Client free; a key that they make is as new as any. AsidePipe is to Aside what
	// Pipe is to Client.
	Aside     redis.UniversalClient
	AsidePipe *redis.AutoPipeliner

	// Reads and Writes are the outages of both. Redis may refuse writes alone.
	Reads, Writes *Outage

	log        *slog.Logger
	touches    atomic.Bool // Redis refused NO-TOUCH: reads on Aside count as use
	operations *deadline.Shared
	failed     *prometheus.CounterVec
	ping       *Operation
}

// Open makes the connections that redisURL describes. It does not connect: a Redis that is away
// shows at the first command. A URL that cannot be understood is an error, which never repeats the
// password in it. The collectors are registered with reg.
func Open(redisURL string, log *slog.Logger, reg prometheus.Registerer) (*Conn, error) {
	quiet()
	c := &Conn{
		log: log, operations: deadline.NewShared(OperationTime),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "snowlink_redis_errors_total", Help: "Redis operations that failed, by operation.",
		}, []string{"op"}),
	}
	c.Reads, c.Writes, c.ping = c.Outage("redis"), c.Outage("redis writes"), c.Operation("ping")
	var err error
	if c.Client, c.Pipe, err = connect(redisURL, nil); err != nil {
		return nil, err
	}
	if c.Aside, c.AsidePipe, err = connect(redisURL, c.noTouch); err != nil {
		return nil, errors.Join(err, c.Pipe.Close(), c.Client.Close())
	}
	reg.MustRegister(c.failed, poolCollector{c})
	return c, nil
}

// connect makes a client for REDIS_URL, and a pipeline on it. Each new connection is first given to
// prepare, unless that is nil.
func connect(redisURL string, prepare func(context.Context, *redis.Conn) error) (redis.UniversalClient, *redis.AutoPipeliner, error) {
	client, err := newClient(redisURL, prepare)
	if err != nil {
		return nil, nil, err
	}
	options := redis.DefaultAutoPipelineOptions()
	options.MaxQueuedCommands = maxQueued
	options.MaxBatchSize = 64
	if _, ok := client.(*redis.ClusterClient); ok {
		// A connection and a queue for each master. Batches would have commands for all masters,
		// and wait for the slowest: one that hangs would stop them all.
		options.FullDuplex, options.FullDuplexWindow = true, maxQueued/2 // in flight, and as many queued
	} else {
		// One Redis has nobody to wait for, and full duplex costs more there, in smaller batches: a
		// fifth fewer cold redirects and a fifth more processor time a create over 64 connections
		// (bench in turns, 2026-11-25). It is no better over 256.
		//
		// The next batch need not wait until Redis has answered one, nor for more than 64 commands
		// to come: a tenth more creates over 64 connections. So a command may overtake another that
		// nobody has waited for. If the order of two commands matters, wait for the first.
		options.MaxConcurrentBatches, options.Unordered = 2, true
	}
	// The deferred kind: it is the one whose wait can end before the command does.
	pipe, err := client.AsyncAutoPipelineWithOptions(options)
	if err != nil {
		return nil, nil, fmt.Errorf("start auto-pipelining: %w", err)
	}
	return client, pipe, nil
}

// noTouch keeps what is read on a connection from looking used. Redis knows of that since 7.2, and
// Valkey does. An older one refuses, and so does one whose ACL forbids it: see Touches.
func (c *Conn) noTouch(ctx context.Context, conn *redis.Conn) error {
	err := conn.Process(ctx, redis.NewStatusCmd(ctx, "client", "no-touch", "on"))
	_, refused := errors.AsType[redis.Error](err)
	if redis.HasErrorPrefix(err, "BUSY") || redis.HasErrorPrefix(err, "LOADING") {
		refused = false // another connection may be allowed to, a moment later
	}
	c.touches.Store(refused)
	if err == nil || refused {
		return nil
	}
	// Not wrapped: go-redis leaves the commands of a pipeline without any error where a Redis error
	// ends a connection before them.
	return fmt.Errorf("client no-touch: %v", err)
}

// Touches reports whether what is read on Aside counts as used all the same, as the last connection
// that was made found out. It makes one if there is none; it is false if that fails.
func (c *Conn) Touches(ctx context.Context) bool {
	return c.Aside.Ping(ctx).Err() == nil && c.touches.Load()
}

// Outage makes the outage of something, as the log names it. There is none yet.
func (c *Conn) Outage(of string) *Outage { return outage.New(c.log, of) }

// Limit returns the context of an operation. If ctx has a deadline, that is the only bound, and Limit
// returns ctx. Otherwise the context ends when ctx does, and after OperationTime at the latest.
func (c *Conn) Limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	if ctx.Done() != nil {
		return context.WithTimeout(ctx, OperationTime)
	}
	return c.operations.From(time.Now()), func() {}
}

// Do sends cmd, in a round trip with whatever else is waiting, within Limit. After an error of the
// context cmd may still be under way, and must not be read.
func (c *Conn) Do(ctx context.Context, cmd redis.Cmder) error { return c.do(ctx, c.Pipe, cmd) }

// DoAside is Do on Aside.
func (c *Conn) DoAside(ctx context.Context, cmd redis.Cmder) error {
	return c.do(ctx, c.AsidePipe, cmd)
}

func (c *Conn) do(ctx context.Context, pipe *redis.AutoPipeliner, cmd redis.Cmder) error {
	ctx, cancel := c.Limit(ctx)
	defer cancel()
	return pipe.Submit(ctx, cmd).WaitContext(ctx)
}

// Master returns the master of a Cluster that has the key, as far as that is known. It returns nil
// if it is not known, and if there is no Cluster.
func (c *Conn) Master(ctx context.Context, key string) *redis.Client {
	cluster, ok := c.Client.(*redis.ClusterClient)
	if !ok {
		return nil
	}
	m, _ := cluster.MasterForKey(ctx, key)
	return m
}

// Ping asks Redis for a sign of life: two tries at most, each bounded by the limits of a
// connection. Its error wraps [link.ErrUnavailable].
func (c *Conn) Ping(ctx context.Context) error {
	if err := c.Client.Ping(ctx).Err(); err != nil {
		return c.ping.Unavailable(c.Reads, err)
	}
	c.Reads.Ended()
	return nil
}

// Close finishes what is queued and closes every connection.
func (c *Conn) Close() error {
	return errors.Join(c.Pipe.Close(), c.AsidePipe.Close(), c.Client.Close(), c.Aside.Close())
}

// Operation is something that Redis is asked for. Its failures are counted under its name, and
// become errors of package link.
type Operation struct {
	name   string
	failed prometheus.Counter
}

// Operation makes an operation. Its name is a label of a metric, so there are only a few.
func (c *Conn) Operation(name string) *Operation {
	return &Operation{name, c.failed.WithLabelValues(name)}
}

// Unavailable takes note that the operation failed with err, as part of the outage. It returns an
// error that wraps [link.ErrUnavailable]. What the caller gave up says nothing about Redis, and is not
// taken note of.
func (o *Operation) Unavailable(of *Outage, err error) error {
	return o.fail(of, link.ErrUnavailable, err)
}

// NotWritten is Unavailable for a write. If Redis refused it because it is full, the error wraps
// [link.ErrFull].
func (o *Operation) NotWritten(of *Outage, err error) error {
	if redis.IsOOMError(err) {
		return o.fail(of, link.ErrFull, err)
	}
	return o.fail(of, link.ErrUnavailable, err)
}

// Count counts a failure of the operation that is no outage.
func (o *Operation) Count() { o.failed.Inc() }

func (o *Operation) fail(of *Outage, as, err error) error {
	if !errors.Is(err, context.Canceled) {
		o.failed.Inc()
		of.Observed(err)
	}
	return fmt.Errorf("redis: %s: %w: %w", o.name, as, err)
}
