package redisstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/clicks"
	"snowlink/internal/link"
)

var _ clicks.Salts = (*Store)(nil)

// saltKey is the key of the salt of a day.
func saltKey(day time.Time) string { return "clicks:salt:" + day.UTC().Format(time.DateOnly) }

// Salt returns the salt of the day that begins then, or makes it. Redis forgets it clicks.SaltKept
// after the day. It fails with link.ErrUnavailable.
//
// A full Redis may evict it before, as it may evict links. A process that asks after that gets
// another one, and counts visitors again who were counted already.
func (s *Store) Salt(ctx context.Context, day time.Time) (salt clicks.Salt, err error) {
	rand.Read(salt[:])
	until := day.AddDate(0, 0, 1).Add(clicks.SaltKept)
	// string: the command may be on its way still after ctx has ended.
	cmd := redis.NewStringCmd(ctx, "set", saltKey(day), string(salt[:]), "nx", "get", "exat", until.Unix())
	err = s.conn.Do(ctx, cmd)
	if errors.Is(err, redis.Nil) { // it is ours
		s.conn.Writes.Ended()
		return salt, nil
	}
	if err != nil {
		return clicks.Salt{}, s.ops.salt.Unavailable(s.conn.Writes, err)
	}
	s.conn.Writes.Ended()
	if len(cmd.Val()) != len(salt) {
		return clicks.Salt{}, fmt.Errorf("redis: %w: %s is no salt", link.ErrUnavailable, saltKey(day))
	}
	copy(salt[:], cmd.Val())
	return salt, nil
}
