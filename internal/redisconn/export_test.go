package redisconn

import "github.com/redis/go-redis/v9"

// NewClient makes a client for REDIS_URL.
func NewClient(redisURL string) (redis.UniversalClient, error) { return newClient(redisURL, nil) }
