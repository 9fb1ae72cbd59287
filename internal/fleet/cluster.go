package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// A Cluster is the redis-servers of a fleet's Redis Cluster. It is empty in a fleet with one Redis.
// The first three are masters, the others their replicas.
type Cluster []*Redis

// URL is the REDIS_URL of the Cluster: every address.
func (c Cluster) URL() string { return "redis://" + strings.Join(c.addrs(), ",") }

func (c Cluster) addrs() []string {
	var addrs []string
	for _, r := range c {
		addrs = append(addrs, r.Addr)
	}
	return addrs
}

const (
	clusterMasters = 3 // fewer cannot agree on which of them are down
	clusterNodes   = 2 * clusterMasters
	clusterSlots   = 16384
)

func (f *Fleet) newCluster(root string, extra []string) error {
	for i := range clusterNodes {
		bus, err := f.freeAddr()
		if err != nil {
			return err
		}
		_, port, err := net.SplitHostPort(bus)
		if err != nil {
			return err
		}
		r, err := f.newRedis(root, fmt.Sprintf("redis%d", i+1), append([]string{
			"cluster-enabled yes",
			"cluster-port " + port, // the default, 10,000 above the port, may be taken or no port at all
			// Otherwise they take each other's address from connections, which come from 127.0.0.1.
			"cluster-announce-ip " + f.host,
			"repl-diskless-sync-delay 0", // do not wait for more replicas before the copy [5]
		}, extra...)...)
		if err != nil {
			return err
		}
		r.bus = port
		f.Cluster = append(f.Cluster, r)
	}
	return nil
}

// start starts the servers, joins them to a Cluster, and returns when all of them know of it and
// every replica has its master's data. redis-cli --cluster create would do the same, but does not
// know of cluster-port.
func (c Cluster) start(ctx context.Context) error {
	var clients []*redis.Client
	for i, r := range c {
		if err := r.Start(ctx); err != nil {
			return err
		}
		client := r.Client()
		defer client.Close()
		clients = append(clients, client)

		host, port, err := net.SplitHostPort(r.Addr)
		if err != nil {
			return err
		}
		if err := clients[0].Do(ctx, "cluster", "meet", host, port, r.bus).Err(); err != nil {
			return fmt.Errorf("%s: CLUSTER MEET: %w", r.name, err)
		}
		if i < clusterMasters {
			from, to := i*clusterSlots/clusterMasters, (i+1)*clusterSlots/clusterMasters-1
			if err := client.ClusterAddSlotsRange(ctx, from, to).Err(); err != nil {
				return fmt.Errorf("%s: CLUSTER ADDSLOTSRANGE: %w", r.name, err)
			}
		}
	}
	for i, r := range c {
		if err := r.await(ctx, clients[i], "cluster_known_nodes:"+strconv.Itoa(clusterNodes)); err != nil {
			return err
		}
		if i < clusterMasters {
			continue
		}
		master, err := clients[i-clusterMasters].ClusterMyID(ctx).Result()
		if err == nil {
			err = clients[i].ClusterReplicate(ctx, master).Err()
		}
		if err != nil {
			return fmt.Errorf("%s: CLUSTER REPLICATE: %w", r.name, err)
		}
	}
	for i, r := range c {
		part := "connected_slaves:1"
		if i >= clusterMasters {
			part = "master_link_status:up"
		}
		if err := r.await(ctx, clients[i], "cluster_state:ok", part); err != nil {
			return err
		}
	}
	return nil
}

// await waits until the server's CLUSTER INFO and INFO have all of these lines.
func (r *Redis) await(ctx context.Context, client *redis.Client, all ...string) error {
	for {
		cluster, err1 := client.ClusterInfo(ctx).Result()
		replication, err2 := client.Info(ctx, "replication").Result()
		said := cluster + replication
		if !slices.ContainsFunc(all, func(s string) bool { return !strings.Contains(said, s+"\r\n") }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: never %q: %w\n%s", r.name, all, errors.Join(ctx.Err(), err1, err2), said)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
