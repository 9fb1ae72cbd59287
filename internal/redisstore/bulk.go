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

// bulkSize is how many links share a round trip. They are so many that the round trip costs little
// beside them, and so few that Redis answers within the limits of a connection.
const bulkSize = 500

// CreateAll creates links, each as Create does, bulkSize of them in a round trip. They have a
// connection of their own, so that others do not wait behind them.
//
// A hung master of a Cluster is waited for once, and the others' links are created. A master counts
// as away if it answered for none of its links in a round trip. Its links that are left then fail
// with link.ErrUnavailable, untried. If it has the owner's journal, no link can be written down,
// and so all masters count as away.
func (s *Store) CreateAll(ctx context.Context, owner string, links []link.Coded) []error {
	if slices.ContainsFunc(links, func(l link.Coded) bool { return l.Limit() > 0 }) {
		// Redis may not know the script yet, and a pipeline finds that out too late.
		_ = s.conn.Aside.ScriptLoad(ctx, createLimited.source) // a failure shows below
	}
	errs := make([]error, len(links))
	away := make(map[*redis.Client]error) // by master
	for next := 0; next < len(links); {
		some, at := make([]link.Coded, 0, bulkSize), make([]int, 0, bulkSize)
		for ; next < len(links) && len(some) < bulkSize; next++ {
			if len(away) > 0 {
				if errs[next] = away[s.conn.Master(ctx, LinkKey(links[next].Code))]; errs[next] != nil {
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

// noteAway adds the masters that answered for none of their links to those that are away.
func (s *Store) noteAway(ctx context.Context, away map[*redis.Client]error, links []link.Coded, done []error) {
	if !slices.ContainsFunc(done, func(err error) bool { return !isAnswer(err) }) {
		return
	}
	answered := make(map[*redis.Client]bool)
	masters := make([]*redis.Client, len(links))
	for i, l := range links {
		masters[i] = s.conn.Master(ctx, LinkKey(l.Code))
		answered[masters[i]] = answered[masters[i]] || isAnswer(done[i])
	}
	for i, m := range masters {
		if !answered[m] {
			away[m] = done[i]
		}
	}
}

// isAnswer reports whether Redis answered a write, be it that it refuses it.
func isAnswer(err error) bool { return !errors.Is(err, link.ErrUnavailable) }

// createSome creates links in one round trip.
func (s *Store) createSome(ctx context.Context, owner string, links []link.Coded) []error {
	type create struct {
		record           string
		created, journal *redis.StringCmd
		mark             *redis.StringCmd
		old              string // what created answered
		err              error
	}
	creates := make([]create, len(links))
	pipe := s.conn.Aside.Pipeline()
	var names []string // for the next entry of the journal
	for i, l := range links {
		record := encodeRecord(l.OwnedBy(owner))
		creates[i] = create{record: record, created: s.createCmd(ctx, l.Code, record, l.Link)}
		_ = pipe.Process(ctx, creates[i].created) // queues it
		if s.journalMax == nil {
			continue
		}
		names = append(names, journalEntry(l.Code, l.Link))
		if last := i == len(links)-1; last || len(names) == pageMost {
			entry := s.journalCmd(ctx, JournalKey(owner), strings.Join(names, " "), last)
			_ = pipe.Process(ctx, entry)
			for k := range names {
				creates[i-k].journal = entry
			}
			names = names[:0]
		}
	}
	if s.outbox != nil {
		for first := 0; first < len(links); first += markMost {
			last := min(first+markMost, len(links))
			var codes []string
			for _, l := range links[first:last] {
				codes = append(codes, l.Code)
			}
			mark := s.journalCmd(ctx, OutboxKey, strings.Join(codes, " "), false)
			_ = pipe.Process(ctx, mark)
			for i := first; i < last; i++ {
				creates[i].mark = mark
			}
		}
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	var again sync.WaitGroup
	for i := range creates {
		c := &creates[i]
		if c.old, c.err = c.created.Result(); redis.HasErrorPrefix(c.err, "NOSCRIPT") { // Redis failed over, or the script was not loaded
			again.Go(func() {
				c.old, c.err = s.run(ctx, createLimited, linkKeys(links[i].Code), s.createdArgs(c.record, links[i].Link)...)
			})
		}
	}
	again.Wait()

	errs := make([]error, len(links))
	var chosen []string
	for i, c := range creates {
		var journalErr error
		if c.journal != nil {
			journalErr = answered(c.journal)
		}
		if c.mark != nil && journalErr == nil {
			journalErr = answered(c.mark)
			if redis.IsOOMError(journalErr) && (c.err == nil || errors.Is(c.err, redis.Nil)) { // the link is stored
				journalErr = s.Mark(ctx, []string{links[i].Code})
			}
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
