package redisstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
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
// Its append-only file does not: a salt stays there until Redis rewrites the file. So whoever makes a
// salt has it rewritten, which is once a day. Copies of the file, and replicas, are the operator's to
// look after.
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
		s.rewriteFile(ctx, saltKey(day))
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

// rewriteFile has Redis rewrite its append-only file, if it has one, so that the file no longer says
// what has expired. Of a Cluster it is the master with the key.
func (s *Store) rewriteFile(ctx context.Context, key string) {
	info, err := s.conn.Info(ctx)
	if err != nil || !info.AppendOnly { // without one, Redis would begin to write one
		return
	}
	var client redis.Cmdable = s.conn.Client
	if master := s.conn.Master(ctx, key); master != nil {
		client = master
	}
	// One that goes on already began long after the salt of yesterday had expired.
	if err := client.BgRewriteAOF(ctx).Err(); err != nil && !strings.Contains(err.Error(), "already in progress") {
		s.ops.salt.Count()
		s.unwritten.Observed(err)
		return
	}
	s.unwritten.Ended()
}
