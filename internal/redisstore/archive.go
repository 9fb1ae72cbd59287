package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/redisconn"
)

// What Redis remembers of the archive that it is in front of. None of it is lost to eviction, since
// none has a time to live.
const (
	// archiveKey says that links of this Redis may be in an archive alone.
	archiveKey = "archive"
	// verifiedKey has the run of Redis that was compared with the archive last.
	verifiedKey = "archive:verified"
)

// ErrPolicy reports that Redis may evict links that are not archived. The text says what to set.
var ErrPolicy = errors.New("redis may evict links that are not archived")

// CheckPolicy fails with ErrPolicy if Redis may evict what has no time to live, and with
// link.ErrUnavailable. It takes a Redis that does not tell its policy, as some proxies do not.
func (s *Store) CheckPolicy(ctx context.Context) error {
	info, err := s.conn.Info(ctx)
	if err != nil {
		return err
	}
	return checkPolicy(info)
}

func checkPolicy(info redisconn.Info) error {
	if strings.HasPrefix(info.Policy, "allkeys-") {
		return fmt.Errorf("%w: its maxmemory-policy is %s; set it to volatile-lru, in its redis.conf and by: "+
			"redis-cli config set maxmemory-policy volatile-lru", ErrPolicy, info.Policy)
	}
	return nil
}

// remember is SET if Redis is full, too: there must be no archiving without it.
var remember = newScript(`
redis.call("SETNX", KEYS[1], ARGV[1])
return 1`, true)

// RememberArchive makes Redis remember that it is in front of an archive. It fails with
// link.ErrUnavailable.
func (s *Store) RememberArchive(ctx context.Context) error {
	_, err := s.run(ctx, remember, []any{archiveKey}, "since "+time.Now().UTC().Format(time.RFC3339))
	if err != nil {
		return s.ops.archive.Unavailable(s.conn.Writes, err)
	}
	return nil
}

// RemembersArchive reports whether Redis is in front of an archive. It fails with
// link.ErrUnavailable.
func (s *Store) RemembersArchive(ctx context.Context) (bool, error) {
	since, err := s.conn.Aside.Get(ctx, archiveKey).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return false, s.ops.get.Unavailable(s.conn.Reads, err)
	}
	return since != "", nil
}

// claim makes the chore KEYS[1] the caller's until ARGV[2], unless it is somebody's at ARGV[1]. The
// key has no time to live, or a Redis that evicts links would forget it first.
var claim = newScript(`
if (tonumber(redis.call("GET", KEYS[1]) or 0) or 0) > tonumber(ARGV[1]) then
  return 0
end
redis.call("SET", KEYS[1], ARGV[2])
return 1`, true)

// choreKey is the key of a chore: until when it is somebody's, in Unix milliseconds.
func choreKey(chore string) string { return "archive:" + chore }

// Claim makes a chore the caller's for a while, unless it is somebody's. The clocks of all who claim
// are taken to be about the same. It fails with link.ErrUnavailable.
func (s *Store) Claim(ctx context.Context, chore string, d time.Duration) (ours bool, err error) {
	now := time.Now()
	answer, err := s.run(ctx, claim, []any{choreKey(chore)}, now.UnixMilli(), now.Add(d).UnixMilli())
	if err != nil {
		return false, s.ops.archive.Unavailable(s.conn.Writes, err)
	}
	return answer == "1", nil
}

// KeepClaim extends a claim, from now on.
func (s *Store) KeepClaim(ctx context.Context, chore string, d time.Duration) {
	// If that fails, somebody else does it, too.
	s.conn.Aside.Set(ctx, choreKey(chore), time.Now().Add(d).UnixMilli(), 0)
}

// Runs returns the run of Redis, which changes when it starts or fails over, and the one that
// was compared with the archive last. Either is "" if it is not known. It fails with
// link.ErrUnavailable.
func (s *Store) Runs(ctx context.Context) (is, verified string, err error) {
	info, err := s.conn.Info(ctx)
	if err != nil {
		return "", "", err
	}
	verified, err = s.conn.Aside.Get(ctx, verifiedKey).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", "", s.ops.archive.Unavailable(s.conn.Reads, err)
	}
	return info.Run, verified, nil
}

// SetVerified remembers the run that was compared with the archive. It fails with
// link.ErrUnavailable.
func (s *Store) SetVerified(ctx context.Context, run string) error {
	if err := s.conn.Aside.Set(ctx, verifiedKey, run, 0).Err(); err != nil {
		return s.ops.archive.Unavailable(s.conn.Writes, err)
	}
	return nil
}
