package archived

import (
	"context"
	"errors"
	"fmt"
	"time"

	"snowlink/internal/deadline"
	"snowlink/internal/link"
)

// sweepBacklog is how many entries the outbox has at most while Sweep or Verify adds to it.
const sweepBacklog = 5000

// sweepRest is the time between two pages of a Sweep, of some 1,000 links and 4 ms. Without it a GET
// of Redis took 1.6 ms meanwhile instead of 0.14 ms (two busy cores, a million links, 2026-11-25).
const sweepRest = 5 * time.Millisecond

// Swept is what a Sweep has done so far.
type Swept struct {
	Links  int64 // that it has looked at
	Marked int64
}

// Sweep marks the links in Redis that have no time to live: those of a create or change that ended
// before its mark, those from before there was an archive, those that expired or were used up since
// they were archived. It goes no faster than archivers work. It calls progress, unless that is nil,
// now and then. It may be broken off and run again, also by several at once. The error wraps
// link.ErrUnavailable, or is that of ctx.
func (a *Archiver) Sweep(ctx context.Context, progress func(Swept)) (Swept, error) {
	var s Swept
	err := a.hot.Codes(ctx, func(codes []string) error {
		if err := a.keepPace(ctx); err != nil {
			return err
		}
		evictable, there, err := a.hot.Evictable(ctx, codes)
		if err != nil {
			return err
		}
		var marks []string
		for i, code := range codes {
			if there[i] && !evictable[i] {
				marks = append(marks, code)
			}
		}
		if len(marks) > 0 {
			if err := a.hot.Mark(ctx, marks); err != nil {
				return err
			}
		}
		s.Links += int64(len(codes))
		s.Marked += int64(len(marks))
		if progress != nil {
			progress(s)
		}
		deadline.Sleep(ctx, sweepRest)
		return ctx.Err()
	})
	return s, err
}

// keepPace waits until archivers have done most of what is marked.
func (a *Archiver) keepPace(ctx context.Context) error {
	for {
		n, _, err := a.hot.Backlog(ctx)
		if err != nil || n < sweepBacklog {
			return err
		}
		if !deadline.Sleep(ctx, idleFor) {
			return ctx.Err()
		}
	}
}

// Verified is what Verify has found so far.
type Verified struct {
	Links   int64 // in Redis
	Same    int64 // as in the archive
	Pending int64 // not in the archive as they are, but Redis cannot evict them
	// Wrong is how many Redis may evict that are not in the archive as they are: none, unless Redis
	// lost writes. Examples are the first of them.
	Wrong    int64
	Examples []string
	Unfit    int64 // that nobody can read
	Rows     int64 // of the archive, deleted links among them; counted at the end
}

// examplesMost bounds Verified.Examples.
const examplesMost = 20

// Verify compares every link in Redis with the archive, and marks those that differ, so that
// archivers settle them. It goes no faster than they work. Links may be written meanwhile. It calls progress, unless that is nil, now
// and then. It may be broken off and run again. The error wraps link.ErrUnavailable, or is that of
// ctx.
func (a *Archiver) Verify(ctx context.Context, progress func(Verified)) (Verified, error) {
	var v Verified
	err := a.hot.Codes(ctx, func(codes []string) error {
		for len(codes) > 0 {
			n := min(batchMost, len(codes))
			if err := a.verify(ctx, codes[:n], &v); err != nil {
				return err
			}
			codes = codes[n:]
		}
		if progress != nil {
			progress(v)
		}
		return ctx.Err()
	})
	for _, db := range a.archive.shards.DBs() {
		if err != nil {
			break
		}
		var n int64
		n, err = db.Count(ctx)
		v.Rows += n
	}
	return v, err
}

func (a *Archiver) verify(ctx context.Context, codes []string, v *Verified) error {
	var marks []string
	for range lookTries {
		// A record that is the same before and after was there all the time: no number comes back.
		before, errs := a.hot.Peek(ctx, codes)
		evictable, _, err := a.hot.Evictable(ctx, codes)
		if err != nil {
			return err
		}
		within, cancel := context.WithTimeout(ctx, 10*time.Second) // a visitor's time is shorter
		rows := a.archive.get(within, codes)
		cancel()
		after, afterErrs := a.hot.Peek(ctx, codes)
		var again []string
		for i, code := range codes {
			if err := errors.Join(errs[i], afterErrs[i], rows[i].err); errors.Is(err, link.ErrUnavailable) {
				return err
			}
			switch {
			case errors.Is(errs[i], link.ErrNotFound): // evicted, or it has run out
			case errors.Is(errs[i], link.ErrUnreadable):
				v.Links++
				v.Unfit++
			case afterErrs[i] == nil && after[i].Text != before[i].Text:
				again = append(again, code)
			case rows[i].err == nil && rows[i].Text == before[i].Text:
				v.Links++
				v.Same++
			case afterErrs[i] != nil: // likewise
			default:
				v.Links++
				marks = append(marks, code)
				if !evictable[i] {
					v.Pending++
					continue
				}
				v.Wrong++
				if len(v.Examples) < examplesMost {
					v.Examples = append(v.Examples, code)
				}
			}
		}
		if codes = again; len(codes) == 0 {
			break
		}
	}
	v.Links += int64(len(codes)) // these change all the time
	v.Pending += int64(len(codes))
	if len(marks) == 0 {
		return nil
	}
	if err := a.keepPace(ctx); err != nil {
		return err
	}
	if err := a.hot.Mark(ctx, marks); err != nil {
		return fmt.Errorf("mark what differs: %w", err)
	}
	return nil
}
