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
	"strconv"
	"sync"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"

	"snowlink/internal/link"
	"snowlink/internal/redisconn"
)

var _ link.Store = (*Store)(nil)

// Store keeps links in Redis. All methods may be called concurrently. An operation ends by the
// deadline of its context, or within [redisconn.OperationTime] if that has none.
type Store struct {
	conn       *redisconn.Conn
	ops        ops
	journalMax any // a string, or nil for no journals; as an argument is passed
	journalsMu sync.RWMutex
	journals   map[string]*journal // by owner
	unheard    *redisconn.Outage   // of announcements: their channel may be refused alone
	unreadable *redisconn.Outage   // of single records; it never ends
	limiter    *redis_rate.Limiter
}

// ops are the operations of a Store.
type ops struct{ get, create, visit, update, list, promise, limit *redisconn.Operation }

// Options say how a Store differs from one without journals.
type Options struct {
	// JournalMax is about how many entries the journal of an owner has: the newest. Each is of one link
	// to four. 0 means that there are no journals.
	JournalMax int
}

// New makes a Store over the connections, which stay the caller's to close.
func New(conn *redisconn.Conn, o Options) *Store {
	s := &Store{
		conn: conn, journals: make(map[string]*journal),
		ops: ops{
			get: conn.Operation("get"), create: conn.Operation("create"), visit: conn.Operation("visit"),
			update: conn.Operation("update"), list: conn.Operation("list"), promise: conn.Operation("promise"),
			limit: conn.Operation("limit"),
		},
		unheard: conn.Outage("announcements of changes"), unreadable: conn.Outage("a record"),
	}
	if o.JournalMax > 0 {
		s.journalMax = strconv.Itoa(o.JournalMax)
	}
	s.limiter = redis_rate.NewLimiter(pipedScripts{conn.Client, s})
	return s
}

// Get returns the link under code. It fails with link.ErrNotFound, link.ErrUnreadable
// or link.ErrUnavailable.
func (s *Store) Get(ctx context.Context, code string) (link.Link, error) {
	cmd := redis.NewStringCmd(ctx, "get", linkKey(code))
	return s.found(code, cmd.Val, s.conn.Do(ctx, cmd))
}

// found is the answer to a GET of the link under code. The record is asked for only when err says that
// there is one.
func (s *Store) found(code string, record func() string, err error) (link.Link, error) {
	if err != nil && !errors.Is(err, redis.Nil) {
		return link.Link{}, s.ops.get.Unavailable(s.conn.Reads, err)
	}
	s.conn.Reads.Ended()
	if err != nil {
		return link.Link{}, link.ErrNotFound
	}
	return s.decode(code, record())
}

// GetAll returns the links under codes, together, within opTimeout if ctx has no
// deadline. Its errors are those of Get. What a hung master of a Cluster has fails, and the others' links come.
func (s *Store) GetAll(ctx context.Context, codes []string) ([]link.Link, []error) {
	return s.getAll(ctx, s.conn.Pipe, codes)
}

func (s *Store) getAll(ctx context.Context, pipe *redis.AutoPipeliner, codes []string) ([]link.Link, []error) {
	ctx, cancel := s.conn.Limit(ctx)
	defer cancel()
	byMaster := make(map[*redis.Client][]int) // for each of which a queue may be full
	for i, code := range codes {
		m := s.conn.Master(ctx, linkKey(code))
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
	limited, cancel := s.conn.Limit(ctx)
	defer cancel()
	created := createCmd(limited, code, record, l)
	sent := s.conn.Pipe.Submit(limited, created)
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
		limited = context.WithoutCancel(limited)                                               // in a Cluster it is sent after this returns
		s.conn.Pipe.Submit(limited, redis.NewIntCmd(limited, "publish", changesChannel, code)) // see announceChosen
	}
	return err
}

// announceChosen tells the near caches that there are links now: somebody may have
// asked for their codes before, which is remembered for a moment. Minted codes are
// new to everyone. A message that is lost costs no more than that moment: nobody
// waits for it. In a Cluster any node passes it on, and this one may hang.
func (s *Store) announceChosen(ctx context.Context, codes ...string) {
	pipe := s.conn.Aside.Pipeline()
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
		return s.ops.create.NotWritten(s.conn.Writes, err)
	case err == nil && old != record: // Nil: there was nothing, it is ours
		s.conn.Writes.Ended()
		return link.ErrExists
	case journalErr != nil:
		// The link is stored, and may never be listed: the create has to be repeated. It
		// was not refused, even if Redis had no room for the journal.
		return s.ops.create.Unavailable(s.conn.Writes, journalErr)
	}
	s.conn.Writes.Ended()
	return nil
}
