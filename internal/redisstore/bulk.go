package redisstore

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/link"
)

// bulkSize is how many links share a round trip: so many that round trips cost
// nothing beside them, and so few that Redis answers within ioTimeout.
const bulkSize = 500

// CreateAll creates links, each as Create does, bulkSize in a round trip and on a
// connection of its own, so that others do not wait behind them. A master that told
// of none of its links in a round trip is away, or all that the owner's journal is
// on: what it has of the links that are left fails with link.ErrUnavailable, untried.
// So one hung master of a Cluster is waited for once, and the others' links are created.
func (s *Store) CreateAll(ctx context.Context, owner string, links []link.Coded) []error {
	if slices.ContainsFunc(links, func(l link.Coded) bool { return l.Limit() > 0 }) {
		// Redis may not know it yet, which a pipeline finds out too late.
		_ = s.conn.Aside.ScriptLoad(ctx, createLimited.source) // failing, it shows below
	}
	errs := make([]error, len(links))
	away := make(map[*redis.Client]error) // by master
	for next := 0; next < len(links); {
		some, at := make([]link.Coded, 0, bulkSize), make([]int, 0, bulkSize)
		for ; next < len(links) && len(some) < bulkSize; next++ {
			if len(away) > 0 {
				if errs[next] = away[s.conn.Master(ctx, linkKey(links[next].Code))]; errs[next] != nil {
					continue
				}
			}
			some, at = append(some, links[next]), append(at, next)
		}
		done := s.createSome(ctx, owner, some)
		for i, err := range done {
			errs[at[i]] = err
		}
		s.noteAway(ctx, away, some, done)
	}
	return errs
}

// noteAway adds the masters that told of none of their links to those that are away.
func (s *Store) noteAway(ctx context.Context, away map[*redis.Client]error, links []link.Coded, done []error) {
	if !slices.ContainsFunc(done, func(err error) bool { return !isTold(err) }) {
		return
	}
	told := make(map[*redis.Client]bool)
	masters := make([]*redis.Client, len(links))
	for i, l := range links {
		masters[i] = s.conn.Master(ctx, linkKey(l.Code))
		told[masters[i]] = told[masters[i]] || isTold(done[i])
	}
	for i, m := range masters {
		if !told[m] {
			away[m] = done[i]
		}
	}
}

// isTold reports whether Redis answered a write, if only that it refuses it.
func isTold(err error) bool { return !errors.Is(err, link.ErrUnavailable) }

func (s *Store) createSome(ctx context.Context, owner string, links []link.Coded) []error {
	type create struct {
		record           string
		created, journal *redis.StringCmd
		old              string // what created answered
		err              error
	}
	creates := make([]create, len(links))
	pipe := s.conn.Aside.Pipeline()
	var names []string // of the next entry of the journal
	for i, l := range links {
		record := encodeRecord(l.Link)
		creates[i] = create{record: record, created: createCmd(ctx, l.Code, record, l.Link)}
		_ = pipe.Process(ctx, creates[i].created) // queues it
		if s.journalMax == nil {
			continue
		}
		names = append(names, journalEntry(l.Code, l.Link))
		if last := i == len(links)-1; last || len(names) == pageMost {
			entry := s.journalCmd(ctx, journalKey(owner), strings.Join(names, " "), last)
			_ = pipe.Process(ctx, entry)
			for k := range names {
				creates[i-k].journal = entry
			}
			names = names[:0]
		}
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	var again sync.WaitGroup
	for i := range creates {
		c := &creates[i]
		if c.old, c.err = c.created.Result(); redis.HasErrorPrefix(c.err, "NOSCRIPT") { // a failover, or it was not loaded
			again.Go(func() {
				c.old, c.err = s.run(ctx, createLimited, linkKeys(links[i].Code), createdArgs(c.record, links[i].Link)...)
			})
		}
	}
	again.Wait()

	errs := make([]error, len(links))
	var chosen []string
	for i, c := range creates {
		var journalErr error
		if c.journal != nil {
			journalErr = c.journal.Err()
		}
		errs[i] = s.created(c.old, c.record, c.err, journalErr)
		if errs[i] == nil && links[i].Chosen() {
			chosen = append(chosen, links[i].Code)
		}
	}
	if chosen != nil {
		go s.announceChosen(context.WithoutCancel(ctx), chosen...)
	}
	return errs
}
