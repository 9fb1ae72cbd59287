// Package redisstore is the link.Store over Redis, and the lease on a node ID,
// which lives there too.
//
// Its decisions: one string per link under link:<code>, written with SET NX
// GET, so that no link is ever overwritten and a retried write recognises its
// own first try. A link and its count of visits share a slot, and all else
// stands alone, so Redis Cluster works. Redis may evict a count as it may a link:
// that closes the link, and never opens it. Concurrent requests share round trips
// through go-redis's auto-pipelining. Errors of Redis become the domain's here
// and nowhere else: a missing key is link.ErrNotFound, and everything else is
// link.ErrUnavailable.
package redisstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"snowlink/internal/deadline"
	"snowlink/internal/link"
	"snowlink/internal/metrics"
)

var _ link.Store = (*Store)(nil)

// Limits on a connection, used where REDIS_URL does not set its own.
const (
	dialTimeout = 250 * time.Millisecond
	ioTimeout   = 500 * time.Millisecond
	poolTimeout = 500 * time.Millisecond
	maxRetries  = 1
)

const (
	// opTimeout is the most that an operation takes whose context has no deadline. It
	// leaves room for a try and its retry; but a command may first
	// wait for the batches in flight, which have the same limits.
	opTimeout = 1200 * time.Millisecond

	// maxQueued bounds the commands waiting for Redis, for each master of a Cluster
	// apart, and with them the memory of an outage. A request waits for a few at a
	// time, so it takes thousands of connections to a backend to reach it.
	maxQueued = 16 << 10
)

// quiet silences go-redis's own log, which is one for the whole process and has
// a line for every failed dial: outage says it in fewer.
var quiet = sync.OnceFunc(logging.Disable)

// Store keeps links in one Redis, a Sentinel-guarded one or a Cluster. All
// methods may be called concurrently. Operations end by the deadline of their context
// or, where that has none, within opTimeout.
type Store struct {
	client redis.UniversalClient // leases, health checks, the subscription: one command, one round trip
	pipe   *redis.AutoPipeliner  // links: concurrent commands share round trips
	// aside has connections of its own, on which no key that is read counts as used:
	// for lists and for people who manage links. Bulks are there, too, so that many of
	// them leave the connections of client free; the age of a key that they make
	// begins with it all the same. asidePipe is to it what pipe is to client.
	aside      redis.UniversalClient
	asidePipe  *redis.AutoPipeliner
	touches    atomic.Bool // Redis refused NO-TOUCH: reads on aside count as use
	operations *deadline.Shared
	journalMax any // a string, or nil for no journals; as an argument is passed
	journalsMu sync.RWMutex
	journals   map[string]*journal // by owner
	outage     outage              // of all but writes
	refused    outage              // of writes: Redis may refuse those alone
	unheard    outage              // of announcements: so may their channel be
	leasing    outage              // of node leases: writes that a full Redis takes
	unreadable outage              // of single records; it never ends
	limiter    *redis_rate.Limiter
	metrics    *metrics.Metrics
}

// Options say how a Store differs from one without journals.
type Options struct {
	// JournalMax is about how many entries the journal of an owner has, each of one
	// link to four: the newest. 0 means none, and there are no journals.
	JournalMax int
}

// Open makes a Store for REDIS_URL. It does not connect: a Redis that is away
// shows at the first command. A URL that cannot be understood is an error,
// which never repeats the password in it.
func Open(redisURL string, o Options, log *slog.Logger, m *metrics.Metrics) (*Store, error) {
	quiet()
	s := &Store{
		operations: deadline.NewShared(opTimeout), metrics: m, journals: make(map[string]*journal),
		outage:     outage{log: log.With("of", "redis")},
		refused:    outage{log: log.With("of", "redis writes")},
		unheard:    outage{log: log.With("of", "announcements of changes")},
		leasing:    outage{log: log.With("of", "node leases")},
		unreadable: outage{log: log.With("of", "a record")},
	}
	if o.JournalMax > 0 {
		s.journalMax = strconv.Itoa(o.JournalMax)
	}
	var err error
	if s.client, s.pipe, err = connect(redisURL, nil); err != nil {
		return nil, err
	}
	if s.aside, s.asidePipe, err = connect(redisURL, s.noTouch); err != nil {
		return nil, err
	}
	s.limiter = redis_rate.NewLimiter(pipedScripts{s.client, s})
	return s, nil
}

// connect makes a client for REDIS_URL, and a pipeline on it. Each new connection is
// first given to prepare, unless that is nil.
func connect(redisURL string, prepare func(context.Context, *redis.Conn) error) (redis.UniversalClient, *redis.AutoPipeliner, error) {
	client, err := newClient(redisURL, prepare)
	if err != nil {
		return nil, nil, err
	}
	options := redis.DefaultAutoPipelineOptions()
	options.MaxQueuedCommands = maxQueued
	options.MaxBatchSize = 64
	if _, ok := client.(*redis.ClusterClient); ok {
		// A connection and a queue for each master. Batches would have commands for all
		// masters, and wait for the slowest: one that hangs would stop them all.
		options.FullDuplex, options.FullDuplexWindow = true, maxQueued
	} else {
		// One Redis has nobody to wait for, and full duplex costs more there, in smaller
		// batches: a fifth fewer cold redirects and a fifth more processor time a create
		// over 64 connections (bench in turns, 2026-11-25). It is no better over 256.
		//
		// The next batch need not wait until Redis has answered one, nor for more than 64
		// commands to come: a tenth more creates over 64 connections. So a command may
		// overtake another that nobody has waited for: whoever needs an order waits.
		options.MaxConcurrentBatches, options.Unordered = 2, true
	}
	// The deferred kind: it is the one whose wait can end before the command does.
	pipe, err := client.AsyncAutoPipelineWithOptions(options)
	if err != nil {
		return nil, nil, fmt.Errorf("start auto-pipelining: %w", err)
	}
	return client, pipe, nil
}

// noTouch keeps what is read on a connection from looking used. Redis knows of that
// since 7.2, and Valkey does. An older one refuses, as one does whose ACL forbids it:
// then reads count, of which Watch tells.
func (s *Store) noTouch(ctx context.Context, conn *redis.Conn) error {
	err := conn.Process(ctx, redis.NewStatusCmd(ctx, "client", "no-touch", "on"))
	_, refused := errors.AsType[redis.Error](err)
	s.touches.Store(refused)
	if refused {
		return nil
	}
	return err
}

// newClient reads the three forms of REDIS_URL: one address; several, comma
// separated, for Cluster; ?master_name= for Sentinel, whose addresses and
// credentials it then has, while ?username= and ?password= are for Redis. Query
// parameters, behind the last address, are go-redis's own (read_timeout, pool_size, …).
func newClient(redisURL string, prepare func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
	addrs, query, _ := strings.Cut(redisURL, "?")
	first, rest := cutAddress(addrs)
	if query != "" {
		first += "?" + query
	}
	u, err := url.Parse(first)
	if err != nil {
		return nil, errors.New("it is not a URL") // err repeats the URL, password and all
	}
	q := u.Query()
	for name, limit := range map[string]time.Duration{
		"dial_timeout": dialTimeout, "read_timeout": ioTimeout, "write_timeout": ioTimeout, "pool_timeout": poolTimeout,
	} {
		if !q.Has(name) {
			q.Set(name, limit.String())
		}
	}
	if !q.Has("max_retries") {
		q.Set("max_retries", fmt.Sprint(maxRetries))
	}
	for rest != "" {
		var addr string
		addr, rest = cutAddress(rest)
		if addr = strings.TrimSpace(addr); addr == "" {
			continue
		}
		if _, host, ok := strings.Cut(addr, "://"); ok {
			addr = host
		}
		q.Add("addr", addr[strings.LastIndex(addr, "@")+1:]) // the credentials of the first are everyone's
	}
	u.RawQuery = q.Encode()

	switch {
	case q.Has("master_name"):
		options, err := redis.ParseFailoverURL(u.String())
		if err != nil {
			return nil, redacted(err)
		}
		options.DialerRetries, options.OnConnect = 1, prepare
		client := redis.NewFailoverClient(options)
		client.AddHook(unknownMaster{})
		return client, nil
	case q.Has("addr"):
		options, err := redis.ParseClusterURL(u.String())
		if err != nil {
			return nil, redacted(err)
		}
		options.DialerRetries, options.OnConnect = 1, prepare
		return redis.NewClusterClient(options), nil
	default:
		options, err := redis.ParseURL(u.String())
		if err != nil {
			return nil, redacted(err)
		}
		options.DialerRetries, options.OnConnect = 1, prepare
		return redis.NewClient(options), nil
	}
}

// cutAddress cuts the first of several addresses off. A comma in its user name or
// password, and so before its @, separates nothing.
func cutAddress(addrs string) (first, rest string) {
	from := 0
	if scheme, tail, ok := strings.Cut(addrs, "://"); ok && !strings.Contains(scheme, ",") {
		tail, _, _ = strings.Cut(tail, "://") // the @ of the next address is not that of the first
		from = len(scheme) + len("://") + max(0, strings.IndexByte(tail, '@'))
	}
	before, rest, _ := strings.Cut(addrs[from:], ",")
	return addrs[:from] + before, rest
}

// redacted drops the URL that net/url quotes in its errors.
func redacted(err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		return ue.Err
	}
	return err
}

// Get returns the link under code. It fails with link.ErrNotFound, link.ErrUnreadable
// or link.ErrUnavailable.
func (s *Store) Get(ctx context.Context, code string) (link.Link, error) {
	cmd := redis.NewStringCmd(ctx, "get", linkKey(code))
	return s.found(code, cmd.Val, s.do(ctx, cmd))
}

// found is the answer to a GET of the link under code. The record is asked for only when err says that
// there is one.
func (s *Store) found(code string, record func() string, err error) (link.Link, error) {
	if err != nil && !errors.Is(err, redis.Nil) {
		return link.Link{}, s.unavailable(metrics.OpGet, &s.outage, err)
	}
	s.outage.ended()
	if err != nil {
		return link.Link{}, link.ErrNotFound
	}
	return s.decode(code, record())
}

// GetAll returns the links under codes, together, within opTimeout if ctx has no
// deadline. Its errors are those of Get. What a hung master of a Cluster has fails, and the others' links come.
func (s *Store) GetAll(ctx context.Context, codes []string) ([]link.Link, []error) {
	return s.getAll(ctx, s.pipe, codes)
}

func (s *Store) getAll(ctx context.Context, pipe *redis.AutoPipeliner, codes []string) ([]link.Link, []error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	byMaster := make(map[*redis.Client][]int) // for each of which a queue may be full
	for i, code := range codes {
		m := s.master(ctx, code)
		byMaster[m] = append(byMaster[m], i)
	}
	links, errs := make([]link.Link, len(codes)), make([]error, len(codes))
	var masters sync.WaitGroup
	for _, some := range byMaster {
		masters.Go(func() {
			cmds, sent := make([]*redis.StringCmd, len(some)), make([]redis.AutoFuture, len(some))
			for k, i := range some {
				cmds[k] = redis.NewStringCmd(ctx, "get", linkKey(codes[i]))
				sent[k] = pipe.Submit(ctx, cmds[k])
			}
			for k, i := range some {
				links[i], errs[i] = s.found(codes[i], cmds[k].Val, sent[k].WaitContext(ctx))
			}
		})
	}
	masters.Wait()
	return links, errs
}

// createLimited is SET NX GET of the record ARGV[1] and, where that stores it, of
// the count ARGV[2], both forgotten at ARGV[3] unless that is 0.
var createLimited = newScript(`
local function set(key, value, ...)
  if ARGV[3] == "0" then
    return redis.call("SET", key, value, ...)
  end
  return redis.call("SET", key, value, "PXAT", ARGV[3], ...)
end
local old = set(KEYS[1], ARGV[1], "NX", "GET")
if not old then
  set(KEYS[2], ARGV[2])
end
return old`, false)

// Create stores l under code and writes it down in the journal of owner. It
// succeeds too when code stands for an equal link already: that is the first try
// of a write whose answer was lost. Another link there is link.ErrExists, and no
// room under noeviction link.ErrFull; all else is link.ErrUnavailable, after which the link may or may not be stored.
func (s *Store) Create(ctx context.Context, owner, code string, l link.Link) error {
	record := encodeRecord(l)
	limited, cancel := s.limit(ctx)
	defer cancel()
	created := createCmd(limited, code, record, l)
	sent := s.pipe.Submit(limited, created)
	var err, journalErr error
	if s.journalMax == nil {
		err = sent.WaitContext(limited)
	} else { // on the way while the link is
		p := s.journal(owner).add(journalEntry(code, l))
		err = sent.WaitContext(limited)
		journalErr = p.wait(limited) // mostly written by now
	}
	var old string
	if err == nil {
		old = created.Val()
	} else if l.Limit() > 0 && redis.HasErrorPrefix(err, "NOSCRIPT") {
		old, err = s.run(ctx, createLimited, linkKeys(code), createdArgs(record, l)...)
	}
	if err = s.created(old, record, err, journalErr); l.Chosen() && !errors.Is(err, link.ErrExists) {
		limited = context.WithoutCancel(limited)                                          // in a Cluster it is sent after this returns
		s.pipe.Submit(limited, redis.NewIntCmd(limited, "publish", changesChannel, code)) // see announceChosen
	}
	return err
}

// announceChosen tells the near caches that there are links now: somebody may have
// asked for their codes before, which is remembered for a moment. Minted codes are
// new to everyone. A message that is lost costs no more than that moment: nobody
// waits for it. In a Cluster any node passes it on, and this one may hang.
func (s *Store) announceChosen(ctx context.Context, codes ...string) {
	pipe := s.aside.Pipeline()
	for _, code := range codes {
		pipe.Publish(ctx, changesChannel, code)
	}
	_, _ = pipe.Exec(ctx)
}

// createCmd stores a link under a code that is free and answers with the record
// that is there otherwise.
func createCmd(ctx context.Context, code, record string, l link.Link) *redis.StringCmd {
	if l.Limit() > 0 {
		return createLimited.call(ctx, "evalsha", createLimited.sha, linkKeys(code), createdArgs(record, l))
	}
	if at := forgetAt(l); at > 0 {
		return redis.NewStringCmd(ctx, "set", linkKey(code), record, "nx", "get", "pxat", at)
	}
	return redis.NewStringCmd(ctx, "set", linkKey(code), record, "nx", "get")
}

// createdArgs are the arguments of createLimited.
func createdArgs(record string, l link.Link) []any { return []any{record, l.MaxVisits, forgetAt(l)} }

// created is what came of a create: old is the record that was there, if err is
// nil.
func (s *Store) created(old, record string, err, journalErr error) error {
	switch {
	case err != nil && !errors.Is(err, redis.Nil):
		return s.notWritten(metrics.OpCreate, err)
	case err == nil && old != record: // Nil: there was nothing, it is ours
		s.refused.ended()
		return link.ErrExists
	case journalErr != nil:
		// The link is stored, and may never be listed: the create has to be repeated. It
		// was not refused, even if Redis had no room for the journal.
		return s.unavailable(metrics.OpCreate, &s.refused, journalErr)
	}
	s.refused.ended()
	return nil
}

// limit returns ctx if that has a deadline, which is then all that bounds an operation,
// and otherwise one that ends when ctx does, and after opTimeout at the latest.
func (s *Store) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	if ctx.Done() != nil {
		return context.WithTimeout(ctx, opTimeout)
	}
	return s.operations.From(time.Now()), func() {}
}

// do sends cmd with whatever else is waiting. After an error of the context cmd
// may still be under way: it must not be read.
func (s *Store) do(ctx context.Context, cmd redis.Cmder) error { return s.doOn(ctx, s.pipe, cmd) }

func (s *Store) doOn(ctx context.Context, pipe *redis.AutoPipeliner, cmd redis.Cmder) error {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	return pipe.Submit(ctx, cmd).WaitContext(ctx)
}

// Ping asks Redis for a sign of life: two tries at most, of ioTimeout each.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.client.Ping(ctx).Err(); err != nil {
		return s.unavailable(metrics.OpPing, &s.outage, err)
	}
	s.outage.ended()
	return nil
}

// Pool reports the connections, all pools together.
func (s *Store) Pool() (p metrics.Pool) {
	add := func(stats *redis.PoolStats) {
		p.Total += int(stats.TotalConns)
		p.Idle += int(stats.IdleConns)
		p.Waiting += int(stats.PendingRequests)
		p.Hits += uint64(stats.Hits)
		p.Timeouts += uint64(stats.Timeouts)
	}
	for _, client := range []redis.UniversalClient{s.client, s.aside} {
		stats := client.PoolStats()
		add(stats)
		if stats.PipelineStats != nil {
			add((*redis.PoolStats)(stats.PipelineStats))
		}
	}
	return p
}

// Close finishes what is queued and closes every connection.
func (s *Store) Close() error {
	return errors.Join(s.pipe.Close(), s.asidePipe.Close(), s.client.Close(), s.aside.Close())
}

// notWritten is the error of a write that failed by err.
func (s *Store) notWritten(op metrics.Op, err error) error {
	if !redis.IsOOMError(err) {
		return s.unavailable(op, &s.refused, err)
	}
	s.metrics.RedisError(op)
	s.refused.observed(err)
	return fmt.Errorf("redis: %s: %w: %w", op, link.ErrFull, err)
}

func (s *Store) unavailable(op metrics.Op, o *outage, err error) error {
	s.metrics.RedisError(op)
	o.observed(err)
	return fmt.Errorf("redis: %s: %w: %w", op, link.ErrUnavailable, err)
}
