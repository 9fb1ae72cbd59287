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

// masterName is what the Sentinels call the group of Redis that they watch.
const masterName = "snowlink"

// Sentinel is a group of Redis, one of them the master, and the Sentinels that
// make another the master when it is gone for two seconds.
type Sentinel struct {
	Redis     []*Redis   // the first one is the master at the start
	Sentinels []*Process // the smallest number that has a majority without one
	addrs     []string   // of the Sentinels
}

func (f *Fleet) newSentinel(root string, extra []string) (*Sentinel, error) {
	s := &Sentinel{}
	for i := range 3 {
		lines := slices.Concat([]string{
			// A master that no replica hears refuses writes: what it took would be
			// lost once another is made master.
			"min-replicas-to-write 1",
			// A new replica need not wait for others to share its copy [5].
			"repl-diskless-sync-delay 0",
			// It speaks from 127.0.0.1, and does not listen there.
			"replica-announce-ip " + f.host,
		}, extra)
		if i > 0 {
			host, port, err := net.SplitHostPort(s.Redis[0].Addr)
			if err != nil {
				return nil, err
			}
			lines = append(lines, "replicaof "+host+" "+port)
		}
		r, err := f.newRedis(root, fmt.Sprintf("redis%d", i+1), lines...)
		if err != nil {
			return nil, err
		}
		s.Redis = append(s.Redis, r)
	}
	master, masterPort, err := net.SplitHostPort(s.Redis[0].Addr)
	if err != nil {
		return nil, err
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
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		conf := filepath.Join(f.Dir, name+".conf") // Sentinel keeps its state in it
		lines := []string{
			"bind " + host,
			"port " + port,
			"dir " + f.Dir,
			"protected-mode no",
			"sentinel announce-ip " + f.host,
			"sentinel monitor " + masterName + " " + master + " " + masterPort + " 2",
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

// url is what a backend takes as REDIS_URL.
func (s *Sentinel) url() string {
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
	for _, p := range s.processes() {
		if err := p.Start(ctx); err != nil {
			return err
		}
	}
	return s.AwaitReplicas(ctx, len(s.Redis)-1)
}

func (s *Sentinel) stop(ctx context.Context) error {
	var errs []error
	for _, p := range slices.Backward(s.processes()) { // nobody is to be replaced now
		errs = append(errs, p.Stop(ctx))
	}
	return errors.Join(errs...)
}

// Master is the Redis that most Sentinels call the master.
func (s *Sentinel) Master(ctx context.Context) (*Redis, error) {
	votes := make(map[string]int)
	for _, addr := range s.addrs {
		if state, err := sentinelState(ctx, addr); err == nil {
			votes[net.JoinHostPort(state["ip"], state["port"])]++
		}
	}
	for _, r := range s.Redis {
		if 2*votes[r.Addr] > len(s.addrs) {
			return r, nil
		}
	}
	return nil, fmt.Errorf("the Sentinels do not agree on a master: %v", votes)
}

// AwaitReplicas returns once every Sentinel that runs sees all the others and at
// least n replicas that it could make the master.
func (s *Sentinel) AwaitReplicas(ctx context.Context, n int) error {
	for {
		err := s.haveReplicas(ctx, n)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the Sentinels are not ready: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *Sentinel) haveReplicas(ctx context.Context, n int) error {
	for i, addr := range s.addrs {
		if !s.Sentinels[i].Running() {
			continue
		}
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
		if len(others) < len(s.addrs)-1 || fit < n {
			return fmt.Errorf("%s sees %d Sentinels more and %d replicas", addr, len(others), fit)
		}
	}
	return nil
}

func sentinelState(ctx context.Context, addr string) (map[string]string, error) {
	client := redis.NewSentinelClient(&redis.Options{Addr: addr})
	defer client.Close()
	return client.Master(ctx, masterName).Result()
}
