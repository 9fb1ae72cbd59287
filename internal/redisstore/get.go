package redisstore

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/link"
)

// Get returns the link under code. It fails with link.ErrNotFound, link.ErrUnreadable or
// link.ErrUnavailable.
func (s *Store) Get(ctx context.Context, code string) (link.Link, error) {
	cmd := redis.NewStringCmd(ctx, "get", LinkKey(code))
	return s.found(code, cmd.Val, s.conn.Do(ctx, cmd))
}

// found is the answer to a GET of the link under code. It calls record only if err says that there
// is one.
func (s *Store) found(code string, record func() string, err error) (link.Link, error) {
	if err != nil && !errors.Is(err, redis.Nil) {
		return link.Link{}, s.ops.get.Unavailable(s.conn.Reads, err)
	}
	s.conn.Reads.Ended()
	if err != nil {
		return link.Link{}, link.ErrNotFound
	}
	return s.decode(code, record())
}

// GetAll returns the links under codes, read together. All of it is one operation, which ends as
// any does. Its errors are those of Get. If a master of a Cluster hangs, its links fail and the
// others come.
func (s *Store) GetAll(ctx context.Context, codes []string) ([]link.Link, []error) {
	return s.getAll(ctx, s.conn.Pipe, codes)
}

func (s *Store) getAll(ctx context.Context, pipe *redis.AutoPipeliner, codes []string) ([]link.Link, []error) {
	ctx, cancel := s.conn.Limit(ctx)
	defer cancel()
	byMaster := make(map[*redis.Client][]int) // each has a queue, which may be full
	for i, code := range codes {
		m := s.conn.Master(ctx, LinkKey(code))
		byMaster[m] = append(byMaster[m], i)
	}
	links, errs := make([]link.Link, len(codes)), make([]error, len(codes))
	var masters sync.WaitGroup
	for _, some := range byMaster {
		masters.Go(func() {
			cmds, sent := make([]*redis.StringCmd, len(some)), make([]redis.AutoFuture, len(some))
			for k, i := range some {
				cmds[k] = redis.NewStringCmd(ctx, "get", LinkKey(codes[i]))
				sent[k] = pipe.Submit(ctx, cmds[k])
			}
			for k, i := range some {
				links[i], errs[i] = s.found(codes[i], cmds[k].Val, sent[k].WaitContext(ctx))
			}
		})
	}
	masters.Wait()
	return links, errs
}

// decode reads the record of a link that was found. It fails with link.ErrUnreadable: a link is not
// followed if its options cannot be read.
func (s *Store) decode(code, record string) (link.Link, error) {
	l, err := decodeRecord(record)
	if err != nil {
		err = fmt.Errorf("%s: %w: %w", LinkKey(code), link.ErrUnreadable, err)
		s.ops.record.Count()
		s.unreadable.Observed(err)
		return link.Link{}, err
	}
	return l, nil
}
