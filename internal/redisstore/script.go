package redisstore

import (
	"context"
	"slices"

	"github.com/redis/go-redis/v9"
)

// A script is what must happen in one step. Its keys are one, or a link's, which
// Cluster has in one slot; it answers with a string, an integer or nil.
type script struct {
	source, sha string
	// evenIfFull says that it frees memory, or needs none: it runs when Redis is
	// full and takes nothing new.
	evenIfFull bool
}

func newScript(source string, evenIfFull bool) script {
	return script{source, redis.NewScript(source).Hash(), evenIfFull}
}

// linkKeys are the keys of a script about a link: its own and that of its count of
// visits.
func linkKeys(code string) []any { return []any{linkKey(code), visitsKey(code)} }

// call is EVALSHA or EVAL.
func (script) call(ctx context.Context, command, script string, keys, args []any) *redis.StringCmd {
	return redis.NewStringCmd(ctx, slices.Concat([]any{command, script, len(keys)}, keys, args)...)
}

// run runs a script with whatever else is waiting. The error is redis.Nil when it
// answers with nil.
func (s *Store) run(ctx context.Context, sc script, keys []any, args ...any) (string, error) {
	cmd := sc.call(ctx, "evalsha", sc.sha, keys, args)
	err := s.conn.Do(ctx, cmd)
	if redis.HasErrorPrefix(err, "NOSCRIPT") { // the first time, and after a restart of Redis
		cmd = sc.call(ctx, "eval", sc.source, keys, args)
		err = s.conn.Do(ctx, cmd)
	}
	if sc.evenIfFull && redis.IsOOMError(err) {
		// Not from the start, since the embedded Redis does not know of flags.
		cmd = sc.call(ctx, "eval", "#!lua flags=allow-oom\n"+sc.source, keys, args)
		err = s.conn.Do(ctx, cmd)
	}
	if err != nil {
		return "", err
	}
	return cmd.Val(), nil
}
