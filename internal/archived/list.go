package archived

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"snowlink/internal/link"
	"snowlink/internal/postgres"
	"snowlink/internal/redisstore"
)

// unarchivedMost is how many links that are not archived yet a page looks at. Mostly there are few.
// While somebody makes thousands of links a second, to read these takes Redis a few milliseconds.
const unarchivedMost = 2000

// List returns links in the order of the times at which they were made: those of the archive, and
// those that the outbox still names, as they are in Redis. If either store is away, the error is
// link.ErrUnavailable.
//
// The outbox is read before the archive. A link leaves it only when it is archived, so it is found
// in one of the two.
func (s *Store) List(ctx context.Context, q link.Query) (link.Page, error) {
	now := time.Now()
	ctx = s.limit(ctx, now)
	var after link.Position
	if q.Cursor != "" {
		var err error
		if after, err = link.ParsePosition(q.Cursor); err != nil {
			return link.Page{}, err
		}
	}
	if q.Words != "" {
		var err error
		if q.Parts, err = s.archive.shards.FindsParts(ctx); err != nil {
			return link.Page{}, err
		}
	}
	fresh, more, err := s.unarchived(ctx)
	if err != nil {
		return link.Page{}, err
	}
	var total *link.Total
	var counting sync.WaitGroup
	if q.Cursor == "" {
		counting.Go(func() {
			if n, exact, err := s.archive.shards.Total(ctx, q); err == nil {
				total = &link.Total{Links: n, Estimate: !exact}
			}
		})
	}
	rows, next, err := s.archive.shards.List(ctx, q)
	counting.Wait()
	if err != nil {
		return link.Page{}, err
	}

	all := s.listed(rows, fresh)
	theirs := false // whether the list may have links of fresh, or the archive some that it has not
	for code, r := range fresh {
		if q.Owner != "" && r.OwnerName() != q.Owner {
			continue
		}
		theirs = true
		l := listed{link.Coded{Code: code, Link: r.Link}, rowOf(r, now).Position()}
		switch {
		case r.Text == "" || !q.Takes(l.Coded, l.Created, now): // without a text it is unreadable
		case q.Cursor != "" && order(q, l.Position, after) <= 0: // it is on a page before
		case next != "" && order(q, l.Position, rows[len(rows)-1].Position()) > 0: // on a later one
		default:
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b listed) int { return order(q, a.Position, b.Position) })
	if len(all) > q.N {
		all = all[:q.N]
		next = all[q.N-1].Cursor()
	}
	page := link.Page{Next: next, Incomplete: more}
	for _, l := range all {
		page.Links = append(page.Links, l.Coded)
	}
	switch {
	case q.Cursor != "":
	case next == "":
		page.Total = &link.Total{Links: int64(len(all)), Estimate: more}
	case total != nil:
		total.Estimate = total.Estimate || theirs || more
		page.Total = total
	}
	return page, nil
}

// listed is a link and its place in a list.
type listed struct {
	link.Coded
	link.Position
}

// order is above zero if a comes after b in the list.
func order(q link.Query, a, b link.Position) int {
	if q.Oldest {
		return a.Compare(b)
	}
	return b.Compare(a)
}

// listed returns the links of rows, without those that Redis has otherwise, and without unreadable
// ones.
func (s *Store) listed(rows []postgres.Row, fresh map[string]redisstore.Record) (all []listed) {
	for _, row := range rows {
		if _, ok := fresh[row.Code]; ok {
			continue
		}
		if r, err := s.hot.Record(row.Code, row.Record); err == nil {
			all = append(all, listed{link.Coded{Code: r.Code, Link: r.Link}, row.Position()})
		}
	}
	return all
}

// unarchived returns the links that are not archived yet, by their codes, and whether there are more.
// One that cannot be read has no text. One that Redis does not have any more is archived by now.
func (s *Store) unarchived(ctx context.Context) (fresh map[string]redisstore.Record, more bool, err error) {
	codes, more, err := s.hot.Unarchived(ctx, unarchivedMost)
	if err != nil {
		return nil, false, err
	}
	fresh = make(map[string]redisstore.Record, len(codes))
	records, errs := s.hot.Peek(ctx, codes)
	for i, code := range codes {
		switch {
		case errs[i] == nil:
			fresh[code] = records[i]
		case errors.Is(errs[i], link.ErrUnreadable):
			fresh[code] = redisstore.Record{Code: code}
		case !errors.Is(errs[i], link.ErrNotFound):
			return nil, false, errs[i]
		}
	}
	return fresh, more, nil
}
