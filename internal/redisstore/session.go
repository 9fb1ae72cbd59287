package redisstore

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// sessionsKey is the hash of all sessions of the dashboard, by ID. It has no time to live: volatile-lru
// never evicts it, and nobody is signed out because links fill Redis. Package dashboard deletes the
// sessions that ran out.
const sessionsKey = "sessions"

// inviteKey is the key of a promise to sign somebody in once.
func inviteKey(id string) string { return "invite:" + id }

// setSession sets the field ARGV[1] to ARGV[2].
var setSession = newScript(`return redis.call("HSET", KEYS[1], ARGV[1], ARGV[2])`, true)

// SetSession keeps the text of a session under its ID, until DeleteSessions. It does so in a full Redis,
// too: somebody may sign in to make room. So the caller bounds how many there are. It fails with
// link.ErrUnavailable.
func (s *Store) SetSession(ctx context.Context, id, text string) error {
	if _, err := s.run(ctx, setSession, []any{sessionsKey}, id, text); err != nil {
		return s.ops.session.Unavailable(s.conn.Writes, err)
	}
	s.conn.Writes.Ended()
	return nil
}

// Session returns the text of a session, or "" if there is none. It fails with link.ErrUnavailable.
func (s *Store) Session(ctx context.Context, id string) (text string, err error) {
	cmd := redis.NewStringCmd(ctx, "hget", sessionsKey, id)
	if err := s.conn.Do(ctx, cmd); errors.Is(err, redis.Nil) {
		return "", nil
	} else if err != nil {
		return "", s.ops.session.Unavailable(s.conn.Reads, err)
	}
	s.conn.Reads.Ended()
	return cmd.Val(), nil
}

// Sessions returns the texts of all sessions by their IDs. It fails with link.ErrUnavailable.
func (s *Store) Sessions(ctx context.Context) (map[string]string, error) {
	cmd := redis.NewMapStringStringCmd(ctx, "hgetall", sessionsKey)
	if err := s.conn.DoAside(ctx, cmd); err != nil {
		return nil, s.ops.session.Unavailable(s.conn.Reads, err)
	}
	s.conn.Reads.Ended()
	return cmd.Val(), nil
}

// DeleteSessions deletes sessions. Those that are not there do no harm. It fails with
// link.ErrUnavailable, and not because Redis is full.
func (s *Store) DeleteSessions(ctx context.Context, ids ...string) error {
	if len(ids) == 0 {
		return nil
	}
	args := []any{"hdel", sessionsKey}
	for _, id := range ids {
		args = append(args, id)
	}
	if err := s.conn.Do(ctx, redis.NewIntCmd(ctx, args...)); err != nil {
		return s.ops.session.Unavailable(s.conn.Writes, err)
	}
	s.conn.Writes.Ended()
	return nil
}

// Invite keeps the text under an ID for ttl, for the first who asks. It fails with link.ErrFull and
// link.ErrUnavailable. A full Redis may forget it before.
func (s *Store) Invite(ctx context.Context, id, text string, ttl time.Duration) error {
	if err := s.conn.Do(ctx, redis.NewStatusCmd(ctx, "set", inviteKey(id), text, "px", ttl.Milliseconds())); err != nil {
		return s.ops.session.NotWritten(s.conn.Writes, err)
	}
	s.conn.Writes.Ended()
	return nil
}

// Invited returns what Invite keeps under the ID, and forgets it: of several that ask, one gets it.
// The text is "" if there is none. It fails with link.ErrUnavailable.
func (s *Store) Invited(ctx context.Context, id string) (text string, err error) {
	cmd := redis.NewStringCmd(ctx, "getdel", inviteKey(id))
	if err := s.conn.Do(ctx, cmd); errors.Is(err, redis.Nil) {
		return "", nil
	} else if err != nil {
		return "", s.ops.session.Unavailable(s.conn.Writes, err)
	}
	s.conn.Writes.Ended()
	return cmd.Val(), nil
}
