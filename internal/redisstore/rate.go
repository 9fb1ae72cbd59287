package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
)

// TakeRequest takes one of the n requests that name may make in every per, at all backends
// together. After a rest these are n at once, and then one every per/n. It returns 0 if one was
// left, and otherwise how long to wait for the next one. It fails with link.ErrUnavailable if Redis
// does not answer.
//
// The count is one string under rate:<name>:<n>/<seconds>, which Redis forgets once name has
// rested. redis_rate keeps it, by the generic cell rate algorithm and Redis's own clock. A new rate
// begins a new count. With the old one, a name that had 10 requests an hour and is given 100 a
// second would first have to wait for an hour.
func (s *Store) TakeRequest(ctx context.Context, name string, n int, per time.Duration) (wait time.Duration, err error) {
	result, err := s.limiter.Allow(ctx, count(name, n, per), redis_rate.Limit{Rate: n, Burst: n, Period: per})
	if redis.IsOOMError(err) {
		// A full Redis cannot count. A request that writes is refused by its own write if links are
		// in the same Redis, and one that reads or makes room must not be locked out.
		s.ops.limit.Count()
		return 0, nil
	}
	if err != nil {
		return 0, s.ops.limit.Unavailable(s.conn.Writes, err)
	}
	if result.Allowed == 0 { // and nothing was written
		return max(result.RetryAfter, time.Nanosecond), nil
	}
	s.conn.Writes.Ended()
	return 0, nil
}

// GiveBack undoes a TakeRequest with the same arguments. It fails with link.ErrUnavailable.
func (s *Store) GiveBack(ctx context.Context, name string, n int, per time.Duration) error {
	_, err := s.limiter.AllowN(ctx, count(name, n, per), redis_rate.Limit{Rate: n, Burst: n, Period: per}, -1)
	if err != nil && !redis.IsOOMError(err) { // a full Redis counts nothing
		return s.ops.limit.Unavailable(s.conn.Writes, err)
	}
	return nil
}

// count names the count of a rate.
func count(name string, n int, per time.Duration) string {
	return fmt.Sprintf("%s:%d/%d", name, n, per/time.Second)
}

// pipedScripts runs redis_rate's script through the pipeline, so that it shares round trips and
// ends in time like any other operation.
type pipedScripts struct {
	redis.UniversalClient // redis_rate asks for all of it and calls only what is below
	store                 *Store
}

func (p pipedScripts) EvalSha(ctx context.Context, sha1 string, keys []string, args ...any) *redis.Cmd {
	return p.run(ctx, "evalsha", sha1, keys, args)
}

func (p pipedScripts) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	return p.run(ctx, "eval", script, keys, args)
}

func (p pipedScripts) run(ctx context.Context, name, script string, keys []string, args []any) *redis.Cmd {
	all := make([]any, 0, 3+len(keys)+len(args))
	all = append(all, name, script, len(keys))
	for _, key := range keys {
		all = append(all, key)
	}
	cmd := redis.NewCmd(ctx, append(all, args...)...)
	if err := p.store.conn.Do(ctx, cmd); err != nil {
		cmd = redis.NewCmd(ctx) // the first may still be under way
		cmd.SetErr(err)
	}
	return cmd
}
