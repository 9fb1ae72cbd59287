package httpapi

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"snowlink/internal/link"
)

// Limits of the options of a link. They bound what a link costs in Redis.
const (
	maxTTL    = 100 * 365 * 24 * 60 * 60 // seconds
	maxVisits = 1_000_000_000
	maxTitle  = 255 // characters
	maxTags   = 10
	maxTag    = 50 // characters

	tagRule = "1 to %d characters, no comma or control character, and no space at its start or end."
)

// fields are the fields that a create and a change have in common.
type fields struct {
	URL          field[string]   `json:"url"`
	LongURL      field[string]   `json:"long_url"` // the name that older clients use
	ExpiresAt    field[string]   `json:"expires_at"`
	TTL          field[int64]    `json:"ttl"`
	MaxVisits    field[int64]    `json:"max_visits"`
	Status       field[int]      `json:"status"`
	ForwardQuery field[bool]     `json:"forward_query"`
	Title        field[string]   `json:"title"`
	Tags         field[[]string] `json:"tags"`
}

// A fieldError tells the client which field breaks which rule.
type fieldError struct{ detail string }

func (e *fieldError) Error() string { return e.detail }

func fieldErrorf(format string, args ...any) error {
	return &fieldError{fmt.Sprintf(format, args...)}
}

// target returns the target of the request, under whichever name its URL was sent.
func (f *fields) target(own link.Hosts) (string, error) {
	raw, long := f.URL.value, f.LongURL.value
	switch {
	case raw == "" && long == "":
		return "", &link.TargetError{Detail: `The field "url" is missing or empty.`}
	case raw != "" && long != "" && raw != long:
		return "", &link.TargetError{Detail: `The fields "url" and "long_url" differ; send one of them.`}
	case raw == "":
		raw = long
	}
	return link.ParseTarget(raw, own)
}

// hasOptions reports whether any field but the URL is there.
func (f *fields) hasOptions() bool {
	return f.ExpiresAt.set || f.TTL.set || f.MaxVisits.set || f.Status.set || f.ForwardQuery.set || f.Title.set || f.Tags.set
}

// apply sets the options that the request has in o, as of now. Null removes an option. Its error is
// a *fieldError.
func (f *fields) apply(o *link.Options, now time.Time) error {
	if f.ExpiresAt.set || f.TTL.set {
		at, err := f.expiry(now)
		if err != nil {
			return err
		}
		o.Expires = at
	}
	if f.MaxVisits.set {
		n := f.MaxVisits.value
		if !f.MaxVisits.null && (n < 1 || n > maxVisits) {
			return fieldErrorf(`The field "max_visits" must be from 1 to 1,000,000,000.`)
		}
		o.MaxVisits = n
	}
	if f.Status.set {
		switch status := f.Status.value; {
		case f.Status.null, status == 302: // what a link answers anyway
			o.Status = 0
		case status == 301, status == 307, status == 308:
			o.Status = status
		default:
			return fieldErrorf(`The field "status" must be 301, 302, 307 or 308.`)
		}
	}
	if f.ForwardQuery.set {
		o.ForwardQuery = f.ForwardQuery.value
	}
	if f.Title.set {
		title := f.Title.value
		if utf8.RuneCountInString(title) > maxTitle || strings.ContainsFunc(title, unicode.IsControl) {
			return fieldErrorf(`The field "title" must have at most %d characters and no control characters.`, maxTitle)
		}
		o.Title = title
	}
	if f.Tags.set {
		tags, err := parseTags(f.Tags.value)
		if err != nil {
			return err
		}
		o.Tags = tags
	}
	return nil
}

// expiry returns when the link is to expire, to the millisecond, or zero for never.
func (f *fields) expiry(now time.Time) (time.Time, error) {
	switch {
	case f.ExpiresAt.given() && f.TTL.given():
		return time.Time{}, fieldErrorf(`The fields "expires_at" and "ttl" both say when the link expires; send one of them.`)
	case f.TTL.given():
		if f.TTL.value < 1 || f.TTL.value > maxTTL {
			return time.Time{}, fieldErrorf(`The field "ttl" must be from 1 to 3,153,600,000 seconds, which are 100 years.`)
		}
		return now.UTC().Truncate(time.Millisecond).Add(time.Duration(f.TTL.value) * time.Second), nil
	case f.ExpiresAt.given():
		var at time.Time
		if err := at.UnmarshalText([]byte(f.ExpiresAt.value)); err != nil {
			return time.Time{}, fieldErrorf(`The field "expires_at" must be a time such as 2030-12-31T23:59:59Z (RFC 3339).`)
		}
		at = at.UTC().Truncate(time.Millisecond)
		if !at.After(now) {
			return time.Time{}, fieldErrorf(`The field "expires_at" must be in the future.`)
		}
		if at.After(now.Add(maxTTL * time.Second)) {
			return time.Time{}, fieldErrorf(`The field "expires_at" must be within 100 years.`)
		}
		return at, nil
	}
	return time.Time{}, nil
}

// parseTags returns the tags without repetitions, or nil if there are none.
func parseTags(raw []string) ([]string, error) {
	var tags []string
	for _, tag := range raw {
		if !isTag(tag) {
			return nil, fieldErrorf(`Each of the "tags" must have `+tagRule, maxTag)
		}
		if !slices.Contains(tags, tag) {
			tags = append(tags, tag)
		}
		if len(tags) > maxTags {
			return nil, fieldErrorf(`The field "tags" must have at most %d tags.`, maxTags)
		}
	}
	return tags, nil
}

// isTag reports whether s can be a tag. A tag has no comma, because commas separate tags elsewhere,
// as in a CSV.
func isTag(s string) bool {
	return s != "" && utf8.RuneCountInString(s) <= maxTag && strings.TrimSpace(s) == s &&
		!strings.ContainsFunc(s, func(r rune) bool { return r == ',' || unicode.IsControl(r) })
}

// orNil returns a pointer to o, or nil if o says nothing that a plain link does not.
func orNil(o link.Options) *link.Options {
	if reflect.ValueOf(o).IsZero() {
		return nil
	}
	return &o
}
