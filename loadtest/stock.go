package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/apikey"
	"snowlink/internal/fleet"
	"snowlink/internal/nodelease"
	"snowlink/internal/redisstore"
	"snowlink/snowflake"
)

// A stock puts links straight into a Redis, because creating them would take minutes. Codes and
// records are like those of the backends: whoever fills a Redis follows some of the links through a
// backend to prove it.
type stock struct {
	redis *redis.Client
	mint  *snowflake.Generator
	made  int
}

// longTarget takes the number of a link. The target has 60 bytes.
const longTarget = "https://example.com/load/%020d/some/long/page"

// stockNode is the node ID in such codes: no backend of a fleet has it.
const stockNode = snowflake.MaxNode

func newStock(f *fleet.Fleet) (*stock, error) {
	mint, err := snowflake.NewGenerator(stockNode)
	return &stock{redis: f.Redis.Client().WithTimeout(time.Minute), mint: mint}, err
}

// add puts in n links, each with a target of 60 bytes, and calls made with each unless it is nil.
func (s *stock) add(ctx context.Context, n int, made func(created)) error {
	const batch = 1000
	pairs := make([]any, 0, 2*batch)
	for i := range n {
		l := created{snowflake.Encode(s.mint.Next()), fmt.Sprintf(longTarget, s.made)}
		s.made++
		if made != nil {
			made(l)
		}
		if pairs = append(pairs, redisstore.LinkKey(l.code), l.target); len(pairs) == cap(pairs) || i == n-1 {
			if err := s.redis.MSet(ctx, pairs...).Err(); err != nil {
				return fmt.Errorf("fill Redis: %w", err)
			}
			pairs = pairs[:0]
		}
	}
	return nil
}

// sample puts in n links and returns some of them, or all if there are fewer, evenly spread. It
// writes their codes to the file.
func (s *stock) sample(ctx context.Context, n, some int, file string) ([]created, error) {
	some = min(n, some)
	var sample []created
	i := 0
	if err := s.add(ctx, n, func(l created) {
		if i*some/n == len(sample) {
			sample = append(sample, l)
		}
		i++
	}); err != nil {
		return nil, err
	}
	return sample, writeCodes(file, sample)
}

// writeCodes writes the codes of links to a file for the scripts, one a line.
func writeCodes(file string, links []created) error {
	var codes strings.Builder
	for _, l := range links {
		codes.WriteString(l.code + "\n")
	}
	return os.WriteFile(file, []byte(codes.String()), 0o600)
}

// log turns the append-only file on and waits until it holds everything.
func (s *stock) log(ctx context.Context) error {
	if err := s.redis.ConfigSet(ctx, "appendonly", "yes").Err(); err != nil {
		return err
	}
	for {
		running, err1 := s.info(ctx, "persistence", "aof_rewrite_in_progress")
		scheduled, err2 := s.info(ctx, "persistence", "aof_rewrite_scheduled")
		if err := errors.Join(err1, err2); err != nil || running+scheduled == 0 {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// info returns a number of Redis's INFO.
func (s *stock) info(ctx context.Context, section, field string) (int, error) {
	return fleet.Info(ctx, s.redis, section, field)
}

// count returns how many links Redis has: DBSIZE without the keys that are no links, which are the
// leases and clocks of nodes and the journal of the one API key.
func (s *stock) count(ctx context.Context) (int, error) {
	others := []string{redisstore.JournalKey(apikey.DefaultOwner)} // one by one: KEYS would walk through all links
	for id := range snowflake.MaxNode + 1 {
		lease, clock := nodelease.Keys(id)
		others = append(others, lease, clock)
	}
	size, err1 := s.redis.DBSize(ctx).Result()
	no, err2 := s.redis.Exists(ctx, others...).Result()
	return int(size - no), errors.Join(err1, err2)
}

func (s *stock) close() error { return s.redis.Close() }
