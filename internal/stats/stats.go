// Package stats is the contract of roll-ups: how counted clicks are kept, and the questions that
// they answer. Its implementations are over PostgreSQL and over Redis.
package stats

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"snowlink/internal/clicks"
)

// A Store adds up batches and answers questions about the sums. It is safe for concurrent use. All
// errors wrap link.ErrUnavailable, unless they say otherwise.
type Store interface {
	// Apply adds the batches, each once: what was applied before is left out. It may fail half-way,
	// and is to be repeated then with the same batches.
	Apply(ctx context.Context, batches []clicks.Batch) (Applied, error)

	// Ask answers a question.
	Ask(ctx context.Context, q Question) (Answer, error)

	// Top returns the links of a scope with the most clicks in a time, at most n, the most clicked
	// one first. For a time that begins or ends within a day (UTC), it may take the whole day.
	Top(ctx context.Context, s Scope, from, to time.Time, bots Bots, n int) ([]LinkClicks, error)

	// Misses returns the codes without a link that were asked for most often, at most n.
	Misses(ctx context.Context, from, to time.Time, n int) ([]LinkClicks, error)

	// Totals returns how many clicks of people each of some links has had, in order, as far as the
	// store remembers.
	Totals(ctx context.Context, codes []string) ([]int64, error)

	// Forget deletes all that is kept by the link. What it added to its owner, its tags and
	// everything stays.
	Forget(ctx context.Context, code string) error

	// Tend keeps the store in order until ctx ends: it sums up what is old and forgets what is too
	// old. Several may tend at a time. It outlasts outages.
	Tend(ctx context.Context) error

	// Since returns since when, at the earliest, hours and facts in combination are kept; and by
	// days and single dimensions, zero being for ever.
	Since(now time.Time) (hours, days time.Time)
}

// Applied is what an Apply did.
type Applied struct {
	New      []clicks.Batch // those that were added; of an ordered one what was not added before
	Repeated int            // left out, since they were added before
	Clicks   int64          // that were added, bots with them
}

// A Scope is whose clicks a question is about. Of Code, Owner and Tag: a code alone is a link. An
// owner alone is all links of the owner, and with a tag those of them that have it. A tag alone is
// everyone's links that have it. None is everything.
type Scope struct{ Code, Owner, Tag string }

// Shared are the scopes that the clicks of a link belong to beside the link, each once: everything, its
// owner, and its tags, everyone's and the owner's.
func Shared(c *clicks.Count) iter.Seq[Scope] {
	return func(yield func(Scope) bool) {
		if !yield(Scope{}) || c.Owner != "" && !yield(Scope{Owner: c.Owner}) {
			return
		}
		for i, tag := range c.Tags {
			if tag == "" || slices.Contains(c.Tags[:i], tag) {
				continue
			}
			if !yield(Scope{Tag: tag}) || c.Owner != "" && !yield(Scope{Owner: c.Owner, Tag: tag}) {
				return
			}
		}
	}
}

// Bots says which clicks count.
type Bots int

// People is what is asked for mostly.
const (
	People Bots = iota
	WithBots
	OnlyBots
)

// Count reports whether clicks count, by whether they are a bot's.
func (b Bots) Count(bot bool) bool { return b == WithBots || bot == (b == OnlyBots) }

// Of returns how many clicks count, of those of people and those of bots.
func (b Bots) Of(people, bots int64) (n int64) {
	if b.Count(false) {
		n += people
	}
	if b.Count(true) {
		n += bots
	}
	return n
}

// Unit is the length of a part of a time.
type Unit int

// The units. Days and longer ones begin at midnight in the question's zone; weeks begin on Monday.
const (
	Whole Unit = iota // not divided
	Hour
	Day
	Week
	Month
)

// A Question is how many clicks there were.
type Question struct {
	Scope
	// From and To are whole hours. Clicks at To are not counted.
	From, To time.Time
	Unit     Unit
	Zone     *time.Location // nil is UTC
	// By divides the answer by the values of some dimensions.
	By []clicks.Dimension
	// Where takes only clicks that have one of the values in each of the dimensions.
	Where map[clicks.Dimension][]string
	Bots  Bots
	// Most is how many rows the answer has at most, those with the most clicks, for each part of the
	// time. The rest is one row more, with clicks.Other in each of By.
	Most int
}

// Part returns when the part of the time that t is in begins, as [Row] has it, and when the next one does.
func (q *Question) Part(t time.Time) (start, end time.Time) {
	zone := cmp.Or(q.Zone, time.UTC)
	t = t.In(zone)
	year, month, day := t.Date()
	midnight := func(month time.Month, day int) time.Time { return time.Date(year, month, day, 0, 0, 0, 0, zone) }
	switch q.Unit {
	case Hour:
		return t, t.Add(time.Hour)
	case Day:
		return midnight(month, day), midnight(month, day+1)
	case Week:
		day -= (int(t.Weekday()) + 6) % 7
		return midnight(month, day), midnight(month, day+7)
	case Month:
		return midnight(month, 1), midnight(month+1, 1)
	default:
		return q.From.In(zone), q.To.In(zone)
	}
}

// ErrTooFine reports that a question asks for hours, or for several dimensions or filters, of a time
// of which only days and single dimensions are kept: see Store.Since.
var ErrTooFine = errors.New("not kept in such detail for so long")

// An Answer is what a Question comes to.
type Answer struct {
	// Rows are in the order of time, and then those with the most clicks come first. Parts of the
	// time without clicks have no row.
	Rows []Row
	// Clicks is the sum of all rows, and exact without filters.
	Clicks int64
	// Visitors is how many people clicked, each counted once a day (UTC) and link, within 3 percent.
	// It is -1 where that is not known: with By, filters, or a time that is not of whole days.
	Visitors int64
}

// A Row is the clicks of one part of the time, and with one combination of values.
type Row struct {
	// Start is when the part begins, in the question's zone: From if the time is not divided, and
	// else as the calendar has it, which may be before From. An hour that is in two parts, since the
	// zone is half an hour off, belongs to the one that it begins in.
	Start  time.Time
	Values []string // in the order of By
	Clicks int64
	// Visitors is as in Answer, for units of a day and more in UTC.
	Visitors int64
}

// LinkClicks is the clicks of a link.
type LinkClicks struct {
	Code   string
	Clicks int64
}
