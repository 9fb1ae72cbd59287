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
// another time, and the entry stands for nothing. A minted code says its time
// itself: when it was forgotten and somebody imports it again as it was, both have
// it in their lists.

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

const (
	// listTrip is how many entries List looks at in a round trip once it knows that
	// few of them are wanted.
	listTrip = 1000
	// listFor is how long List goes on to fill a page.
	listFor = 250 * time.Millisecond
)

// List returns links that owner created and keep takes, the newest first. It fails
// with link.ErrCursor and link.ErrUnavailable.
func (s *Store) List(ctx context.Context, owner, cursor string, n int, keep func(link.Coded) bool) ([]link.Coded, string, error) {
	last := ""
	if cursor != "" {
		id, err := base64.RawURLEncoding.DecodeString(cursor)
		if err != nil || !streamID.Match(id) {
			return nil, "", link.ErrCursor
		}
		last = string(id)
	}
	var links []link.Coded
	listed := make(map[string]bool) // a create that was repeated has two entries
	// As many entries as are asked for are mostly enough.
	for trip, started := n, time.Now(); len(links) < n; trip = listTrip {
		page, err := s.journaled(ctx, owner, last, trip)
		if err != nil {
			return nil, "", err
		}
		for _, e := range page {
			if len(links) == n {
				break
			}
			last = e.id
			if e.there && !listed[e.Code] && (keep == nil || keep(e.Coded)) {
				listed[e.Code] = true
				links = append(links, e.Coded)
			}
		}
		if len(page) < trip && (len(page) == 0 || last == page[len(page)-1].id) {
			return links, "", nil
		}
		if time.Since(started) > listFor {
			break
		}
	}
	return links, base64.RawURLEncoding.EncodeToString([]byte(last)), nil
}

// journaled is an entry of a journal with the link it stands for, if that is there.
type journaled struct {
	id    string
	there bool
	link.Coded
}

// journaled reads the n entries of a journal that are older than last, "" being
// the start, and their links.
func (s *Store) journaled(ctx context.Context, owner, last string, n int) ([]journaled, error) {
	from := "+"
	if last != "" {
		from = "(" + last
	}
	cmd := redis.NewXMessageSliceCmd(ctx, "xrevrange", journalKey(owner), from, "-", "count", n)
	if err := s.do(ctx, cmd); err != nil {
		return nil, s.unavailable(metrics.OpList, &s.outage, err)
	}
	entries := cmd.Val()
	codes := make([]string, len(entries))
	for i, entry := range entries {
		codes[i], _, _ = strings.Cut(entryOf(entry), " ")
	}
	links, errs := s.GetAll(ctx, codes)

	now := time.Now()
	page := make([]journaled, len(entries))
	for i, l := range links {
		err := errs[i]
		if err != nil && !errors.Is(err, link.ErrNotFound) && !errors.Is(err, errUnreadable) { // the others are listed
			return nil, err
		}
		over := l.Options != nil && (l.Deleted || !l.Expires.IsZero() && !now.Before(l.Expires))
		page[i] = journaled{
			id: entries[i].ID, Coded: link.Coded{Code: codes[i], Link: l},
			there: err == nil && !over && journalEntry(codes[i], l) == entryOf(entries[i]),
		}
	}
	return page, nil
}

var streamID = regexp.MustCompile(`^[0-9]{1,19}-[0-9]{1,19}$`)

// entryOf is what journalEntry made of a link.
func entryOf(m redis.XMessage) string {
	entry, _ := m.Values["c"].(string)
	return entry
}
