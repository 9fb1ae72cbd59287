package link

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Query says which links a list has, in which order, and which page of it is asked for.
type Query struct {
	// Owner is the name of the links' owner, as [Link.OwnerName] has it. "" is everyone's.
	Owner string
	// Words are looked for in the target, the code, the title and the tags: a link has all of them,
	// as whole words unless Parts is set, in upper or lower case. "" is no condition.
	Words string
	// Parts has words that [IsPart] takes be found in the middle of words, too. A store that is able to
	// do so sets it, whatever was asked for.
	Parts bool
	// Tag is one that the links have. "" is no condition.
	Tag string
	// States is which links there are in the list.
	States States
	// From and To say when the links were made: at From or later, and before To. Zero is no
	// condition.
	From, To time.Time
	// Oldest puts the oldest first. Otherwise the newest come first.
	Oldest bool
	// Cursor is the Next of the page before, or "" for the first page.
	Cursor string
	// N is how many links a page has at most, 1 or more.
	N int
}

// States are sets of links by what became of them. A link whose visits are used up counts as one
// that leads somewhere: lists do not look at counts.
type States int

// The sets of links.
const (
	Kept     States = iota // neither expired nor deleted
	Active                 // lead somewhere
	Disabled               // disabled, and neither expired nor deleted
	Gone                   // expired or deleted, not longer than Grace ago
)

// Takes reports whether the list has the link, whoever owns it. created is when the link was made,
// and now the time of the question.
func (q Query) Takes(l Coded, created, now time.Time) bool {
	over, disabled := l.Over(now), l.Options != nil && l.Disabled
	switch q.States {
	case Kept:
		if over {
			return false
		}
	case Active:
		if over || disabled {
			return false
		}
	case Disabled:
		if over || !disabled {
			return false
		}
	case Gone: // when it was deleted, the link does not say: the store forgets it in time
		if !over || !l.Deleted && !now.Before(l.Expires.Add(Grace)) {
			return false
		}
	}
	if !q.From.IsZero() && created.Before(q.From) || !q.To.IsZero() && !created.Before(q.To) {
		return false
	}
	if q.Tag != "" && (l.Options == nil || !slices.Contains(l.Tags, q.Tag)) {
		return false
	}
	return q.Words == "" || l.hasWords(q.Words, q.Parts)
}

// hasWords reports whether the link has all of the words, some as parts of others if parts is set.
func (l Coded) hasWords(words string, parts bool) bool {
	_, target, _ := strings.Cut(l.Target, "://") // the scheme would be a word of every link
	texts := []string{l.Code, target}
	if l.Options != nil {
		texts = append(append(texts, l.Title), l.Tags...)
	}
	text := strings.ToLower(strings.Join(texts, " "))
	found := Words(words)
	for _, word := range found {
		if parts && IsPart(word) {
			if !strings.Contains(text, word) {
				return false
			}
		} else if !hasWord(text, word) {
			return false
		}
	}
	return len(found) > 0
}

// Words returns the words of a text in lower case. Whatever is neither a letter nor a digit
// separates them.
func Words(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), isSeparator)
}

// IsPart reports whether the word may be looked for as a part of others: it has three letters or digits
// in a row. An index of trigrams does not help to find less.
func IsPart(word string) bool {
	return slices.ContainsFunc(strings.FieldsFunc(word, unicode.IsMark), func(s string) bool { return utf8.RuneCountInString(s) >= 3 })
}

// isSeparator reports whether r is of no word. Marks are parts of the letters before them.
func isSeparator(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r)
}

// hasWord reports whether the text has the word, with nothing of a word beside it.
func hasWord(text, word string) bool {
	for {
		before, after, ok := strings.Cut(text, word)
		if !ok {
			return false
		}
		last, n := utf8.DecodeLastRuneInString(before)
		first, m := utf8.DecodeRuneInString(after)
		if (n == 0 || isSeparator(last)) && (m == 0 || isSeparator(first)) {
			return true
		}
		_, n = utf8.DecodeRuneInString(word)
		text = text[len(before)+n:]
	}
}

// A Page is a part of a list.
type Page struct {
	Links []Coded
	// Next is the cursor of the next page, or "" if there is none. A page that has one may be short,
	// or empty.
	Next string
	// Total is how many links all pages have together. It is nil where that is not known, and on
	// all pages but the first.
	Total *Total
	// Newest is nil if the list goes back to the first link. Otherwise it has only what a journal
	// remembers: this many links of each owner at least, the newest.
	Newest *int
	// Incomplete reports that many links were made or changed a moment ago, and that some of them
	// may be missing, or be in the list as they were.
	Incomplete bool
}

// Total is a number of links, which may be an estimate.
type Total struct {
	Links    int64
	Estimate bool
}

// A Position is the place of a link in a list by the time at which links were made. It never
// changes: what is made meanwhile moves nothing.
type Position struct {
	Created time.Time // to the microsecond
	Code    string
}

// Cursor returns the position as a cursor.
func (p Position) Cursor() string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(p.Created.UnixMicro(), 10) + "." + p.Code))
}

// earliest and latest are the times that RFC 3339 can write, in Unix microseconds. No database has to
// know others.
var earliest, latest = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro(), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

// ParsePosition reads a cursor. It fails with [ErrCursor] if no Position has it.
func ParsePosition(cursor string) (Position, error) {
	text, _ := base64.RawURLEncoding.DecodeString(cursor)
	micros, code, _ := strings.Cut(string(text), ".")
	at, _ := strconv.ParseInt(micros, 10, 64)
	p := Position{time.UnixMicro(at).UTC(), code}
	if p.Cursor() != cursor || at < earliest || at >= latest || !CouldBeCode(code) {
		return Position{}, ErrCursor
	}
	return p, nil
}

// Compare returns -1 if p is the older position, 1 if it is the newer one, and 0 if they are the
// same. Of links of one time, that with the lesser code is the older one.
func (p Position) Compare(other Position) int {
	if c := p.Created.Compare(other.Created); c != 0 {
		return c
	}
	return strings.Compare(p.Code, other.Code)
}
