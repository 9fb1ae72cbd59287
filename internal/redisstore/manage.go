package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/link"
)

// visit takes one of the visits that are left, if any are, and answers with the
// record, after a 1 if it took one. A count that was lost is not begun anew.
var visit = newScript(`
local record = redis.call("GET", KEYS[1])
if not record then
  return nil
elseif tonumber(redis.call("GET", KEYS[2]) or 0) < 1 then
  return "0" .. record
end
redis.call("DECR", KEYS[2])
return "1" .. record`, true)

// change puts the record ARGV[2] in the place of ARGV[1] and answers with the visits
// that are left, 0 without a limit, or with nil when ARGV[1] is not what is there; when
// ARGV[2] is there already, its first try was not heard of. ARGV[3] and [4] are the limits of visits before and after, [5] is when
// to forget the link, [6] and [7] are the code and where to announce it.
//
// The count may be lost, to eviction: then only another limit begins a new one.
// Whoever may not publish may not subscribe either, which others complain about.
var change = newScript(`
local record = redis.call("GET", KEYS[1])
local left = tonumber(redis.call("GET", KEYS[2]) or nil)
if left and left < 0 then -- of several at once, each for the last visit
  left = 0
end
if record == ARGV[2] and record ~= ARGV[1] then
  return left or 0
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

// Read returns the link under code as it is now. It fails as Get does. Where Redis
// is new enough, the link does not look used for it: see Store.aside.
func (s *Store) Read(ctx context.Context, code string) (link.State, error) {
	cmd := redis.NewSliceCmd(ctx, "mget", linkKey(code), visitsKey(code))
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

// state is what a record and its count of visits, "" if there is none, say of the link
// under code.
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

// Visit takes a visit of a link with a limit. It fails as Get does, and with
// link.ErrGone. One that fails otherwise may have been taken, and taken twice: a
// visit may be lost, but there is never one too many.
//
// Of a link without a limit it may take one that was left over by the link before,
// which nobody reads.
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

// Update puts l in the place of the link of that version and announces it, in one
// step. It fails with link.ErrNotFound, link.ErrChanged and as Create does.
func (s *Store) Update(ctx context.Context, code, was string, l link.Link) (link.State, error) {
	cmd := redis.NewStringCmd(ctx, "get", linkKey(code))
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
	record := encodeRecord(l)
	left, err := s.run(ctx, change, linkKeys(code),
		cmd.Val(), record, old.Limit(), l.Limit(), forgetAt(l), code, changesChannel)
	if err != nil && !errors.Is(err, redis.Nil) {
		return link.State{}, s.ops.update.NotWritten(s.conn.Writes, err)
	}
	s.conn.Writes.Ended()
	if err != nil {
		return link.State{}, link.ErrChanged
	}
	return s.state(code, record, left)
}

// decode reads the record of a link that was found. It fails with link.ErrUnreadable:
// a link whose options nobody can read is not followed.
func (s *Store) decode(code, record string) (link.Link, error) {
	l, err := decodeRecord(record)
	if err != nil {
		err = fmt.Errorf("%s: %w: %w", linkKey(code), link.ErrUnreadable, err)
		s.unreadable.Observed(err)
		return link.Link{}, err
	}
	return l, nil
}
