package redisconn

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// Info is what Redis tells of itself. Of a Cluster, numbers are the sums over its masters.
type Info struct {
	Version       string // empty if Redis does not tell it, as some proxies do not
	Policy        string // maxmemory-policy
	Used, Max     uint64 // memory in bytes; Max is 0 for no bound
	Evicted       uint64 // keys, since it started
	Keys, Expires uint64 // how many there are, and how many of them have a time to live
	AppendOnly    bool   // Redis says that it writes an append-only file
	NoPersistence bool   // Redis says that it writes none
	Run           string // another one after each start and failover, of any master; or empty
}

// Info asks for INFO. Its error wraps [link.ErrUnavailable].
func (c *Conn) Info(ctx context.Context) (Info, error) {
	var total Info
	var runs []string
	add := func(ctx context.Context, client redis.Cmdable) error {
		text, err := client.Info(ctx).Result() // before 7.0 it takes no list of sections
		if err != nil {
			return c.ping.Unavailable(c.Reads, err)
		}
		c.Reads.Ended()
		one := parseInfo(text)
		total.Version, total.Policy = one.Version, one.Policy
		total.AppendOnly, total.NoPersistence = total.AppendOnly || one.AppendOnly, total.NoPersistence || one.NoPersistence
		total.Used, total.Max, total.Evicted = total.Used+one.Used, total.Max+one.Max, total.Evicted+one.Evicted
		total.Keys, total.Expires = total.Keys+one.Keys, total.Expires+one.Expires
		runs = append(runs, one.Run)
		return nil
	}
	var err error
	if cluster, ok := c.Client.(*redis.ClusterClient); ok {
		var mu sync.Mutex
		err = cluster.ForEachMaster(ctx, func(ctx context.Context, client *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			return add(ctx, client)
		})
	} else {
		err = add(ctx, c.Client)
	}
	slices.Sort(runs)
	total.Run = strings.Join(runs, " ")
	return total, err
}

func parseInfo(text string) Info {
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	number := func(name string) uint64 {
		n, _ := strconv.ParseUint(fields[name], 10, 64) // 0 if it is not told
		return n
	}
	var keys, expires uint64
	for name, value := range fields {
		var k, e uint64
		if _, err := fmt.Sscanf(value, "keys=%d,expires=%d", &k, &e); err == nil && strings.HasPrefix(name, "db") {
			keys, expires = keys+k, expires+e
		}
	}
	return Info{
		Version: fields["redis_version"], Policy: fields["maxmemory_policy"],
		Used: number("used_memory"), Max: number("maxmemory"), Evicted: number("evicted_keys"),
		Keys: keys, Expires: expires, Run: fields["run_id"],
		AppendOnly: fields["aof_enabled"] == "1", NoPersistence: fields["aof_enabled"] == "0",
	}
}
