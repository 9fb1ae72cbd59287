// Package embedded is a Redis in the process, for those who have none: it lets them try Snowlink
// with one command.
//
// It holds one decision: it speaks the real protocol on a loopback port. So the store above it is
// the same code as in production and knows nothing of this package. It keeps nothing: links die
// with the process.
package embedded

import (
	"fmt"

	"github.com/alicebob/miniredis/v2"
)

// Redis is a running in-process server.
type Redis struct{ server *miniredis.Miniredis }

// Start listens on a free port of 127.0.0.1.
func Start() (*Redis, error) {
	server, err := miniredis.Run()
	if err != nil {
		return nil, fmt.Errorf("start the embedded Redis: %w", err)
	}
	server.ClockTTL(true) // keys expire by the clock, as in Redis
	return &Redis{server: server}, nil
}

// URL returns what would be in REDIS_URL. Its time-out is long: a time-out means that Redis is
// away, and this one is merely slow if the machine is.
func (r *Redis) URL() string { return "redis://" + r.server.Addr() + "?read_timeout=10s" }

// Close stops the server. Every link it held is gone.
func (r *Redis) Close() { r.server.Close() }
