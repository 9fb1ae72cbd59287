package archived_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/postgres/postgrestest"
)

// A Redis that was restarted is compared with the archive, by one of those who tend it.
func TestRestartedRedisIsCompared(t *testing.T) {
	t.Parallel()
	s := start(t, postgrestest.Databases(t, 3))
	s.archiving(t)
	if err := s.Create(t.Context(), link.DefaultOwner, "lost-a-change", one); err != nil {
		t.Fatal(err)
	}
	state, err := s.Read(t.Context(), "lost-a-change")
	if err != nil {
		t.Fatal(err)
	}
	before := s.client.Get(t.Context(), "link:lost-a-change").Val()
	if _, err := s.Update(t.Context(), "lost-a-change", state.Version, link.Link{Target: "https://example.com/changed"}); err != nil {
		t.Fatal(err)
	}
	s.drained(t)
	// What a restart from an older file leaves: a record of before, which Redis may evict.
	if err := s.client.Set(t.Context(), "link:lost-a-change", before, time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.hot.SetVerified(t.Context(), "the run before"); err != nil {
		t.Fatal(err)
	}
	var logs [2]fleettest.Output
	for i := range logs {
		fleettest.Background(t, s.archiver(&logs[i]).Tend)
	}
	fleettest.Eventually(t, 20*time.Second, "the change is back", func() bool {
		l, err := s.Get(t.Context(), "lost-a-change")
		return err == nil && l.Target == "https://example.com/changed"
	})
	fleettest.Eventually(t, 20*time.Second, "the run is remembered", func() bool {
		is, verified, err := s.hot.Runs(t.Context())
		return err == nil && is == verified
	})
	if n := strings.Count(logs[0].String()+logs[1].String(), "was compared"); n != 1 {
		t.Errorf("it was compared %d times:\n%s%s", n, &logs[0], &logs[1])
	}
	s.drained(t)
	s.verify(t, 0)
}

// Links of a Redis that had no archive so far are archived without anybody's doing.
func TestOldLinksAreSwept(t *testing.T) {
	t.Parallel()
	s := start(t, postgrestest.Databases(t, 1))
	for i := range 1000 {
		if err := s.client.Set(t.Context(), fmt.Sprintf("link:old%d", i), fmt.Sprintf("https://example.com/%d", i), 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	s.archiving(t)
	fleettest.Background(t, s.archiver(&fleettest.Output{}).Tend)
	fleettest.Eventually(t, 30*time.Second, "all links are archived", func() bool {
		n, err := s.shards.DBs()[0].Count(t.Context())
		return err == nil && n == 1000
	})
}

func TestLagIsSaid(t *testing.T) {
	t.Parallel()
	s := start(t, postgrestest.Databases(t, 1))
	a := s.archiver(&fleettest.Output{})
	fleettest.Background(t, a.Watch)
	if err := s.client.XAdd(t.Context(), xadd("outbox", time.Now().Add(-2*time.Minute), "none")).Err(); err != nil {
		t.Fatal(err)
	}
	fleettest.Eventually(t, 20*time.Second, "the archive is behind", func() bool {
		return a.Lag() > 2*time.Minute && strings.Contains(a.Degraded(), "archiving is 2m")
	})
	s.archiving(t)
	fleettest.Eventually(t, 20*time.Second, "it has caught up", func() bool { return a.Lag() == 0 && a.Degraded() == "" })
}

// xadd adds a mark as if it had been made at the time.
func xadd(stream string, at time.Time, codes string) *redis.XAddArgs {
	return &redis.XAddArgs{Stream: stream, ID: fmt.Sprintf("%d-0", at.UnixMilli()), Values: []string{"c", codes}}
}

// A Redis that lost everything is reminded that it is in front of an archive: or a backend without
// ARCHIVE_URL could start on it, and answer 404 for what the archive has.
func TestRedisThatLostEverythingIsReminded(t *testing.T) {
	t.Parallel()
	s := start(t, postgrestest.Databases(t, 1))
	stop := s.archiving(t)
	s.create(t, "archived", one)
	s.drained(t)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.hot.Mark(t.Context(), []string{"none"}); err != nil { // which stays, and so shows
		t.Fatal(err)
	}
	a := s.archiver(&fleettest.Output{})
	fleettest.Background(t, a.Watch)
	fleettest.Eventually(t, 20*time.Second, "it watches", func() bool { return a.Lag() > 0 })
	if err := s.client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	fleettest.Eventually(t, 20*time.Second, "Redis knows of the archive", func() bool {
		knows, err := s.hot.RemembersArchive(t.Context())
		return err == nil && knows
	})
	s.want(t, "archived", one)
	s.archiving(t) // of a new outbox, with a new group
	s.create(t, "later", two)
	s.drained(t)
	s.evict(t, "later")
	s.want(t, "later", two)
}
