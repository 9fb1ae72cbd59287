package redisstore

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/metrics"
)

func onceKey(key string) string { return "idem:" + key }

// Remember keeps value under key for ttl, unless there is one: then it returns
// that one, in one step, and otherwise "". An equal value that is there already is
// returned, too. It fails with link.ErrFull and link.ErrUnavailable.
//
// Redis may forget it before, under memory pressure, as it may forget links.
func (s *Store) Remember(ctx context.Context, key, value string, ttl time.Duration) (first string, err error) {
	cmd := redis.NewStringCmd(ctx, "set", onceKey(key), value, "nx", "get", "px", ttl.Milliseconds())
	err = s.do(ctx, cmd)
	if errors.Is(err, redis.Nil) {
		s.refused.ended()
		return "", nil
	}
	if err != nil {
		return "", s.notWritten(metrics.OpRemember, err)
	}
	s.refused.ended()
	return cmd.Val(), nil
}

// Recall returns what is remembered under key, or "". It fails with
// link.ErrUnavailable.
func (s *Store) Recall(ctx context.Context, key string) (value string, err error) {
	cmd := redis.NewStringCmd(ctx, "get", onceKey(key))
	if err := s.do(ctx, cmd); err != nil && !errors.Is(err, redis.Nil) {
		return "", s.unavailable(metrics.OpRemember, &s.outage, err)
	}
	return cmd.Val(), nil
}

// forget deletes the key if it holds ARGV[1].
var forget = newScript(`
if redis.call("GET", KEYS[1]) == ARGV[1] then
  redis.call("DEL", KEYS[1])
end
return 1`, true)

// Forget makes the key free again, unless another value is remembered under it by now.
// It fails with link.ErrUnavailable.
func (s *Store) Forget(ctx context.Context, key, value string) error {
	if _, err := s.run(ctx, forget, []any{onceKey(key)}, value); err != nil {
		return s.unavailable(metrics.OpRemember, &s.refused, err)
	}
	return nil
}
