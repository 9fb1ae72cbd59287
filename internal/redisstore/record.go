package redisstore

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"snowlink/internal/link"
)

// A record is the value of a link's key. Its first line is the target, so that redis-cli GET
// link:abc reads well and a plain link costs no more than its URL. The second line, if the link has
// options or an owner, is the owner and those that differ from a plain link's, as JSON with short
// names.
//
// Equal links have equal records: that is how a repeated create recognises its first try. In front
// of an archive a record has a number, too: see package archived/model.

// LinkKey is the key of a link.
func LinkKey(code string) string { return "link:" + code }

// visitsKey is the key of the number of visits that a link with a limit has left. Its hash tag is
// the whole key of the link, so that a Cluster has both in one slot.
func visitsKey(code string) string { return "visits:{" + LinkKey(code) + "}" }

// recordOptions is link.Options in a record, and the owner. A name is never used again for
// something else, since old records stay.
type recordOptions struct {
	Status       int      `json:"s,omitzero"`
	Expires      int64    `json:"e,omitzero"` // Unix milliseconds
	MaxVisits    int64    `json:"m,omitzero"`
	ForwardQuery bool     `json:"q,omitzero"`
	Disabled     bool     `json:"x,omitzero"`
	Deleted      bool     `json:"d,omitzero"`
	Created      int64    `json:"c,omitzero"` // Unix milliseconds
	Nonce        uint32   `json:"n,omitzero"`
	Title        string   `json:"t,omitzero"`
	Tags         []string `json:"g,omitempty"`
	Owner        string   `json:"o,omitzero"`
	Number       int64    `json:"v,omitzero"` // of the record: no option of the link
}

func encodeRecord(l link.Link) string { return encodeNumbered(l, 0) }

// encodeNumbered is encodeRecord of the record with that number.
func encodeNumbered(l link.Link, number int64) string {
	if l.Options == nil && l.Owner == "" && number == 0 {
		return l.Target
	}
	o := l.Options
	if o == nil {
		o = new(link.Options)
	}
	options, err := json.Marshal(recordOptions{
		Status: o.Status, Expires: millis(o.Expires), MaxVisits: o.MaxVisits, ForwardQuery: o.ForwardQuery,
		Disabled: o.Disabled, Deleted: o.Deleted, Created: millis(o.Created), Nonce: o.Nonce, Title: o.Title, Tags: o.Tags,
		Owner: l.Owner, Number: number,
	}, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic(err) // only bad UTF-8 could be an error, and it is allowed
	}
	if string(options) == "{}" {
		return l.Target
	}
	return l.Target + "\n" + string(options)
}

// errNoTarget is that of a record which would lead its visitors nowhere. Nobody writes such a one.
var errNoTarget = errors.New("a record without a target")

// decodeRecord reads a record that encodeRecord wrote, of this version or a later one. It ignores
// options that it does not know. Options that it cannot read are an error: whether the link may be
// followed is then unknown.
func decodeRecord(record string) (link.Link, error) {
	target, options, ok := strings.Cut(record, "\n")
	if !ok {
		if target == "" {
			return link.Link{}, errNoTarget
		}
		return link.Link{Target: target}, nil
	}
	options, _, _ = strings.Cut(options, "\n") // a later version may have more lines
	var o recordOptions
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return link.Link{}, fmt.Errorf("options of a record: %w", err)
	}
	if target == "" && !o.Deleted {
		return link.Link{}, errNoTarget
	}
	// A near cache may keep the link for long, and a target that is not copied would keep the whole
	// record with it.
	l := link.Link{Target: strings.Clone(target), Owner: o.Owner}
	decoded := link.Options{
		Status: o.Status, Expires: fromMillis(o.Expires), MaxVisits: o.MaxVisits, ForwardQuery: o.ForwardQuery,
		Disabled: o.Disabled, Deleted: o.Deleted, Created: fromMillis(o.Created), Nonce: o.Nonce, Title: o.Title, Tags: o.Tags,
	}
	if !reflect.ValueOf(decoded).IsZero() { // a link that only has an owner redirects as a plain one
		l.Options = &decoded
	}
	return l, nil
}

// numberOf is the number of a record: 0 when its link was created, and one more with each change.
func numberOf(record string) int64 {
	_, options, ok := strings.Cut(record, "\n")
	if !ok {
		return 0
	}
	options, _, _ = strings.Cut(options, "\n")
	var o struct {
		Number int64 `json:"v"`
	}
	_ = json.Unmarshal([]byte(options), &o) // a record that cannot be read is not changed either
	return o.Number
}

// equalLinks reports whether two records are of equal links, whatever their numbers.
func equalLinks(a, b string) bool {
	if a == b || numberOf(a) == numberOf(b) {
		return a == b
	}
	l, err := decodeRecord(a)
	m, otherErr := decodeRecord(b)
	return err == nil && otherErr == nil && encodeRecord(l) == encodeRecord(m)
}

// forgetAt is when Redis shall forget a link that is written now, in Unix milliseconds. 0 is never.
// In front of an archive it is for the archiver to say, once the archive has the link: what has a
// time to live may be evicted.
func (s *Store) forgetAt(l link.Link) int64 {
	switch {
	case l.Options == nil || s.outbox != nil:
		return 0
	case l.Deleted:
		return time.Now().Add(link.Grace).UnixMilli()
	case !l.Expires.IsZero():
		return l.Expires.Add(link.Grace).UnixMilli()
	}
	return 0
}

// version is the version of a link that has this record, as link.State has it.
func version(record string) string {
	sum := sha256.Sum256([]byte(record))
	return hex.EncodeToString(sum[:16])
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
