// Package link is the domain: what a link is, which targets it may have, and what a store of links
// promises. It does no I/O and imports nothing else of ours.
//
// It holds two decisions. A link is immutable under its code until someone changes it on purpose:
// no create ever overwrites one. And a target is stored in the one spelling that browsers make of
// it, so that what its creator was shown is what a visitor's browser does.
package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"
)

// A Link is what a code stands for.
type Link struct {
	// Target is where the link leads: an absolute http or https URL as [ParseTarget] returns it,
	// and so safe to be the value of a Location header byte for byte.
	Target string

	// Owner is the name of the API key that made the link, or "" for [DefaultOwner]. It is not among
	// the options, so that an owned link without options is a plain link to visitors.
	Owner string

	// Options is nil for a plain link. Nobody changes the options of a Link that others may have.
	*Options
}

// DefaultOwner owns the links whose Owner is "": those of the keys without a name of their own, and
// those that were made before links had owners.
const DefaultOwner = "default"

// OwnedBy returns l as a link of the owner.
func (l Link) OwnedBy(owner string) Link {
	if owner == DefaultOwner {
		owner = ""
	}
	l.Owner = owner
	return l
}

// OwnerName is the name of the owner, which is never "".
func (l Link) OwnerName() string { return cmp.Or(l.Owner, DefaultOwner) }

// Gone reports whether the link leads nowhere at the time: it expired, is disabled or was deleted.
// It does not tell whether visits are left: see [Store.Visit].
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

// Chosen reports whether somebody chose the code of the link. Only then does the link say when it
// was made: a minted code says that itself.
func (l Link) Chosen() bool { return l.Options != nil && !l.Created.IsZero() }

// Equal reports whether the two lead to the same target in the same way and have the same owner.
func (l Link) Equal(other Link) bool {
	if l.Options == nil || other.Options == nil {
		return l == other
	}
	return l.Target == other.Target && l.Owner == other.Owner && reflect.DeepEqual(l.Options, other.Options)
}

// Options are what a link may have beside its target. The zero value of each field is what a plain
// link does.
type Options struct {
	// Status is the HTTP status of the redirect: 301, 302, 307 or 308. 0 is 302.
	Status int
	// Expires is when the link is gone, to the millisecond. Zero is never.
	Expires time.Time
	// MaxVisits is how many redirects the link gives in its life. 0 is any number.
	MaxVisits int64
	// ForwardQuery appends the query of a visit to the target's own.
	ForwardQuery bool
	// Disabled closes the link until it is enabled again.
	Disabled bool
	// Deleted closes the link for good. The store remembers the code for [Grace] and then forgets
	// it.
	Deleted bool
	// Created is when the link was made, to the millisecond. It is zero for a minted code, which
	// says that itself.
	Created time.Time
	// Nonce tells two creates of one code with equal links apart: the store would take the second
	// for the first one repeated. Changes keep it. 0 is none.
	Nonce uint32
	// Title and Tags are for the people who manage the link.
	Title string
	Tags  []string
}

// Grace is how long the code of a link that expired or was deleted stays known as gone, and cannot
// be taken. A store that forgets links to make room may forget it sooner. Then the code is unknown,
// and can be taken.
const Grace = 30 * 24 * time.Hour

// Coded is a link with its code.
type Coded struct {
	Code string
	Link
}

// State is a link as it is in the store at a time.
type State struct {
	Link
	// Version changes with every change of the link, visits not counted. It is made of [0-9a-f].
	Version string
	// VisitsLeft is how many redirects a link with MaxVisits has left; otherwise 0.
	VisitsLeft int64
}

// Errors of a [Store]. They come wrapped: test for them with [errors.Is].
var (
	// ErrNotFound reports that the store holds no link under the code: none was created, or it was
	// evicted.
	ErrNotFound = errors.New("link not found")

	// ErrGone reports that the link has no visits left of its limit.
	ErrGone = errors.New("link is gone")

	// ErrExists reports that the code stands for another link already.
	ErrExists = errors.New("code is taken")

	// ErrChanged reports that the link does not have, or no longer has, the version that was to be
	// changed.
	ErrChanged = errors.New("link was changed meanwhile")

	// ErrCursor reports that a cursor is not one that the store made.
	ErrCursor = errors.New("not a cursor")

	// ErrEveryone reports that the store lists only the links of one owner.
	ErrEveryone = errors.New("links are listed by owner")

	// ErrFull reports that the store has no room for another link, and forgets none to make room.
	// The links that are there are found as before.
	ErrFull = errors.New("no room for another link")

	// ErrUnreadable reports that there is a link, but this version of the program cannot read it.
	// Asking again does not help until someone mends the link. It is an answer of the store, and no
	// outage.
	ErrUnreadable = errors.New("link is unreadable")

	// ErrUnavailable reports that the store cannot tell now, and may be able to later: there is an
	// outage, or time ran out. It says nothing about whether there is a link.
	ErrUnavailable = errors.New("links are unavailable")

	// ErrArchive is the ErrUnavailable of an archive behind the store, which may have links that
	// nobody else has.
	ErrArchive = fmt.Errorf("%w: the archive does not answer", ErrUnavailable)
)

// A Store keeps links by their codes. For each owner, which is the name of an API key, it keeps a
// journal of what the owner created. It is safe for concurrent use.
//
// A Store does not judge codes and targets: its callers pass only codes that could exist and
// targets from [ParseTarget]. It may forget a link at any time to make room for others. Until then
// the link is found. Links that expired, are disabled or deleted are found like others while the
// store remembers them: the caller decides what visitors of theirs get.
//
// If ctx ends first, the error may be ctx's own.
type Store interface {
	// Get returns the link that the code stands for, as it is now or was a bounded time ago. The
	// link is the caller's to keep. It is for visits: a link that is read by Get or GetAll counts
	// as used, and a store that forgets links forgets those first that were not used for longest.
	//
	// The error is [ErrNotFound] if there is no link, [ErrUnavailable] if the store cannot tell,
	// and never one for the other. It is [ErrUnreadable] if the link cannot be read.
	Get(ctx context.Context, code string) (Link, error)

	// GetAll does what Get does for many codes, in few round trips. It returns a link and an error,
	// or nil, for each, in order.
	GetAll(ctx context.Context, codes []string) ([]Link, []error)

	// Read returns the link as it is now. Its errors are those of Get. It is for people who manage
	// links: it does not count as use, if the store can tell the two apart.
	Read(ctx context.Context, code string) (State, error)

	// Visit takes one of the visits that a link with MaxVisits has left, and returns the link as it
	// is now. It is one step: of several at once for the last visit, one gets it. The error is
	// [ErrGone] if none is left, or if the store lost count. After any other error a visit may or
	// may not have been taken.
	Visit(ctx context.Context, code string) (Link, error)

	// Create stores the link under the code as one of the owner, whatever Owner it has, unless the
	// code is taken: it decides and stores in one step, so that of several creates of one code
	// exactly one link wins, and no link is ever overwritten. Once it has returned nil, Get finds
	// the link while the store remembers it. List has the link, too, while the journal reaches back
	// to it, if the store keeps journals.
	//
	// Create also succeeds if the code stands for an equal link of the owner already, which makes a
	// create safe to repeat. The error is [ErrExists] if the code stands for a different link, and
	// [ErrFull] if there is no room. After any other error, such as [ErrUnavailable], the link may
	// or may not be stored: repeat the create to find out.
	Create(ctx context.Context, owner, code string, l Link) error

	// CreateAll creates many links in few round trips. It returns an error, or nil, for each, in
	// order.
	CreateAll(ctx context.Context, owner string, links []Coded) []error

	// Update puts l in the place of the link of that version, in one step. The owner stays. It
	// tells everyone who keeps copies, and returns what Read would return right after it. If it
	// changes MaxVisits, the visits that the link has given still count; if the store lost count, a
	// new count begins. The errors are [ErrNotFound], [ErrChanged], and those of Create except
	// [ErrExists].
	Update(ctx context.Context, code, version string, l Link) (State, error)

	// List returns a page of the links that the query asks for. It may be short, or empty, before the
	// end: List looks only so long for more.
	//
	// Links that were forgotten or are unreadable are left out. Links that are made while somebody
	// turns pages are neither a reason for others to be missing nor to come twice. The error is
	// [ErrCursor] if no List of the store returned the cursor, and [ErrUnavailable] rather than a page
	// with gaps.
	//
	// A store that forgets links may list only what its journals name: then the page's Newest says
	// how far they reach at least. Links are in the order in which they were written down, and not in
	// that of their times of creation. A create that was repeated may be listed twice, on two pages.
	// A link without an owner may be in the list of a named one, if it was made before links had
	// owners. A journal that nobody used for long may be forgotten, too. And everyone's links cannot
	// be listed: the error is [ErrEveryone].
	List(ctx context.Context, q Query) (Page, error)
}
