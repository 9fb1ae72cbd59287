// Package nodelease gives a process the exclusive use of a node ID, by a lease in Redis. That keeps
// two processes from minting the same code.
//
// Its decision: a lease alone is not enough. If a clock is set back, a process may mint codes that
// an earlier process has minted under the same ID. So Redis also remembers, for each node ID, until
// when it was used, and nobody mints at an earlier time.
package nodelease

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/deadline"
	"snowlink/internal/link"
	"snowlink/internal/redisconn"
	"snowlink/snowflake"
)

// ErrTaken reports that another process holds the node ID, or that no node ID is free. Its text
// names the holder.
var ErrTaken = errors.New("node ID is taken")

// ErrClockBehind reports that codes were minted under the node ID at times that this machine's
// clock has not reached. It would mint them again. The text says how far the clock is behind.
var ErrClockBehind = errors.New("the clock is behind")

const (
	// TTL is how long a lease outlives its last renewal. After a crash the node ID stays blocked
	// for as long.
	TTL = 15 * time.Second
	// renewEvery leaves time for some renewals to fail before the lease ends.
	renewEvery = 4 * time.Second
	// margin is taken off the TTL in this process: the holder stops minting before Redis lets
	// another process have the ID.
	margin = time.Second
	// retryEvery is the time between tries after a failure: while Redis is away, or while another
	// process has the node ID.
	retryEvery = 500 * time.Millisecond
	// clockWait is how far a clock may be behind for Hold to wait until it has caught up. Time
	// synchronisation may set a clock back as far as that.
	clockWait = 10 * time.Second
)

// The keys of both scripts are the lease, node:<id>, and its mark, clock:{node:<id>}, in one slot
// of a Cluster. The mark is a time in Unix milliseconds and the name of the tenure that set it. All
// times before that time may have been used for codes. Only the holder of the lease sets the mark.
//
// The scripts delete a key before they set it. Under noeviction a full Redis refuses SET, but not
// DEL, and it refuses nothing of a script that has written. So the lease lives on, and a create
// reports that there is no room, not that the node ID is lost.

// claim takes the lease if it is free and extends it if it is ours, ARGV[1], for ARGV[2]
// milliseconds. It answers with the holder's token. It moves the mark to ARGV[3], unless times
// would then be used again: the mark is later than ARGV[5], the clock of the tenure, and another
// tenure than ARGV[4] set it. In that case the mark is the second part of the answer, and the lease
// is left as it is: its holder may be alive, and only the lease evicted. The mark has no time to
// live, so a full Redis keeps it under volatile-lru.
var claim = redis.NewScript(`
local holder = redis.call("GET", KEYS[1])
if holder and holder ~= ARGV[1] then
  return {holder}
end
local mark, by = string.match(redis.call("GET", KEYS[2]) or "0", "^(%d+) ?(.*)$")
if tonumber(mark) > tonumber(ARGV[5]) and by ~= ARGV[4] then
  return {ARGV[1], mark}
end
redis.call("DEL", KEYS[1])
redis.call("SET", KEYS[1], ARGV[1], "PX", ARGV[2])
redis.call("DEL", KEYS[2])
redis.call("SET", KEYS[2], ARGV[3] .. " " .. ARGV[4])
return {ARGV[1]}`)

// release gives the lease back if it is still ours, ARGV[1]. It moves the mark back to ARGV[2] if
// this tenure, ARGV[3], set it: the times from there on were not used.
var release = redis.NewScript(`
if redis.call("GET", KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call("DEL", KEYS[1])
if string.match(redis.call("GET", KEYS[2]) or "", "^%d+ ?(.*)$") == ARGV[3] then
  redis.call("DEL", KEYS[2])
  redis.call("SET", KEYS[2], ARGV[2] .. " " .. ARGV[3])
end
return 1`)

// Lease is the exclusive use of one node ID at times that no holder has used before. It keeps two
// processes from minting the same ID. If Redis loses the lease, SET NX is still the fence: no link
// is overwritten. Next and Held may be called concurrently with Hold.
//
// The times are those in the IDs, by the clock of the generator that mints them. They are not those
// of the wall clock, which may be set back while a process runs. The next process would begin with
// that.
type Lease struct {
	conn         *redisconn.Conn
	operation    *redisconn.Operation
	outage       *redisconn.Outage // of writes that a full Redis takes
	log          *slog.Logger
	taken        chan struct{} // closed once a node ID was first held
	token        string
	nodes        []int                                       // that may be taken, the best first
	newGenerator func(node int) (func() snowflake.ID, error) // tests have one whose clock is ahead
	current      atomic.Pointer[tenure]                      // that is held, or was held last
	last         *tenure                                     // the last that may have set a mark; for Hold alone
}

// A tenure is the use of one node ID by one generator.
type tenure struct {
	name  string // in the mark
	node  int
	next  func() snowflake.ID
	until atomic.Int64 // in Unix milliseconds; only the times before it are ours
}

// now is the clock of the generator, in Unix milliseconds. It costs an ID, since nothing else tells
// that clock exactly, and there are enough of them.
func (t *tenure) now() int64 { return t.next().Time().UnixMilli() }

// New makes the lease on the node ID, or on the lowest free ID up to max if node is negative.
// Nothing is held before Hold.
func New(conn *redisconn.Conn, node, max int, log *slog.Logger) *Lease {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	l := &Lease{
		conn: conn, operation: conn.Operation("lease"), outage: conn.Outage("node leases"), log: log,
		taken: make(chan struct{}),
		// It is readable, since a refused process shows it to its operator.
		token: fmt.Sprintf("host %s, pid %d, since %s, %s",
			host, os.Getpid(), time.Now().UTC().Format(time.RFC3339), rand.Text()[:8]),
		newGenerator: func(node int) (func() snowflake.ID, error) {
			g, err := snowflake.NewGenerator(node)
			if err != nil {
				return nil, err
			}
			return g.Next, nil
		},
	}
	if node >= 0 {
		l.nodes = []int{node}
		return l
	}
	for id := range max + 1 {
		l.nodes = append(l.nodes, id)
	}
	return l
}

// Next mints an ID. It reports false if the lease is not certainly ours at the time in the ID. The
// process may stand still anywhere and for any time: no other holder of the node ID ever uses the
// time of an ID that Next returns.
func (l *Lease) Next() (id snowflake.ID, ok bool) {
	t := l.current.Load()
	if t == nil {
		return 0, false
	}
	id = t.next() // before until is read: what ends the tenure reads the clock afterwards, and so is past id
	return id, id.Time().UnixMilli() < t.until.Load()
}

// Taken returns a channel that is closed once Hold holds a node ID for the first time.
func (l *Lease) Taken() <-chan struct{} { return l.taken }

// Held reports whether Next would mint.
func (l *Lease) Held() bool {
	_, ok := l.Next()
	return ok
}

// Hold takes the lease and renews it until ctx ends. Then it gives the ID back. It waits while
// Redis is away.
//
// An outage longer than TTL loses the lease. Hold takes it back as soon as it is free. If any node
// ID will do, it takes another free one. Hold fails only at the start: with ErrTaken or
// ErrClockBehind, or if the clock reads a time that no ID can hold.
func (l *Lease) Hold(ctx context.Context) error {
	held := -1 // the node ID
	for started := false; ; {
		err := l.take(ctx)
		switch node := l.node(); {
		case ctx.Err() != nil: // while it waited, for Redis or the clock: no failure
		case !started && err != nil && !errors.Is(err, link.ErrUnavailable):
			return err
		case node >= 0 && node != held:
			if !started {
				close(l.taken)
			}
			started, held = true, node
			l.log.Info("node ID held", "node", node)
		case node < 0 && held >= 0:
			l.log.Error("node ID lost: creates answer 503 until one is ours", "node", held, "err", err)
			held = -1
		}
		pace := renewEvery
		if err != nil {
			pace = retryEvery
		}
		if !deadline.Sleep(ctx, pace) {
			break
		}
	}
	if l.last != nil {
		l.end()
		l.release(l.last)
	}
	return nil
}

// A Holder is a process that holds a node ID.
type Holder struct {
	Node  int
	Host  string // as the process names it
	PID   int
	Since time.Time // when it started
	Self  bool      // it is this process
}

// Holders returns who holds a node ID of 0 to max now, in the order of the IDs. The error wraps
// link.ErrUnavailable.
func (l *Lease) Holders(ctx context.Context, max int) ([]Holder, error) {
	ctx, cancel := l.conn.Limit(ctx)
	defer cancel()
	pipe := l.conn.Aside.Pipeline()
	asked := make([]*redis.StringCmd, max+1)
	for node := range asked {
		lease, _ := Keys(node)
		asked[node] = pipe.Get(ctx, lease)
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, l.operation.Unavailable(l.conn.Reads, err)
	}
	var holders []Holder
	for node, cmd := range asked {
		token, err := cmd.Result()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil { // of another command than the first that failed
			return nil, l.operation.Unavailable(l.conn.Reads, err)
		}
		h := Holder{Node: node, Host: token, Self: token == l.token}
		if m := tokenForm.FindStringSubmatch(token); m != nil {
			h.Host = m[1]
			h.PID, _ = strconv.Atoi(m[2])
			h.Since, _ = time.Parse(time.RFC3339, m[3])
		}
		holders = append(holders, h)
	}
	l.conn.Reads.Ended()
	return holders, nil
}

// tokenForm is the form of a token, which New makes.
var tokenForm = regexp.MustCompile(`^host (.*), pid (\d+), since (\S+), \w+$`)

// node is the ID that is held, or -1.
func (l *Lease) node() int {
	if !l.Held() {
		return -1
	}
	return l.current.Load().node
}

// take makes a node ID ours, or keeps it. It prefers the one of before, and then the best that can
// be had.
func (l *Lease) take(ctx context.Context) error {
	if l.last != nil {
		if err := l.takeNode(ctx, l.last.node); err == nil || len(l.nodes) == 1 || !isRefusal(err) {
			return err
		}
	}
	var err error
	for _, node := range l.nodes {
		if err = l.takeNode(ctx, node); err == nil || !isRefusal(err) {
			return err
		}
	}
	if len(l.nodes) > 1 {
		err = fmt.Errorf("%w: none of 0 to %d can be had; the last: %w", ErrTaken, len(l.nodes)-1, err)
	}
	return err
}

// isRefusal reports whether another node ID may be had although this one cannot.
func isRefusal(err error) bool {
	return errors.Is(err, ErrTaken) || errors.Is(err, ErrClockBehind)
}

// takeNode claims or extends the lease on node: at the start, at a renewal and after a loss. As
// long as our own tenure has set the mark, nobody else has used the node ID, and the tenure goes
// on. Otherwise a new tenure begins, whose clock is past the mark.
func (l *Lease) takeNode(ctx context.Context, node int) error {
	t := l.last
	if t == nil || t.node != node {
		var err error
		if t, err = l.newTenure(node); err != nil {
			return err
		}
	}
	for {
		now := t.now() // before Redis is asked: the lease runs from some time after
		until := now + (TTL - margin).Milliseconds()
		holder, mark, err := l.claim(ctx, t, now, until)
		switch {
		case err != nil: // Redis may have done it all the same
			l.last = t
			return err
		case holder != l.token:
			l.end()
			return fmt.Errorf("%w: %d is held by %s", ErrTaken, node, holder)
		case mark == 0:
			t.until.Store(until)
			l.last = t
			l.current.Store(t)
			return nil
		}
		l.end()
		if t, err = l.newTenure(node); err != nil {
			return err
		}
		if err := l.awaitClock(ctx, t, mark); err != nil {
			l.release(t)
			return err
		}
	}
}

// newTenure makes a tenure that has not been claimed. Its clock is the wall clock. If the wall
// clock was set back since the last tenure under the same ID, it is the clock of that: no time
// comes twice.
func (l *Lease) newTenure(node int) (*tenure, error) {
	next, err := l.newGenerator(node)
	if err != nil {
		return nil, err
	}
	t := &tenure{name: rand.Text()[:8], node: node, next: next}
	if l.last != nil && l.last.node == node && l.last.now() > t.now() {
		t.next = l.last.next
	}
	return t, nil
}

// claim asks Redis for the lease, and for the times before until. It returns who has the lease now.
// If that is us, but the times are not ours, it also returns the mark.
func (l *Lease) claim(ctx context.Context, t *tenure, now, until int64) (holder string, mark int64, err error) {
	answer, err := claim.Run(ctx, l.conn.Client, t.keys(), l.token, TTL.Milliseconds(), until, t.name, now).StringSlice()
	if err == nil && len(answer) > 1 {
		mark, err = strconv.ParseInt(answer[1], 10, 64)
	}
	if err != nil {
		return "", 0, l.operation.Unavailable(l.outage, err)
	}
	l.outage.Ended()
	return answer[0], mark, nil
}

// end ends the tenure that is held, if any.
func (l *Lease) end() {
	if t := l.current.Load(); t != nil {
		t.until.Store(0)
	}
}

// awaitClock waits until the clock of t is past the mark. It fails if that would take too long.
func (l *Lease) awaitClock(ctx context.Context, t *tenure, mark int64) error {
	behind := time.Duration(mark-t.now()) * time.Millisecond
	if behind > clockWait {
		return fmt.Errorf("%w by %s: node %d has minted codes until %s; set the clock, or use another NODE_ID",
			ErrClockBehind, behind.Round(time.Second), t.node, time.UnixMilli(mark).UTC().Format(time.RFC3339))
	}
	if behind > 0 {
		l.log.Warn("the clock is behind: waiting", "node", t.node, "for", behind.String())
		deadline.Sleep(ctx, behind)
	}
	return ctx.Err()
}

// release gives the node ID back, so that the next process need not wait for the lease to run out.
// If Redis is away, the lease runs out all the same. The tenure has ended.
func (l *Lease) release(t *tenure) {
	err := release.Run(context.Background(), l.conn.Client, t.keys(), l.token, t.now()+1, t.name).Err()
	if err != nil {
		l.log.Warn("node ID not given back: it is free when its lease runs out", "node", t.node, "after", TTL.String(), "err", err)
	}
}

// keys are the lease and its mark.
func (t *tenure) keys() []string {
	lease, mark := Keys(t.node)
	return []string{lease, mark}
}

// Keys are the keys of the lease on a node ID and of its mark, which is until when the ID was used.
// The braces give them one slot.
func Keys(node int) (lease, mark string) {
	lease = "node:" + strconv.Itoa(node)
	return lease, "clock:{" + lease + "}"
}
