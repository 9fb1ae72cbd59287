// Package redisstore keeps links in Redis: it is the link.Store behind all others. It also keeps
// what must be the same for all backends and is no link: promises of idempotent creates, the rates
// of API keys, and sessions of the dashboard.
//
// Its decisions. A link is one string under link:<code>, written with SET NX GET: no link is ever
// overwritten, and a retried write recognises its own first try. A link and its count of visits
// share a slot, and all else stands alone, so Redis Cluster works. Redis may evict a count as it
// may a link: that closes the link, and never opens it. Package redisconn bounds each operation and
// turns errors of Redis into those of package link. What only the command can tell is decided here:
// a missing key is link.ErrNotFound.
package redisstore

import (
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/go-redis/redis_rate/v10"

	"snowlink/internal/link"
	"snowlink/internal/redisconn"
)

var _ link.Store = (*Store)(nil)

// Store keeps links in Redis. All methods may be called concurrently. An operation ends by the
// deadline of its context, or within [redisconn.OperationTime] if that has none.
type Store struct {
	conn        *redisconn.Conn
	ops         ops
	journalMost int // see Options
	journalMax  any // the same as a string, as an argument of a command, or nil for no journals
	journalsMu  sync.RWMutex
	journals    map[string]*journal // by owner
	elsewhere   bool                // see Options, as noLinks
	noLinks     bool
	outbox      *journal          // of codes to be archived; nil without an archive
	claimed     atomic.Value      // a string: where Take goes on to look for marks that were left
	unheard     *redisconn.Outage // of announcements: Redis may refuse their channel alone
	unreadable  *redisconn.Outage // of records that cannot be read; it never ends
	limiter     *redis_rate.Limiter
}

// ops are the operations of a Store.
type ops struct {
	get, create, visit, update, list, promise, limit, salt, session *redisconn.Operation
	miss, restore, mark, archive                                    *redisconn.Operation // in front of an archive
	record                                                          *redisconn.Operation // to read one that was found
}

// Options say how a Store differs from one without journals.
type Options struct {
	// JournalMax is about how many entries the journal of an owner keeps, the newest. Each entry is
	// of one link to four. 0 means that there are no journals.
	JournalMax int
	// Archived says that the Store is in front of an archive. Whatever is written is marked for an
	// archiver, and has no time to live until that has archived it: see package archived/model.
	Archived bool
	// StateElsewhere says that another Redis keeps promises, rates and leases. It matters to what
	// the log says of a full Redis.
	StateElsewhere bool
	// NoLinks says that this is that other Redis: promises, rates and leases are all it has.
	NoLinks bool
}

// New makes a Store over the connections, which stay the caller's to close.
func New(conn *redisconn.Conn, o Options) *Store {
	s := &Store{
		conn: conn, elsewhere: o.StateElsewhere, noLinks: o.NoLinks, journalMost: o.JournalMax, journals: make(map[string]*journal),
		ops: ops{
			get: conn.Operation("get"), create: conn.Operation("create"), visit: conn.Operation("visit"),
			update: conn.Operation("update"), list: conn.Operation("list"), promise: conn.Operation("promise"),
			limit: conn.Operation("limit"), record: conn.Operation("record"), salt: conn.Operation("salt"),
			session: conn.Operation("session"),
		},
		unheard: conn.Outage("announcements of changes"), unreadable: conn.Outage("a record that cannot be read"),
	}
	if o.JournalMax > 0 {
		s.journalMax = strconv.Itoa(o.JournalMax)
	}
	if o.Archived {
		s.ops.miss, s.ops.restore = conn.Operation("miss"), conn.Operation("restore")
		s.ops.mark, s.ops.archive = conn.Operation("mark"), conn.Operation("archive")
		s.outbox = &journal{store: s, key: OutboxKey}
	}
	s.limiter = redis_rate.NewLimiter(pipedScripts{conn.Client, s})
	return s
}
