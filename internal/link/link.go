// Package link is the domain: what a link is, which targets it may have, and what a store of links promises. It does
// no I/O and imports nothing else of ours.
//
// It holds two decisions. A link is immutable under its code until someone changes it on purpose: no create ever
// overwrites one. And a target is stored in the one spelling that browsers make of it, so that what its creator was
// shown is what a visitor's browser does.
package link

import (
	"context"
	"errors"
	"reflect"
	"time"
)

// A Link is what a code stands for.
type Link struct {
	// Target is where the link leads: an absolute http or https URL as [ParseTarget] returns it, and so safe to be
	// the value of a Location header byte for byte.
	Target string

	// Options is nil for a plain link. Whoever has a Link reads them only.
	*Options
}

// Gone reports whether the link leads nowhere at the time: it expired, is disabled or was deleted. Of its visits it says
// nothing: see [Store.Visit].
func (l Link) Gone(now time.Time) bool {
	return l.Options != nil && (l.Disabled || l.Over(now))
}

// Over reports whether the link is gone for good at the time: it expired or was deleted.
func (l Link) Over(now time.Time) bool {
	return l.Options != nil && (l.Deleted || !l.Expires.IsZero() && !now.Before(l.Expires))
}

// Limit is how many redirects the link gives in its life, or 0 for any number.
func (l Link) Limit() int64 {
	if l.Options == nil {
		return 0
	}
	return l.MaxVisits
}

// Chosen reports whether somebody chose the code of the link. One that was minted says itself when it was made.
func (l Link) Chosen() bool { return l.Options != nil && !l.Created.IsZero() }

// Equal reports whether the two lead to the same target in the same way.
func (l Link) Equal(other Link) bool {
	if l.Options == nil || other.Options == nil {
		return l == other
	}
	return l.Target == other.Target && reflect.DeepEqual(l.Options, other.Options)
}

// Options are what a link may have beside its target. The zero value of each field is what a plain link does.
type Options struct {
	// Status is that of the redirect: 301, 302, 307 or 308. 0 is 302.
	Status int
	// Expires is when the link is gone, to the millisecond. Zero is never.
	Expires time.Time
	// MaxVisits is how many redirects the link gives in its life. 0 is any number.
	MaxVisits int64
	// ForwardQuery appends the query of a visit to the target's own.
	ForwardQuery bool
	// Disabled closes the link until it is enabled again.
	Disabled bool
	// Deleted closes the link for good. The store remembers the code for [Grace] and then forgets it.
	Deleted bool
	// Created is when the link was made, to the millisecond, where its code is not minted and so does not say it.
	Created time.Time
	// Nonce tells a create from another one of the same code that is equal but for it, which the store would take for
	// the first one repeated, and is kept by changes. 0 is none.
	Nonce uint32
	// Title and Tags are for the people who manage the link.
	Title string
	Tags  []string
}

// Grace is how long a code that expired or was deleted goes on being known as gone, and cannot be taken. A store that
// forgets links to make room may forget it before: then the code is not known any more, and can be taken.
const Grace = 30 * 24 * time.Hour

// Coded is a link with its code.
type Coded struct {
	Code string
	Link
}

// State is a link as it stands in the store at a time.
type State struct {
	Link
	// Version changes with every change of the link, visits not counted. It is made of [0-9a-f].
	Version string
	// VisitsLeft is how many redirects a link with MaxVisits has left; otherwise 0.
	VisitsLeft int64
}

// Errors of a [Store]. They come wrapped: test for them with [errors.Is].
var (
	// ErrNotFound says that the store holds no link under the code: none was created, or it was evicted.
	ErrNotFound = errors.New("link not found")

	// ErrGone says that the link had a limit of visits, and they are used up.
	ErrGone = errors.New("link is gone")

	// ErrExists says that the code stands for another link already.
	ErrExists = errors.New("code is taken")

	// ErrChanged says that the link is not, or no longer, of the version that was to be changed.
	ErrChanged = errors.New("link was changed meanwhile")

	// ErrCursor says that a cursor is not one.
	ErrCursor = errors.New("not a cursor")

	// ErrFull says that the store has no room for another link, and forgets none to make some. Links that are there
	// are found as ever.
	ErrFull = errors.New("no room for another link")

	// ErrUnreadable says that there is a link which this version of us cannot read. To ask again does not help until
	// someone mends it. It is an answer of the store, and no outage.
	ErrUnreadable = errors.New("link is unreadable")

	// ErrUnavailable says that the store cannot tell now, and may be able to later: an outage, a time-out. It says
	// nothing about whether there is a link.
	ErrUnavailable = errors.New("links are unavailable")
)

// A Store keeps links by their codes, and for each owner, the name of an API key, a journal of what it created. It is
// safe for concurrent use.
//
// A Store does not judge codes and targets: its callers pass only codes that could exist and targets from
// [ParseTarget]. It may forget a link at any time to make room for others; a link is found until then. Links that
// expired, are disabled or deleted are found like others while the store remembers them: what they answer is for the
// caller to say.
//
// When ctx ends first, the error may be ctx's own.
type Store interface {
	// Get returns the link that the code stands for, as it is now or was a bounded time ago. The link is the
	// caller's to keep. It is for visits: a link that is read by Get or GetAll counts as used, and a store that
	// forgets links forgets those first that were not used for longest.
	//
	// The error is [ErrNotFound] when there is none, [ErrUnavailable] when the store cannot tell, never one for the
	// other, and [ErrUnreadable].
	Get(ctx context.Context, code string) (Link, error)

	// GetAll does what Get does for many codes, in few round trips. It returns a link and an error, or nil, for each, in
	// order.
	GetAll(ctx context.Context, codes []string) ([]Link, []error)

	// Read returns the link as it is now. Its errors are those of Get. It is for people who manage links: it does not
	// count as use, if the store can tell the two apart.
	Read(ctx context.Context, code string) (State, error)

	// Visit takes one of the visits that a link with MaxVisits has left, in one step whoever else does, and returns
	// the link as it is now. The error is [ErrGone] when none is left, or when the store lost count. A visit that
	// fails otherwise may or may not have been taken.
	Visit(ctx context.Context, code string) (Link, error)

	// Create stores the link under the code, unless the code is taken: it decides and stores in one step, so that of
	// several creates of one code exactly one link wins, and no link is ever overwritten. When it returns nil, Get
	// finds the link and List has it, while the store remembers the link and the journal reaches back to it, if the
	// store keeps journals.
	//
	// A code that stands for an equal link already is success, which makes a create safe to repeat. The error is
	// [ErrExists] when it stands for a different one, and [ErrFull] when there is no room. On any other error, such
	// as [ErrUnavailable], the link may or may not have been stored; repeating the create is safe and settles it.
	Create(ctx context.Context, owner, code string, l Link) error

	// CreateAll creates many links in few round trips. It returns an error, or nil, for each, in order.
	CreateAll(ctx context.Context, owner string, links []Coded) []error

	// Update puts l in the place of the link of that version, in one step, tells whoever keeps copies, and returns
	// what Read would have right after. A link whose MaxVisits it changes keeps the visits it gave; one whose count was
	// lost begins anew. Errors are [ErrNotFound], [ErrChanged], and those of Create but [ErrExists].
	Update(ctx context.Context, code, version string, l Link) (State, error)

	// List returns links that the owner created and that keep takes, or all where it is nil, newest first, at most n,
	// from after the cursor, "" being the start, and the cursor to go on from, "" at the end. A page may be short, or
	// empty, before the end: List looks only so long for more.
	//
	// Links that are not there any more, deleted or expired ones included, or are unreadable are left out. So may be the oldest: a
	// journal is bounded. A store that forgets links may also forget a journal that nobody used for long, and then none
	// of the links made before are listed. A create that was repeated may be listed twice, on two pages. A cursor that
	// no List gave is [ErrCursor].
	List(ctx context.Context, owner, cursor string, n int, keep func(Coded) bool) (links []Coded, next string, err error)
}
