package redisstore

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// promiseKey keeps the name that it had in the first release.
func promiseKey(key string) string { return "idem:" + key }

// Promise keeps the value under the key for ttl and returns "", or returns the value that is there
// already, be it an equal one. It does so in one step. It fails with link.ErrFull and
// link.ErrUnavailable.
//
// A full Redis may evict a promise before its time, as it may evict links.
func (s *Store) Promise(ctx context.Context, key, value string, ttl time.Duration) (before string, err error) {
	cmd := redis.NewStringCmd(ctx, "set", promiseKey(key), value, "nx", "get", "px", ttl.Milliseconds())
	err = s.conn.Do(ctx, cmd)
	if errors.Is(err, redis.Nil) {
		s.conn.Writes.Ended()
		return "", nil
	}
	if err != nil {
		return "", s.ops.promise.NotWritten(s.conn.Writes, err)
	}
	s.conn.Writes.Ended()
	return cmd.Val(), nil
}

// Promised returns the value that is promised under the key, or "" if there is none. It fails with
// link.ErrUnavailable.
func (s *Store) Promised(ctx context.Context, key string) (value string, err error) {
	cmd := redis.NewStringCmd(ctx, "get", promiseKey(key))
	if err := s.conn.Do(ctx, cmd); errors.Is(err, redis.Nil) {
		return "", nil
	} else if err != nil {
		return "", s.ops.promise.Unavailable(s.conn.Reads, err)
	}
	return cmd.Val(), nil
}

// retract deletes the key if it holds ARGV[1].
var retract = newScript(`
if redis.call("GET", KEYS[1]) == ARGV[1] then
  redis.call("DEL", KEYS[1])
end
return 1`, true)

// Retract makes the key free again if the value is promised under it. It leaves another value
// alone. It fails with link.ErrUnavailable.
func (s *Store) Retract(ctx context.Context, key, value string) error {
	if _, err := s.run(ctx, retract, []any{promiseKey(key)}, value); err != nil {
		return s.ops.promise.Unavailable(s.conn.Writes, err)
	}
	return nil
}
