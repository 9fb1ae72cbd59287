package redisstore

import (
	"context"
	"errors"
	"slices"

	"github.com/redis/go-redis/v9"

	"snowlink/server/internal/link"
)

// bulkSize is how many links share a round trip: so many that round trips cost
// nothing beside them, and so few that Redis answers within ioTimeout.
const bulkSize = 500

// CreateAll creates links, each as Create does, bulkSize in a round trip and on a
// connection of its own, so that others do not wait behind them. When Redis goes
// away, it tries no more of them: all that are left fail with
// link.ErrUnavailable.
func (s *Store) CreateAll(ctx context.Context, owner string, links []link.Coded) []error {
	errs := make([]error, 0, len(links))
	for len(links) > 0 {
		n := min(bulkSize, len(links))
		done := s.createSome(ctx, owner, links[:n])
		errs, links = append(errs, done...), links[n:]
		if err := done[n-1]; errors.Is(err, link.ErrUnavailable) {
			for range links {
				errs = append(errs, err)
			}
			break
		}
	}
	return errs
}

func (s *Store) createSome(ctx context.Context, owner string, links []link.Coded) []error {
	type create struct {
		record           string
		created, journal *redis.StringCmd
	}
	creates := make([]create, len(links))
	pipe := s.client.Pipeline()
	if slices.ContainsFunc(links, func(l link.Coded) bool { return maxVisits(l.Link) > 0 }) {
		// In a pipeline it is too late to find out that Redis does not know it.
		_ = s.client.ScriptLoad(ctx, createLimited.source) // failing, it shows below
	}
	for i, l := range links {
		record := encodeRecord(l.Link)
		creates[i] = create{record: record, created: createCmd(ctx, l.Code, record, l.Link)}
		_ = pipe.Process(ctx, creates[i].created) // queues it
		if s.journalMax != nil {
			creates[i].journal = s.journalCmd(ctx, journalKey(owner), journalEntry(l.Code, l.Link), i == len(links)-1)
			_ = pipe.Process(ctx, creates[i].journal)
		}
	}
	_, _ = pipe.Exec(ctx) // each command has its own error

	errs := make([]error, len(links))
	var chosen []string
	for i, c := range creates {
		old, err := c.created.Result()
		var journalErr error
		if c.journal != nil {
			journalErr = c.journal.Err()
		}
		errs[i] = s.created(old, c.record, err, journalErr)
		if errs[i] == nil && isChosen(links[i].Link) {
			chosen = append(chosen, links[i].Code)
		}
	}
	if chosen != nil {
		s.announceChosen(ctx, chosen...)
	}
	return errs
}
