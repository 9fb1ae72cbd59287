package redisstore

import (
	"context"
	"encoding/base64"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/server/internal/link"
	"snowlink/server/internal/metrics"
)

// A journal is a stream per owner, with an entry for each link that the owner
// created, or tried to: only its code, some 25 bytes. It is written in the round
// trip that creates the link, so that what was acknowledged is listed, and says
// nothing of what became of the link: List looks.
//
// An entry of a code that was chosen names the time of creation too. A code that
// was taken, or that another owner chose after the link was forgotten, has
// another time, and the entry stands for nothing. Minted codes are nobody else's.

func journalKey(owner string) string { return "journal:" + owner }

// journalEntry is what the journal has of a link.
func journalEntry(code string, l link.Link) string {
	if !isChosen(l) {
		return code
	}
	return code + " " + strconv.FormatInt(millis(l.Created), 10)
}

// journalCmd writes links down as an entry and, if trim is set, cuts what is too
// old off the journal. In a bulk that need not be done for each.
func (s *Store) journalCmd(ctx context.Context, key any, links string, trim bool) *redis.StringCmd {
	if !trim {
		return redis.NewStringCmd(ctx, "xadd", key, "*", "c", links)
	}
	return redis.NewStringCmd(ctx, "xadd", key, "maxlen", "~", s.journalMax, "*", "c", links)
}

// List returns links that owner created, the newest first. It fails with
// link.ErrCursor and link.ErrUnavailable.
func (s *Store) List(ctx context.Context, owner, cursor string, n int) ([]link.Coded, string, error) {
	from := "+"
	if cursor != "" {
		id, err := base64.RawURLEncoding.DecodeString(cursor)
		if err != nil || !streamID.Match(id) {
			return nil, "", link.ErrCursor
		}
		from = "(" + string(id)
	}
	entries := redis.NewXMessageSliceCmd(ctx, "xrevrange", journalKey(owner), from, "-", "count", n)
	if err := s.do(ctx, entries); err != nil {
		return nil, "", s.unavailable(metrics.OpList, &s.outage, err)
	}
	page := entries.Val()
	codes := make([]string, len(page))
	for i, entry := range page {
		codes[i], _, _ = strings.Cut(entryOf(entry), " ")
	}
	found, errs := s.GetAll(ctx, codes)

	now := time.Now()
	links := make([]link.Coded, 0, len(page))
	listed := make(map[string]bool, len(page)) // a create that was repeated has two entries
	for i, l := range found {
		err, code := errs[i], codes[i]
		switch {
		case errors.Is(err, link.ErrNotFound), errors.Is(err, errUnreadable): // the others are listed
			continue
		case err != nil:
			return nil, "", err
		case listed[code] || journalEntry(code, l) != entryOf(page[i]):
			continue
		case l.Options != nil && (l.Deleted || !l.Expires.IsZero() && !now.Before(l.Expires)):
			continue
		}
		listed[code] = true
		links = append(links, link.Coded{Code: code, Link: l})
	}
	next := ""
	if n > 0 && len(page) == n {
		next = base64.RawURLEncoding.EncodeToString([]byte(page[n-1].ID))
	}
	return links, next, nil
}

var streamID = regexp.MustCompile(`^[0-9]{1,19}-[0-9]{1,19}$`)

// entryOf is what journalEntry made of a link.
func entryOf(m redis.XMessage) string {
	entry, _ := m.Values["c"].(string)
	return entry
}
