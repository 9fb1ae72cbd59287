package redisstore

import (
	"context"
	"errors"
	"net"

	"github.com/redis/go-redis/v9"
)

// unknownMaster is a hook for a client of Sentinel. Asked for a master that it does
// not know, having been set up anew perhaps, Sentinel answers nil, and go-redis
// wraps that in the error of the connection. To whoever sent a command it would
// look like Redis's own nil: a link that is not there, a create that succeeded.
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
