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

// saltsSinceKey names the first day whose salt may be in the append-only file.
const saltsSinceKey = "clicks:salts:since"

// saltEnds is when Redis forgets the salt of a day.
func saltEnds(day time.Time) time.Time { return day.AddDate(0, 0, 1).Add(clicks.SaltKept) }

// Salt returns the salt of the day that begins then, or makes it. Redis forgets it clicks.SaltKept
// after the day. It fails with link.ErrUnavailable.
//
// Its append-only file does not: a salt stays there until Redis rewrites the file. So whoever makes a
// salt has it rewritten if the salt of a day past may be there, which is once a day. Copies of the
// file, and replicas, are the operator's to look after.
//
// A full Redis may evict it before, as it may evict links. A process that asks after that gets
// another one, and counts visitors again who were counted already.
func (s *Store) Salt(ctx context.Context, day time.Time) (salt clicks.Salt, err error) {
	rand.Read(salt[:])
	// string: the command may be on its way still after ctx has ended.
	cmd := redis.NewStringCmd(ctx, "set", saltKey(day), string(salt[:]), "nx", "get", "exat", saltEnds(day).Unix())
	err = s.conn.Do(ctx, cmd)
	if errors.Is(err, redis.Nil) { // it is ours
		s.conn.Writes.Ended()
		s.forgetSalts(ctx, day)
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

// forgetSalts has Redis rewrite its append-only file if that may have the salt of a day past. Without
// such a salt it does not: Redis may not survive a full disk after that (docs/operating.md).
func (s *Store) forgetSalts(ctx context.Context, made time.Time) {
	err := s.rewriteSalts(ctx, made)
	if err != nil {
		s.ops.salt.Count()
		s.unwritten.Observed(err)
		return
	}
	s.unwritten.Ended()
}

func (s *Store) rewriteSalts(ctx context.Context, made time.Time) error {
	cmd := redis.NewStringCmd(ctx, "set", saltsSinceKey, made.UTC().Format(time.DateOnly), "nx", "get")
	if err := s.conn.Do(ctx, cmd); errors.Is(err, redis.Nil) {
		return nil // it is the first
	} else if err != nil {
		return err
	}
	since, err := time.Parse(time.DateOnly, cmd.Val())
	if err == nil && time.Now().Before(saltEnds(since)) {
		return nil
	}
	info, err := s.conn.Info(ctx)
	if err != nil {
		return err
	}
	if info.AppendOnly { // without one, Redis would begin to write one
		var client redis.Cmdable = s.conn.Client
		if master := s.conn.Master(ctx, saltKey(made)); master != nil { // of a Cluster
			client = master
		}
		// One that goes on already began long after the salt of yesterday had expired.
		if err := client.BgRewriteAOF(ctx).Err(); err != nil && !strings.Contains(err.Error(), "already in progress") {
			return err
		}
	}
	// The salt of today is in the new file.
	today := time.Now().UTC().Format(time.DateOnly)
	return s.conn.Do(ctx, redis.NewStatusCmd(ctx, "set", saltsSinceKey, today))
}
