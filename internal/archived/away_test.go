package archived_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/postgres/postgrestest"
	"snowlink/internal/redisstore"
)

// One database of three hangs, and many ask for what it has. Whoever asks for what the others have
// does not wait with them.
func TestColdReadsBesideAShardThatHangs(t *testing.T) {
	t.Parallel()
	server := postgrestest.Own(t)
	s := start(t, append(postgrestest.Databases(t, 2), server.Database(t)))
	s.archiving(t)
	away := s.shards.DBs()[2]
	var others []string
	for i := 0; len(others) < 50; i++ {
		if code := fmt.Sprint("spread-", i); s.shards.Home(code) != away {
			s.create(t, code, one)
			others = append(others, code)
		}
	}
	s.drained(t)
	if err := server.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Signal(syscall.SIGCONT) })
	var storm sync.WaitGroup
	for i, asked := 0, 0; asked < 2000; i++ {
		if code := fmt.Sprint("none-", i); s.shards.Home(code) == away {
			asked++
			storm.Go(func() { _, _ = s.Get(t.Context(), code) })
		}
	}
	fleettest.Eventually(t, 10*time.Second, "the storm has begun", func() bool {
		return s.metric(t, "snowlink_archive_lookups_total") >= 4
	})
	for _, code := range others {
		s.evict(t, code)
		began := time.Now()
		s.want(t, code, one)
		if took := time.Since(began); took > time.Second { // each waited out the time of a hung query before
			t.Errorf("a cold link of another database took %s", took)
			break
		}
	}
	storm.Wait()
}

// Marks of a bulk name links of all databases. While one is away, only its links are tried again.
func TestMarksOfADatabaseThatIsAway(t *testing.T) {
	t.Parallel()
	server := postgrestest.Own(t)
	s := start(t, append(postgrestest.Databases(t, 2), server.Database(t)))
	away := s.shards.DBs()[2]
	if err := server.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Signal(syscall.SIGCONT) })
	mint := minter(t)
	links := make([]link.Coded, 2000)
	for i := range links {
		links[i] = link.Coded{Code: mint(), Link: one}
	}
	if err := errors.Join(s.CreateAll(t.Context(), link.DefaultOwner, links)...); err != nil {
		t.Fatal(err)
	}
	s.archiving(t)
	fleettest.Eventually(t, 30*time.Second, "the outbox has only links of the database that is away", func() bool {
		entries, err := s.client.XRange(t.Context(), redisstore.OutboxKey, "-", "+").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			for _, code := range strings.Fields(e.Values["c"].(string)) {
				if s.shards.Home(code) != away {
					return false
				}
			}
		}
		return len(entries) > 0
	})
	if err := server.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.drained(t)
	s.verify(t, 0)
}
