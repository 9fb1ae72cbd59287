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
)

// A Link is what a code stands for.
type Link struct {
	// Target is where the link leads: an absolute http or https URL as [ParseTarget] returns it, and so safe to be
	// the value of a Location header byte for byte.
	Target string
}

// Errors of a [Store]. They come wrapped: test for them with [errors.Is].
var (
	// ErrNotFound says that the store holds no link under the code: none was created, or it was evicted.
	ErrNotFound = errors.New("link not found")

	// ErrExists says that the code stands for another link already.
	ErrExists = errors.New("code is taken")

	// ErrFull says that the store has no room for another link, and forgets none to make some. Links that are there
	// are found as ever.
	ErrFull = errors.New("no room for another link")

	// ErrUnavailable says that the store cannot tell now, and may be able to later: an outage, a time-out. It says
	// nothing about whether there is a link.
	ErrUnavailable = errors.New("links are unavailable")
)

// A Store keeps links by their codes. It is safe for concurrent use.
//
// A Store does not judge codes and targets: its callers pass only codes that could exist and targets from
// [ParseTarget]. It may forget a link at any time to make room for others; a link is found until then.
type Store interface {
	// Get returns the link that the code stands for. The strings of the link are the caller's to keep.
	//
	// The error is [ErrNotFound] when there is none and [ErrUnavailable] when the store cannot tell: never one for
	// the other. When ctx ends first, the error may be ctx's own.
	Get(ctx context.Context, code string) (Link, error)

	// GetAll does what Get does for many codes, in few round trips. It returns a link and an error, or nil, for each, in
	// order.
	GetAll(ctx context.Context, codes []string) ([]Link, []error)

	// Create stores the link under the code, unless the code is taken: it decides and stores in one step, so that of
	// several creates of one code exactly one link wins, and no link is ever overwritten. When it returns nil, Get
	// finds the link.
	//
	// A code that stands for an equal link already is success, which makes a create safe to repeat. The error is
	// [ErrExists] when it stands for a different one, and [ErrFull] when there is no room. On any other error, such as [ErrUnavailable], the link may or
	// may not have been stored; repeating the create is safe and settles it.
	Create(ctx context.Context, code string, l Link) error
}
