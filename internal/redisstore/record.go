package redisstore

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"snowlink/internal/link"
)

// A record is the value of a link's key: the target on the first line, so that
// redis-cli GET link:abc reads well and a plain link pays for its URL and
// nothing else. A link with options has them on the second line, as JSON with
// short names, and only those that differ from a plain link's.
//
// Equal links have equal records: that is how a repeated create recognises
// itself.

func linkKey(code string) string { return "link:" + code }

// visitsKey holds how many visits a link with a limit has left. Its hash tag is
// all of the link's key, so that Cluster keeps both in one slot.
func visitsKey(code string) string { return "visits:{" + linkKey(code) + "}" }

// recordOptions is link.Options as it stands in a record. A name that once stood
// for something never stands for something else: old records stay.
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
}

func encodeRecord(l link.Link) string {
	if l.Options == nil {
		return l.Target
	}
	o := l.Options
	options, err := json.Marshal(recordOptions{
		Status: o.Status, Expires: millis(o.Expires), MaxVisits: o.MaxVisits, ForwardQuery: o.ForwardQuery,
		Disabled: o.Disabled, Deleted: o.Deleted, Created: millis(o.Created), Nonce: o.Nonce, Title: o.Title, Tags: o.Tags,
	}, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic(err) // bad UTF-8 was the one thing that could be wrong with it
	}
	if string(options) == "{}" {
		return l.Target
	}
	return l.Target + "\n" + string(options)
}

// decodeRecord reads what encodeRecord, of this version or a later one, wrote:
// options it does not know are ignored. It is an error when they cannot be read:
// whether the link may be followed is then unknown.
func decodeRecord(record string) (link.Link, error) {
	target, options, ok := strings.Cut(record, "\n")
	if !ok {
		return link.Link{Target: target}, nil
	}
	options, _, _ = strings.Cut(options, "\n") // a later version may have more lines
	var o recordOptions
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return link.Link{}, fmt.Errorf("options of a record: %w", err)
	}
	// A link may be kept for long, and its target would keep the whole record.
	return link.Link{Target: strings.Clone(target), Options: &link.Options{
		Status: o.Status, Expires: fromMillis(o.Expires), MaxVisits: o.MaxVisits, ForwardQuery: o.ForwardQuery,
		Disabled: o.Disabled, Deleted: o.Deleted, Created: fromMillis(o.Created), Nonce: o.Nonce, Title: o.Title, Tags: o.Tags,
	}}, nil
}

// forgetAt is when Redis is to forget a link that is written now, in Unix
// milliseconds; 0 is never.
func forgetAt(l link.Link) int64 {
	switch {
	case l.Options == nil:
		return 0
	case l.Deleted:
		return time.Now().Add(link.Grace).UnixMilli()
	case !l.Expires.IsZero():
		return l.Expires.Add(link.Grace).UnixMilli()
	}
	return 0
}

// version is link.State.Version.
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
