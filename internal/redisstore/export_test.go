package redisstore

import "snowlink/internal/redisconn"

// Meaning is what the log says of a Redis with a policy and a bound.
func Meaning(policy string, max uint64, archived bool) string {
	return meaning(redisconn.Info{Policy: policy, Max: max}, archived)
}
