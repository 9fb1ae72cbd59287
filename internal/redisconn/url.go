package redisconn

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Limits on a connection, used where REDIS_URL does not set its own.
const (
	dialTimeout = 250 * time.Millisecond
	ioTimeout   = 500 * time.Millisecond
	poolTimeout = 500 * time.Millisecond
	maxRetries  = 1
)

// newClient reads the three forms of REDIS_URL: one address; several, separated by commas, for
// Cluster; ?master_name= for Sentinel. With Sentinel, addresses and credentials are those of the
// Sentinels, and ?username= and ?password= are for Redis. The query stands behind the last address;
// its other parameters are go-redis's own (read_timeout, pool_size, …). Each new connection is
// first given to prepare, unless that is nil.
func newClient(redisURL string, prepare func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
	addrs, query, _ := strings.Cut(redisURL, "?")
	first, rest := cutAddress(addrs)
	if query != "" {
		first += "?" + query
	}
	u, err := url.Parse(first)
	if err != nil {
		return nil, errors.New("it is not a URL") // err repeats the URL, password and all
	}
	q := u.Query()
	for name, limit := range map[string]time.Duration{
		"dial_timeout": dialTimeout, "read_timeout": ioTimeout, "write_timeout": ioTimeout, "pool_timeout": poolTimeout,
	} {
		if !q.Has(name) {
			q.Set(name, limit.String())
		}
	}
	if !q.Has("max_retries") {
		q.Set("max_retries", fmt.Sprint(maxRetries))
	}
	for rest != "" {
		var addr string
		addr, rest = cutAddress(rest)
		if addr = strings.TrimSpace(addr); addr == "" {
			continue
		}
		if _, host, ok := strings.Cut(addr, "://"); ok {
			addr = host
		}
		q.Add("addr", addr[strings.LastIndex(addr, "@")+1:]) // the credentials of the first are everyone's
	}
	u.RawQuery = q.Encode()

	switch {
	case q.Has("master_name"):
		options, err := redis.ParseFailoverURL(u.String())
		if err != nil {
			return nil, redacted(err)
		}
		options.DialerRetries, options.OnConnect = 1, prepare
		client := redis.NewFailoverClient(options)
		client.AddHook(unknownMaster{})
		return client, nil
	case q.Has("addr"):
		options, err := redis.ParseClusterURL(u.String())
		if err != nil {
			return nil, redacted(err)
		}
		options.DialerRetries, options.OnConnect = 1, prepare
		return redis.NewClusterClient(options), nil
	default:
		options, err := redis.ParseURL(u.String())
		if err != nil {
			return nil, redacted(err)
		}
		options.DialerRetries, options.OnConnect = 1, prepare
		return redis.NewClient(options), nil
	}
}

// cutAddress cuts the first of several addresses off. A comma in its user name or password, and so
// before its @, separates nothing.
func cutAddress(addrs string) (first, rest string) {
	from := 0
	if scheme, tail, ok := strings.Cut(addrs, "://"); ok && !strings.Contains(scheme, ",") {
		tail, _, _ = strings.Cut(tail, "://") // the @ of the next address is not that of the first
		from = len(scheme) + len("://") + max(0, strings.IndexByte(tail, '@'))
	}
	before, rest, _ := strings.Cut(addrs[from:], ",")
	return addrs[:from] + before, rest
}

// redacted drops the URL that net/url quotes in its errors.
func redacted(err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		return ue.Err
	}
	return err
}
