package redisconn

import (
	"context"
	"errors"
	"net"

	"github.com/redis/go-redis/v9"
)

// unknownMaster is a hook for a client of Sentinel. Sentinel answers nil when it is asked for a
// master that it does not know, perhaps since it was set up anew. go-redis wraps that nil in the
// error of the connection. To whoever sent a command it would look like Redis's own nil: a link
// that is not there, or a create that succeeded.
type unknownMaster struct{}

var errUnknownMaster = errors.New("no Sentinel knows of the master: see master_name in REDIS_URL")

func (unknownMaster) DialHook(dial redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if errors.Is(err, redis.Nil) {
			err = errUnknownMaster
		}
		return conn, err
	}
}

func (unknownMaster) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (unknownMaster) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
