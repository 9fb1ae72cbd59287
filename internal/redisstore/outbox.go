package redisstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/link"
)

// The outbox is a stream of marks: the codes of what was written, for an archiver. A mark says
// nothing of what was written. Links of a moment share an entry, as in a journal.
//
// Archivers share a consumer group, under one name: what one of them has taken and not done with,
// because it died or could not, any of them takes again a while later.

const (
	// OutboxKey is the key of the outbox.
	OutboxKey = "outbox"

	archivers = "archivers" // the group, and the consumer
	// claimAfter is how long a mark that was taken is left alone.
	claimAfter = 10 * time.Second
	// markMost is how many links of a bulk share an entry.
	markMost = 16
)

// addMark is XADD even if Redis is full: what was written without a time to live has to be archived
// to make room.
var addMark = newScript(`redis.call("XADD", KEYS[1], "*", "c", ARGV[1])
return 1`, true)

// marked waits until the page with the code is in the outbox.
func (s *Store) marked(ctx context.Context, mark *page, code string) error {
	err := mark.wait(ctx)
	if redis.IsOOMError(err) {
		_, err = s.run(ctx, addMark, []any{OutboxKey}, code)
	}
	return err
}

// Mark marks links, for the archiver to look at. It fails with link.ErrUnavailable.
func (s *Store) Mark(ctx context.Context, codes []string) error {
	ctx, cancel := s.conn.Limit(ctx)
	defer cancel()
	var err error
	if len(codes) == 1 {
		err = s.marked(ctx, s.outbox.add(codes[0]), codes[0])
	} else {
		var keys, args [][]any
		for some := range slices.Chunk(codes, markMost) {
			keys, args = append(keys, []any{OutboxKey}), append(args, []any{strings.Join(some, " ")})
		}
		_, errs := s.runAll(ctx, s.aside, addMark, keys, args)
		err = errors.Join(errs...)
	}
	if err != nil {
		return s.ops.mark.Unavailable(s.conn.Writes, err)
	}
	return nil
}

// Marked is an entry of the outbox.
type Marked struct {
	ID    string
	Codes []string
}

// Take takes marks from the outbox that nobody works on, n entries at most, the oldest first. What
// was taken and not Done with a while ago is among them. If there are none, it returns none at once.
func (s *Store) Take(ctx context.Context, n int) ([]Marked, error) {
	// A call looks at ten times as many as it returns, and the next goes on behind them. At most half
	// is what was left, which may have been because it cannot be archived now.
	from, _ := s.claimed.Load().(string)
	if from == "" {
		from = "0-0"
	}
	left, next, err := s.conn.Aside.XAutoClaim(ctx, &redis.XAutoClaimArgs{
		Stream: OutboxKey, Group: archivers, Consumer: archivers, MinIdle: claimAfter, Start: from, Count: int64(max(1, n/2)),
	}).Result()
	if redis.HasErrorPrefix(err, "NOGROUP") { // the first time, and after Redis lost everything
		err = s.conn.Aside.XGroupCreateMkStream(ctx, OutboxKey, archivers, "0").Err()
		if redis.HasErrorPrefix(err, "BUSYGROUP") { // somebody was faster
			err = nil
		}
	}
	if err != nil {
		return nil, s.ops.archive.Unavailable(s.conn.Reads, err)
	}
	s.claimed.Store(next)
	if len(left) < n {
		streams, err := s.conn.Aside.XReadGroup(ctx, &redis.XReadGroupArgs{
			Group: archivers, Consumer: archivers, Streams: []string{OutboxKey, ">"}, Count: int64(n - len(left)), Block: -1,
		}).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, s.ops.archive.Unavailable(s.conn.Reads, err)
		}
		for _, stream := range streams {
			left = append(left, stream.Messages...)
		}
	}
	marks := make([]Marked, len(left))
	for i, m := range left {
		codes, _ := m.Values["c"].(string)
		marks[i] = Marked{m.ID, strings.Fields(codes)}
	}
	return marks, nil
}

// Done deletes marks. It fails with link.ErrUnavailable.
func (s *Store) Done(ctx context.Context, marks []Marked) error {
	if len(marks) == 0 {
		return nil
	}
	ids := make([]string, len(marks))
	for i, m := range marks {
		ids[i] = m.ID
	}
	// Both or neither: a mark that is in the stream but not in the group is taken by nobody.
	pipe := s.conn.Aside.TxPipeline()
	pipe.XAck(ctx, OutboxKey, archivers, ids...)
	pipe.XDel(ctx, OutboxKey, ids...)
	if _, err := pipe.Exec(ctx); err != nil {
		return s.ops.archive.Unavailable(s.conn.Writes, err)
	}
	return nil
}

// Backlog returns how many entries the outbox has, and since when the oldest is there, by the clock
// of Redis; the zero time if there are none. It fails with link.ErrUnavailable.
func (s *Store) Backlog(ctx context.Context) (n int64, since time.Time, err error) {
	pipe := s.conn.Aside.Pipeline()
	length, oldest := pipe.XLen(ctx, OutboxKey), pipe.XRangeN(ctx, OutboxKey, "-", "+", 1)
	if _, err := pipe.Exec(ctx); err != nil {
		return 0, time.Time{}, s.ops.archive.Unavailable(s.conn.Reads, err)
	}
	for _, m := range oldest.Val() {
		ms, _, _ := strings.Cut(m.ID, "-")
		at, _ := strconv.ParseInt(ms, 10, 64)
		since = time.UnixMilli(at)
	}
	return length.Val(), since, nil
}

// LastTake returns how long ago an archiver took marks. ok is false if none ever did. Before Redis 7.2
// a Take that found no marks does not count. It fails with link.ErrUnavailable.
func (s *Store) LastTake(ctx context.Context) (ago time.Duration, ok bool, err error) {
	consumers, err := s.conn.Aside.XInfoConsumers(ctx, OutboxKey, archivers).Result()
	switch {
	case redis.HasErrorPrefix(err, "NOGROUP"), redis.HasErrorPrefix(err, "no such key"):
		return 0, false, nil
	case err != nil:
		return 0, false, s.ops.archive.Unavailable(s.conn.Reads, err)
	case len(consumers) == 0:
		return 0, false, nil
	}
	return consumers[0].Idle, true, nil
}

// Unarchived returns codes that the outbox names, each once, n at most, those first that were marked
// last. It reports whether there may be more. It fails with link.ErrUnavailable.
func (s *Store) Unarchived(ctx context.Context, n int) (codes []string, more bool, err error) {
	ctx, cancel := s.conn.Limit(ctx)
	defer cancel()
	marks, err := s.conn.Aside.XRevRangeN(ctx, OutboxKey, "+", "-", int64(n)).Result()
	if err != nil {
		return nil, false, s.ops.list.Unavailable(s.conn.Reads, err)
	}
	seen := make(map[string]bool)
	for _, m := range marks {
		some, _ := m.Values["c"].(string)
		for _, code := range strings.Fields(some) {
			if seen[code] {
				continue
			}
			if len(codes) == n {
				return codes, true, nil
			}
			seen[code] = true
			codes = append(codes, code)
		}
	}
	return codes, len(marks) == n, nil
}

// Peek returns the records of the codes without making them look used. The error of each is nil, or
// wraps link.ErrNotFound, link.ErrUnreadable or link.ErrUnavailable.
func (s *Store) Peek(ctx context.Context, codes []string) ([]Record, []error) {
	cmds := make([]*redis.StringCmd, len(codes))
	for i, code := range codes {
		cmds[i] = redis.NewStringCmd(ctx, "get", LinkKey(code))
	}
	records := make([]Record, len(codes))
	errs := s.aside(ctx, cmds)
	for i, code := range codes {
		switch {
		case errors.Is(errs[i], redis.Nil):
			errs[i] = link.ErrNotFound
		case errs[i] != nil:
			errs[i] = s.ops.archive.Unavailable(s.conn.Reads, errs[i])
		default:
			records[i], errs[i] = s.Record(code, cmds[i].Val())
		}
	}
	return records, errs
}

// expire sets the time to live of the record ARGV[1], so that Redis may evict it: until ARGV[2]. A
// record that lives until its visits are used up, which ARGV[3] says, is left alone before. Its
// count goes with it.
var expire = newScript(`
if redis.call("GET", KEYS[1]) ~= ARGV[1] or redis.call("PTTL", KEYS[1]) ~= -1 then
  return 0
elseif ARGV[3] == "1" and tonumber(redis.call("GET", KEYS[2]) or 0) > 0 then
  return 0
end
redis.call("PEXPIREAT", KEYS[1], ARGV[2])
redis.call("PEXPIREAT", KEYS[2], ARGV[2])
return 1`, true)

// Archived is a record that the archive has, as it stands.
type Archived struct {
	Record
	// Until is when Redis forgets it, if it is not evicted before.
	Until time.Time
	// WhileVisits says that it is not to be forgotten while it has visits left.
	WhileVisits bool
}

// Expire lets Redis evict records, each if it is there still as it was archived. The errors wrap
// link.ErrUnavailable.
func (s *Store) Expire(ctx context.Context, records []Archived) []error {
	keys, args := make([][]any, len(records)), make([][]any, len(records))
	for i, r := range records {
		while := 0
		if r.WhileVisits {
			while = 1
		}
		keys[i], args[i] = linkKeys(r.Code), []any{r.Text, r.Until.UnixMilli(), while}
	}
	_, errs := s.runAll(ctx, s.aside, expire, keys, args)
	return s.archiving(errs)
}

// archiving turns the errors of writes by the archiver into those of package link.
func (s *Store) archiving(errs []error) []error {
	for i, err := range errs {
		if err != nil {
			errs[i] = s.ops.archive.Unavailable(s.conn.Writes, err)
		}
	}
	return errs
}

// settle makes Redis and the archive agree. ARGV[1] is the record that was read, ARGV[2] the one of
// the archive, and ARGV[3] what becomes of the first if it was changed since Redis lost writes, ""
// if it cannot have been. ARGV[4] is for how long to restore, ARGV[5] and ARGV[6] are the code and
// the channel to announce it on.
var settle = newScript(`
if redis.call("GET", KEYS[1]) ~= ARGV[1] then
  return 0
end
if redis.call("PTTL", KEYS[1]) >= 0 or ARGV[3] == "" then
  redis.call("SET", KEYS[1], ARGV[2], "PX", ARGV[4])
else
  redis.call("SET", KEYS[1], ARGV[3])
end
redis.call("DEL", KEYS[2])
redis.pcall("PUBLISH", ARGV[6], ARGV[5])
return 1`, true)

// Settle makes Redis and the archive agree on links, of which is is the record in Redis and rows the
// one in the archive, in order. Only a Redis that lost writes needs it. The errors wrap
// link.ErrUnavailable.
func (s *Store) Settle(ctx context.Context, is, rows []Record) []error {
	keys, args := make([][]any, len(is)), make([][]any, len(is))
	for i, r := range is {
		lifted := ""
		if r.Number > 0 || rows[i].Number == 0 {
			lifted = r.Renumbered(rows[i].Number + 1).Text
		}
		keys[i] = []any{LinkKey(r.Code), passKey(r.Code)}
		args[i] = []any{r.Text, rows[i].Text, lifted, restoredTime.Milliseconds(), r.Code, ChangesChannel}
	}
	_, errs := s.runAll(ctx, s.aside, settle, keys, args)
	return s.archiving(errs)
}

// Codes calls page with the codes of all links that Redis has, some hundred at a time, and ends with
// its error, or one that wraps link.ErrUnavailable. A link that comes or goes meanwhile may be
// missing, and one may come twice. No link looks used by it.
func (s *Store) Codes(ctx context.Context, page func(codes []string) error) error {
	scan := func(ctx context.Context, client redis.Cmdable) error {
		for cursor := uint64(0); ; {
			keys, next, err := client.Scan(ctx, cursor, LinkKey("*"), 1000).Result()
			if err != nil {
				return s.ops.archive.Unavailable(s.conn.Reads, err)
			}
			for i, key := range keys {
				keys[i] = strings.TrimPrefix(key, LinkKey(""))
			}
			if len(keys) > 0 {
				if err := page(keys); err != nil {
					return err
				}
			}
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	}
	cluster, ok := s.conn.Aside.(*redis.ClusterClient)
	if !ok {
		return scan(ctx, s.conn.Aside)
	}
	var mu sync.Mutex // one master after another
	return cluster.ForEachMaster(ctx, func(ctx context.Context, client *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		return scan(ctx, client)
	})
}

// Evictable reports of each code whether its link has a time to live, and whether there is one. It
// fails with link.ErrUnavailable.
func (s *Store) Evictable(ctx context.Context, codes []string) (evictable, there []bool, err error) {
	evictable, there = make([]bool, len(codes)), make([]bool, len(codes))
	ttls := make([]*redis.IntCmd, len(codes))
	pipe := s.conn.Aside.Pipeline()
	for i, code := range codes {
		ttls[i] = redis.NewIntCmd(ctx, "pttl", LinkKey(code))
		_ = pipe.Process(ctx, ttls[i]) // queues it
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, nil, s.ops.archive.Unavailable(s.conn.Reads, fmt.Errorf("pttl: %w", err))
	}
	for i, ttl := range ttls {
		evictable[i], there[i] = ttl.Val() >= 0, ttl.Val() != -2
	}
	return evictable, there, nil
}
