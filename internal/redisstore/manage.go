package redisstore

import (
	"context"
	"errors"
	"strconv"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/link"
)

// visit takes one of the visits that are left, if any are. It answers with the record, after a 1 if
// it took a visit and a 0 if not. It does not begin a new count if the count was lost.
var visit = newScript(`
local record = redis.call("GET", KEYS[1])
if not record then
  return nil
elseif tonumber(redis.call("GET", KEYS[2]) or 0) < 1 then
  return "0" .. record
end
redis.call("DECR", KEYS[2])
return "1" .. record`, true)

// change puts the record ARGV[2] in the place of ARGV[1]. It answers with the visits that are left,
// 0 for a link without a limit, or with nil if another record is there. If ARGV[2] is there
// already, this is a retry whose first try succeeded. ARGV[3] and ARGV[4] are the limits of visits
// before and after, ARGV[5] is when to forget the link, ARGV[6] and ARGV[7] are the code and the
// channel to announce it on. In front of an archive KEYS[3] is the pass, which ends, and the
// answer is -1 if no record is there: it was evicted, and not changed.
//
// The count may have been evicted: then only another limit begins a new one. A refused PUBLISH is
// no error here: such a Redis refuses to subscribe, too, and Changes reports that.
var change = newScript(`
local record = redis.call("GET", KEYS[1])
local left = tonumber(redis.call("GET", KEYS[2]) or nil)
if left and left < 0 then -- of several at once, each for the last visit
  left = 0
end
if record == ARGV[2] and record ~= ARGV[1] then
  return left or 0
elseif not record and KEYS[3] then
  return -1
elseif record ~= ARGV[1] then
  return nil
end
local before, after = tonumber(ARGV[3]), tonumber(ARGV[4])
local function set(key, value)
  if ARGV[5] == "0" then
    redis.call("SET", key, value)
  else
    redis.call("SET", key, value, "PXAT", ARGV[5])
  end
end
set(KEYS[1], ARGV[2])
if KEYS[3] then
  redis.call("DEL", KEYS[3])
end
if after == 0 then
  left = nil
  redis.call("DEL", KEYS[2])
elseif before ~= after then
  left = before > 0 and left and math.max(0, left + after - before) or after
end
if left then
  set(KEYS[2], string.format("%.0f", left))
end
redis.pcall("PUBLISH", ARGV[7], ARGV[6])
return left or 0`, true)

// Read returns the link under code as it is now. It fails as Get does. It does not make the link
// look used, if Redis is new enough: see redisconn.Conn.
func (s *Store) Read(ctx context.Context, code string) (link.State, error) {
	cmd := redis.NewSliceCmd(ctx, "mget", LinkKey(code), visitsKey(code))
	if err := s.conn.DoAside(ctx, cmd); err != nil {
		return link.State{}, s.ops.get.Unavailable(s.conn.Reads, err)
	}
	s.conn.Reads.Ended()
	values := cmd.Val()
	record, ok := values[0].(string)
	if !ok {
		return link.State{}, link.ErrNotFound
	}
	left, _ := values[1].(string)
	return s.state(code, record, left)
}

// state is the link under code that has this record and this count of visits, "" if it has none.
func (s *Store) state(code, record, left string) (link.State, error) {
	l, err := s.decode(code, record)
	if err != nil {
		return link.State{}, err
	}
	state := link.State{Link: l, Version: version(record)}
	if l.Limit() > 0 {
		n, _ := strconv.ParseInt(left, 10, 64) // nobody writes anything but numbers
		state.VisitsLeft = max(0, n)
	}
	return state, nil
}

// Visit takes a visit of a link with a limit. It fails as Get does, and with link.ErrGone. After
// link.ErrUnavailable a visit may have been taken, and a retry may have taken a second: visits may
// be lost, but a link never gives more than its limit.
//
// If the link has no limit, Visit may count down a count that an earlier link under the code left
// behind. Nobody reads that.
func (s *Store) Visit(ctx context.Context, code string) (link.Link, error) {
	answer, err := s.run(ctx, visit, linkKeys(code))
	if errors.Is(err, redis.Nil) {
		s.conn.Writes.Ended()
		return link.Link{}, link.ErrNotFound
	}
	if err != nil {
		return link.Link{}, s.ops.visit.Unavailable(s.conn.Writes, err)
	}
	s.conn.Writes.Ended()
	took, record := answer[0] == '1', answer[1:]
	l, err := s.decode(code, record)
	if err == nil && !took && l.Limit() > 0 {
		err = link.ErrGone
	}
	return l, err
}

// Update puts l in the place of the link of that version, whose owner it keeps, and announces it,
// in one step. It fails with link.ErrNotFound and link.ErrChanged, and as Create does.
func (s *Store) Update(ctx context.Context, code, was string, l link.Link) (link.State, error) {
	cmd := redis.NewStringCmd(ctx, "get", LinkKey(code))
	switch err := s.conn.Do(ctx, cmd); {
	case errors.Is(err, redis.Nil):
		return link.State{}, link.ErrNotFound
	case err != nil:
		return link.State{}, s.ops.update.Unavailable(s.conn.Reads, err)
	case version(cmd.Val()) != was:
		return link.State{}, link.ErrChanged
	}
	old, err := s.decode(code, cmd.Val())
	if err != nil {
		return link.State{}, err
	}
	l.Owner = old.Owner
	record, keys := encodeRecord(l), linkKeys(code)
	if s.outbox != nil {
		record, keys = encodeNumbered(l, numberOf(cmd.Val())+1), append(keys, passKey(code))
	}
	left, err := s.run(ctx, change, keys,
		cmd.Val(), record, old.Limit(), l.Limit(), s.forgetAt(l), code, ChangesChannel)
	if err != nil && !errors.Is(err, redis.Nil) {
		return link.State{}, s.ops.update.NotWritten(s.conn.Writes, err)
	}
	s.conn.Writes.Ended()
	if err != nil {
		return link.State{}, link.ErrChanged
	}
	if left == "-1" {
		return link.State{}, link.ErrNotFound
	}
	if s.outbox != nil { // also if this found its first try
		if err := s.Mark(ctx, []string{code}); err != nil {
			return link.State{}, err
		}
	}
	return s.state(code, record, left)
}
