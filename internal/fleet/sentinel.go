package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// masterName is the Sentinels' name for the group of Redis that they watch.
const masterName = "snowlink"

// Sentinel is a group of Redis, one of them the master, and the Sentinels that promote a replica
// when the master has been away for two seconds.
type Sentinel struct {
	Redis     []*Redis   // the first one is the master at first
	Sentinels []*Process // three: the fewest that still have a majority when one is down
	addrs     []string   // of the Sentinels
}

func (f *Fleet) newSentinel(root string, extra []string) (*Sentinel, error) {
	s := &Sentinel{}
	for i := range 3 {
		lines := slices.Concat([]string{
			// A master without a replica refuses writes: they would be lost when a replica is
			// promoted.
			"min-replicas-to-write 1",
			// Do not wait for more replicas before the copy [5].
			"repl-diskless-sync-delay 0",
			// It connects from 127.0.0.1, where it does not listen.
			"replica-announce-ip " + f.host,
		}, extra)
		if i > 0 {
			lines = append(lines, "replicaof "+f.host+" "+port(s.Redis[0].Addr))
		}
		r, err := f.newRedis(root, fmt.Sprintf("redis%d", i+1), lines...)
		if err != nil {
			return nil, err
		}
		s.Redis = append(s.Redis, r)
	}
	program, err := LookPath("redis-server")
	if err != nil {
		return nil, err
	}
	for i := range 3 {
		name := fmt.Sprintf("sentinel%d", i+1)
		addr, err := f.freeAddr()
		if err != nil {
			return nil, err
		}
		conf := filepath.Join(f.Dir, name+".conf") // Sentinel keeps its state in it
		lines := []string{
			"bind " + f.host,
			"port " + port(addr),
			"dir " + f.Dir,
			"protected-mode no",
			"sentinel announce-ip " + f.host,
			"sentinel monitor " + masterName + " " + f.host + " " + port(s.Redis[0].Addr) + " 2",
			"sentinel down-after-milliseconds " + masterName + " 2000", // [30000]
			"sentinel failover-timeout " + masterName + " 10000",       // [180000]
		}
		if err := os.WriteFile(conf, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			return nil, err
		}
		s.addrs = append(s.addrs, addr)
		s.Sentinels = append(s.Sentinels, &Process{
			name: name, dir: f.Dir, orphaned: syscall.SIGKILL,
			args:  []string{program, conf, "--sentinel"},
			ready: (&Redis{Addr: addr}).ping,
		})
	}
	return s, nil
}

// URL is what a backend takes as REDIS_URL.
func (s *Sentinel) URL() string {
	return "redis://" + strings.Join(s.addrs, ",") + "?master_name=" + masterName
}

func (s *Sentinel) processes() []*Process {
	var all []*Process
	for _, r := range s.Redis {
		all = append(all, &r.Process)
	}
	return append(all, s.Sentinels...)
}

// start returns when the Sentinels know each other and could replace the master.
func (s *Sentinel) start(ctx context.Context) error {
	for i, r := range s.Redis {
		if err := r.Start(ctx); err != nil {
			return err
		}
		if i == 0 {
			continue
		}
		// A Sentinel looks for new replicas only every 10 s: all should be there when it first
		// does.
		if err := await(ctx, func() error { return r.replicates(ctx) }); err != nil {
			return fmt.Errorf("%s is not a replica: %w", r.name, err)
		}
	}
	for _, p := range s.Sentinels {
		if err := p.Start(ctx); err != nil {
			return err
		}
	}
	if err := await(ctx, func() error { return s.complete(ctx) }); err != nil {
		return fmt.Errorf("the Sentinels are not ready: %w", err)
	}
	return nil
}

// replicates succeeds once r is a replica and up to date.
func (r *Redis) replicates(ctx context.Context) error {
	db := r.Client()
	defer db.Close()
	role, err := db.Do(ctx, "role").Slice() // slave, host, port, state, offset
	if err == nil && (len(role) < 4 || role[3] != "connected") {
		err = fmt.Errorf("it says %v", role)
	}
	return err
}

// await polls until is succeeds or ctx ends; then it returns the last error.
func await(ctx context.Context, is func() error) error {
	for {
		err := is()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (s *Sentinel) stop(ctx context.Context) error {
	var errs []error
	for _, p := range slices.Backward(s.processes()) { // the Sentinels first: they shall promote no replica now
		errs = append(errs, p.Stop(ctx))
	}
	return errors.Join(errs...)
}

// Master is the Redis that most Sentinels call the master.
func (s *Sentinel) Master(ctx context.Context) (*Redis, error) {
	votes := s.votes(ctx)
	for _, r := range s.Redis {
		if 2*votes[r.Addr] > len(s.addrs) {
			return r, nil
		}
	}
	return nil, fmt.Errorf("the Sentinels do not agree on a master: %v", votes)
}

// Failover makes a replica the master and the master a replica, as an operator should, and returns
// when every Sentinel says so. The master is paused first (CLIENT PAUSE). Sentinel alone leaves it
// working for the second or more until everyone has heard of the new one: what the old master
// acknowledges in that time is lost, and links that only the new one has are missing there.
func (s *Sentinel) Failover(ctx context.Context) error {
	master, err := s.Master(ctx)
	if err != nil {
		return err
	}
	db := master.Client()
	defer db.Close()
	if err := db.Do(ctx, "client", "pause", 10_000).Err(); err != nil { // milliseconds
		return err
	}
	sentinel := redis.NewSentinelClient(&redis.Options{Addr: s.addrs[0]})
	defer sentinel.Close()
	if err := sentinel.Failover(ctx, masterName).Err(); err != nil {
		return err
	}
	return await(ctx, func() error {
		if votes := s.votes(ctx); votes[master.Addr] > 0 {
			return fmt.Errorf("%s is still the master: %v", master.Addr, votes)
		}
		return nil
	})
}

// complete succeeds once every Sentinel sees all the others and every replica.
func (s *Sentinel) complete(ctx context.Context) error {
	for _, addr := range s.addrs {
		client := redis.NewSentinelClient(&redis.Options{Addr: addr})
		defer client.Close()
		if err := client.CkQuorum(ctx, masterName).Err(); err != nil {
			return err
		}
		others, err := client.Sentinels(ctx, masterName).Result()
		if err != nil {
			return err
		}
		replicas, err := client.Replicas(ctx, masterName).Result()
		if err != nil {
			return err
		}
		fit := 0
		for _, r := range replicas {
			if r["flags"] == "slave" && r["master-link-status"] == "ok" {
				fit++
			}
		}
		if len(others) < len(s.addrs)-1 || fit < len(s.Redis)-1 {
			return fmt.Errorf("%s sees %d Sentinels more and %d replicas", addr, len(others), fit)
		}
	}
	return nil
}

// votes counts, by address, how many of the running Sentinels call a Redis the master.
func (s *Sentinel) votes(ctx context.Context) map[string]int {
	votes := make(map[string]int)
	for i, addr := range s.addrs {
		if !s.Sentinels[i].Running() {
			continue
		}
		client := redis.NewSentinelClient(&redis.Options{Addr: addr})
		if master, err := client.GetMasterAddrByName(ctx, masterName).Result(); err == nil {
			votes[net.JoinHostPort(master[0], master[1])]++
		}
		client.Close()
	}
	return votes
}
