package redisstore_test

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
)

// Two backends have many requests at once. Together they let through exactly as many as the rate
// says, over one Redis and over a Cluster.
func TestTakeIsExactOverAllBackends(t *testing.T) {
	for name, start := range map[string]func(*testing.T) (url string, client redis.UniversalClient){
		"redis-server": func(t *testing.T) (string, redis.UniversalClient) {
			r := fleettest.Redis(t)
			return "redis://" + r.Addr, fleettest.RedisClient(t, r.Addr)
		},
		"Cluster": func(t *testing.T) (string, redis.UniversalClient) {
			// The Cluster is one node, which has all slots. By default the port of its bus is
			// 10,000 above its own, which is mostly no port at all.
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			_, bus, err := net.SplitHostPort(l.Addr().String())
			if err := errors.Join(err, l.Close()); err != nil {
				t.Fatal(err)
			}
			r := fleettest.Redis(t, "cluster-enabled yes", "cluster-port "+bus)
			client := fleettest.RedisClient(t, r.Addr)
			host, _, err := net.SplitHostPort(r.Addr) // alone it does not learn its address
			err = errors.Join(err, client.ConfigSet(t.Context(), "cluster-announce-ip", host).Err(),
				client.ClusterAddSlotsRange(t.Context(), 0, 16383).Err())
			if err != nil {
				t.Fatal(err)
			}
			fleettest.Eventually(t, 20*time.Second, "the Cluster is up", func() bool { return client.Set(t.Context(), "a", "", 0).Err() == nil })
			return "redis://" + r.Addr + "," + r.Addr, client
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n, per, each = 100, time.Hour, 150
			url, client := start(t)
			log := quiet
			backends := []testStore{open(t, url, log), open(t, url, log)}
			var taken atomic.Int64
			var wg sync.WaitGroup
			for i := range 2 * each {
				wg.Go(func() {
					wait, err := backends[i%2].TakeRequest(t.Context(), "shop", n, per)
					if err != nil {
						t.Error(err)
					} else if wait == 0 {
						taken.Add(1)
					} else if wait > per/n {
						t.Errorf("wait = %s, want %s at most", wait, per/n)
					}
				})
			}
			wg.Wait()
			if taken.Load() != n {
				t.Errorf("%d were taken of %d", taken.Load(), n)
			}

			// Each name has its own count, and a Redis that forgot the script has it again.
			if err := client.ScriptFlush(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]bool{"shop": false, "other": true} {
				if wait, err := backends[0].TakeRequest(t.Context(), name, n, per); err != nil || (wait == 0) != want {
					t.Errorf("TakeRequest %s = %s, %v", name, wait, err)
				}
			}
			if wait, err := backends[0].TakeRequest(t.Context(), "shop", 1, time.Second); err != nil || wait > 0 {
				t.Errorf("TakeRequest with another rate than before = %s, %v, want a count of its own", wait, err)
			}
			if ttl := client.TTL(t.Context(), "rate:shop:100/3600").Val(); ttl <= 0 || ttl > per {
				t.Errorf("the count of a name stays for %s, want %s at most", ttl, per)
			}
		})
	}
}

func TestTakeWithoutRedisIsUnavailable(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	store := open(t, "redis://"+r.Addr, quiet)
	if _, err := store.TakeRequest(t.Context(), "shop", 1, time.Second); err != nil {
		t.Fatal(err)
	}
	r.Pause()
	started := time.Now()
	_, err := store.TakeRequest(t.Context(), "shop", 1, time.Second)
	if took := time.Since(started); !errors.Is(err, link.ErrUnavailable) || took > 1500*time.Millisecond {
		t.Errorf("a paused Redis: %v after %s, want ErrUnavailable sooner", err, took)
	}
	r.Resume()
	r.Kill()
	if _, err := store.TakeRequest(t.Context(), "shop", 1, time.Second); !errors.Is(err, link.ErrUnavailable) {
		t.Errorf("no Redis: %v, want ErrUnavailable", err)
	}
}
