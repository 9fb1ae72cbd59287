package redisstore

import (
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/snowflake"
)

// NewClient makes a client for REDIS_URL.
func NewClient(redisURL string) (redis.UniversalClient, error) { return newClient(redisURL, nil) }

// Meaning is what the log says of a Redis with a policy and a bound.
func Meaning(policy string, max uint64) string { return meaning(redisState{policy: policy, max: max}) }

// SetAhead lets the generators that are made from now on be ahead of the wall clock
// by d, as they are once that was set back under a running process.
func (l *Lease) SetAhead(d time.Duration) {
	newGenerator := l.newGenerator
	l.newGenerator = func(node int) (func() snowflake.ID, error) {
		next, err := newGenerator(node)
		return func() snowflake.ID { return next() + snowflake.ID(d.Milliseconds())<<22 }, err
	}
}
