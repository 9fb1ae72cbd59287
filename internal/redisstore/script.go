package redisstore

import (
	"context"
	"slices"

	"github.com/redis/go-redis/v9"
)

// A script does in one step what must not be done in two. It has one key, or those of a link, which
// a Cluster has in one slot. It answers with a string, an integer or nil.
type script struct {
	source, sha string
	// evenIfFull says that the script frees memory, or needs none, and so runs even if Redis is
	// full.
	evenIfFull bool
}

func newScript(source string, evenIfFull bool) script {
	return script{source, redis.NewScript(source).Hash(), evenIfFull}
}

// linkKeys are the keys of a script about a link: the link's own and that of its count of visits.
func linkKeys(code string) []any { return []any{LinkKey(code), visitsKey(code)} }

// call makes the command that runs a script: EVALSHA with its hash, or EVAL with its source.
func (script) call(ctx context.Context, command, script string, keys, args []any) *redis.StringCmd {
	return redis.NewStringCmd(ctx, slices.Concat([]any{command, script, len(keys)}, keys, args)...)
}

// run runs a script, in a round trip with whatever else is waiting. The error is redis.Nil if the
// script answers with nil.
func (s *Store) run(ctx context.Context, sc script, keys []any, args ...any) (string, error) {
	cmd := sc.call(ctx, "evalsha", sc.sha, keys, args)
	err := s.conn.Do(ctx, cmd)
	if redis.HasErrorPrefix(err, "NOSCRIPT") { // the first time, and after a restart of Redis
		cmd = sc.call(ctx, "eval", sc.source, keys, args)
		err = s.conn.Do(ctx, cmd)
	}
	if sc.evenIfFull && redis.IsOOMError(err) {
		// The flag is not set from the start, since the embedded Redis does not know it.
		cmd = sc.call(ctx, "eval", "#!lua flags=allow-oom\n"+sc.source, keys, args)
		err = s.conn.Do(ctx, cmd)
	}
	if err != nil {
		return "", err
	}
	return cmd.Val(), nil
}
