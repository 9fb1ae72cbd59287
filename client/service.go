package client

import (
	"context"
	"net/url"
	"time"
)

// Key is what a key may do.
type Key struct {
	Name   string
	Scopes []string // of create, manage, read and admin
	// Rate is how often, such as "100/s"; empty for no limit. Only Service tells it.
	Rate string
}

// Key returns what the key of the client may do. Any key may ask.
func (c *Client) Key(ctx context.Context) (Key, error) {
	var key Key
	err := c.read(ctx, "/key", &key)
	return key, err
}

// IsFree reports whether a link could be made with the code now. It takes the scope create. Somebody
// else may take the code before you do. If no link may choose it, the Code of the error is
// "invalid_code".
func (c *Client) IsFree(ctx context.Context, code string) (bool, error) {
	var answer struct{ Free bool }
	err := c.read(ctx, "/codes/"+url.PathEscape(code), &answer)
	return answer.Free, err
}

// Service is how a service is, as the backend sees it that was asked. A part with an Error has no
// numbers.
type Service struct {
	// Status is "ok", "degraded" if the operator should attend to something, or "unavailable" if the
	// backend cannot serve every path. Reasons say why, in words for people.
	Status  string
	Reasons []string
	Version string
	Redis   []Redis
	Archive *Archive      // nil without an archive
	Clicks  *ClicksWorker // nil if the service counts none
	// Backends are the processes that hold a node ID.
	Backends struct {
		Error string
		List  []Backend
	}
	Keys []Key
}

// Redis is a Redis of the service.
type Redis struct {
	Name       string // links, or state for what is no link
	Error      string
	Version    string
	Policy     string `json:"maxmemory_policy"`
	Used       uint64 `json:"used_bytes"`
	Max        uint64 `json:"max_bytes"` // 0 for no bound
	Evicted    uint64 `json:"evicted_keys"`
	Keys       uint64
	WithoutTTL uint64 `json:"keys_without_ttl"`
}

// Archive is the archive of a service, and what waits for it.
type Archive struct {
	Error      string
	Pending    int64   `json:"pending_marks"`
	LagSeconds float64 `json:"lag_seconds"`
	Moving     bool    // links are being moved to a new shard
	Shards     []struct {
		Shard   int
		Address string
		Error   string
		Rows    int64 `json:"rows_estimate"`
		Bytes   int64
	}
}

// ClicksWorker is the counting of clicks. Recorded, Dropped and Applied are of the backend that was
// asked, since it started.
type ClicksWorker struct {
	Error                      string
	Queue                      string  // redis or kafka
	Waiting                    int64   `json:"waiting_batches"`
	LagSeconds                 float64 `json:"lag_seconds"`
	Recorded, Dropped, Applied int64
}

// Backend is a process that holds a node ID.
type Backend struct {
	Node  int
	Host  string
	PID   int
	Since time.Time
	This  bool // it was asked
}

// Service returns how the service is. It takes the scope admin.
func (c *Client) Service(ctx context.Context) (Service, error) {
	var s Service
	err := c.read(ctx, "/service", &s)
	return s, err
}

// You is how a service sees a request.
type You struct {
	Address, Country string // empty if they are not known
	Scheme, Host     string
	Headers          []struct{ Name, Value string } // but those with a key or a session
}

// You returns how the service sees this client, to find what a proxy in front does wrong. It takes the
// scope admin.
func (c *Client) You(ctx context.Context) (You, error) {
	var you You
	err := c.read(ctx, "/service/you", &you)
	return you, err
}
