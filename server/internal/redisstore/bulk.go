package redisstore

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"snowlink/server/internal/link"
)

// bulkSize is how many links share a round trip: so many that round trips cost
// nothing beside them, and so few that Redis answers within ioTimeout.
const bulkSize = 500

// CreateAll creates links, each as Create does, bulkSize in a round trip and on a
// connection of its own, so that others do not wait behind them. After a round
// trip in which none could be told, Redis is away, or all that an owner's journal
// is on: all that are left fail with link.ErrUnavailable, untried. Where only a
// part of a Cluster is away, the links of the others are created.
func (s *Store) CreateAll(ctx context.Context, owner string, links []link.Coded) []error {
	errs := make([]error, 0, len(links))
	for len(links) > 0 {
		n := min(bulkSize, len(links))
		done := s.createSome(ctx, owner, links[:n])
		errs, links = append(errs, done...), links[n:]
		if !slices.ContainsFunc(done, isTold) {
			return append(errs, slices.Repeat(done[n-1:], len(links))...)
		}
	}
	return errs
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
	pipe := s.aside.Pipeline()
	if slices.ContainsFunc(links, func(l link.Coded) bool { return l.Limit() > 0 }) {
		// Redis may not know it yet, which a pipeline finds out too late.
		_ = s.aside.ScriptLoad(ctx, createLimited.source) // failing, it shows below
	}
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
				c.old, c.err = s.run(ctx, createLimited, links[i].Code, createdArgs(c.record, links[i].Link)...)
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
		s.announceChosen(ctx, chosen...)
	}
	return errs
}
