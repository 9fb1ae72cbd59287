package redisstore

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// A script is what must happen to a link and its count of visits in one step. Its
// keys are those two, which Cluster has in one slot; it answers with a string,
// an integer or nil.
type script struct {
	source, sha string
	// evenIfFull says that it frees memory, or needs none: it runs when Redis is
	// full and takes nothing new.
	evenIfFull bool
}

func newScript(source string, evenIfFull bool) script {
	return script{source, redis.NewScript(source).Hash(), evenIfFull}
}

// call is EVALSHA or EVAL for the link under code.
func (script) call(ctx context.Context, command, script, code string, args []any) *redis.StringCmd {
	return redis.NewStringCmd(ctx, append([]any{command, script, 2, linkKey(code), visitsKey(code)}, args...)...)
}

// run runs a script with whatever else is waiting. The error is redis.Nil when it
// answers with nil.
func (s *Store) run(ctx context.Context, sc script, code string, args ...any) (string, error) {
	cmd := sc.call(ctx, "evalsha", sc.sha, code, args)
	err := s.do(ctx, cmd)
	if redis.HasErrorPrefix(err, "NOSCRIPT") { // the first time, and after a restart of Redis
		cmd = sc.call(ctx, "eval", sc.source, code, args)
		err = s.do(ctx, cmd)
	}
	if sc.evenIfFull && redis.IsOOMError(err) {
		// Not from the start, since the embedded Redis does not know of flags.
		cmd = sc.call(ctx, "eval", "#!lua flags=allow-oom\n"+sc.source, code, args)
		err = s.do(ctx, cmd)
	}
	if err != nil {
		return "", err
	}
	return cmd.Val(), nil
}
