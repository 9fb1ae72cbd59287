package redisstore

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/link"
)

const (
	// listTrip is how many names List looks at in a round trip once it knows that few of them are
	// wanted.
	listTrip = 1000
	// listFor is how long List goes on looking for more links of a page.
	listFor = 250 * time.Millisecond
)

// List returns links that owner created and keep takes, the newest first. It fails with
// link.ErrCursor and link.ErrUnavailable.
func (s *Store) List(ctx context.Context, owner, cursor string, n int, keep func(link.Coded) bool) ([]link.Coded, string, error) {
	last := ""
	if cursor != "" {
		at, err := base64.RawURLEncoding.DecodeString(cursor)
		if err != nil || !position.Match(at) {
			return nil, "", link.ErrCursor
		}
		last = string(at)
	}
	var links []link.Coded
	listed := make(map[string]bool) // a create that was repeated is named twice
	// As many names as links are asked for are mostly enough.
	for trip, started := n, time.Now(); len(links) < n; trip = listTrip {
		page, more, err := s.journaled(ctx, owner, last, trip)
		if err != nil {
			return nil, "", err
		}
		for _, e := range page {
			if len(links) == n {
				more = true
				break
			}
			last = e.at
			if e.there && !listed[e.Code] && (keep == nil || keep(e.Coded)) {
				listed[e.Code] = true
				links = append(links, e.Coded)
			}
		}
		if !more {
			return links, "", nil
		}
		if time.Since(started) > listFor {
			break
		}
	}
	return links, base64.RawURLEncoding.EncodeToString([]byte(last)), nil
}

// journaled is a name in a journal, and the link it stands for if that is there.
type journaled struct {
	at    string // its position
	name  string // see journalEntry
	there bool
	link.Coded
}

// position is where a name stands: the ID of its entry, and how many names stand before it there.
var position = regexp.MustCompile(`^([0-9]{1,19}-[0-9]{1,19})\.([0-9]{1,3})$`)

// journaled reads the n names in a journal that are older than the one at last, and their links. If
// last is "", it reads the newest. It reports whether there may be more.
func (s *Store) journaled(ctx context.Context, owner, last string, n int) (page []journaled, more bool, err error) {
	from, before := "+", 0
	id := ""
	if m := position.FindStringSubmatch(last); m != nil {
		id, from = m[1], m[1]
		if before, _ = strconv.Atoi(m[2]); before == 0 {
			from = "(" + id
		}
	}
	cmd := redis.NewXMessageSliceCmd(ctx, "xrevrange", JournalKey(owner), from, "-", "count", n)
	if err := s.conn.Do(ctx, cmd); err != nil {
		return nil, false, s.ops.list.Unavailable(s.conn.Reads, err)
	}
	for _, message := range cmd.Val() {
		value, _ := message.Values["c"].(string)
		names := strings.Split(value, " ")
		if message.ID == id {
			names = names[:min(before, len(names))]
		}
		for i, name := range slices.Backward(names) {
			code, _, _ := strings.Cut(name, "@")
			page = append(page, journaled{at: fmt.Sprintf("%s.%d", message.ID, i), name: name, Coded: link.Coded{Code: code}})
		}
	}
	more = len(cmd.Val()) == n || len(page) > n
	page = page[:min(n, len(page))]
	codes := make([]string, len(page))
	for i, j := range page {
		codes[i] = j.Code
	}
	links, errs := s.getAll(ctx, s.conn.AsidePipe, codes) // which does not make them look used

	now := time.Now()
	for i, l := range links {
		err := errs[i]
		// A link that is missing or unreadable does not keep the others from being listed.
		if err != nil && !errors.Is(err, link.ErrNotFound) && !errors.Is(err, link.ErrUnreadable) {
			return nil, false, err
		}
		page[i].Link = l
		theirs := l.Owner != "" && l.OwnerName() != owner // a link of before has no owner
		page[i].there = err == nil && !theirs && !l.Over(now) && journalEntry(codes[i], l) == page[i].name
	}
	return page, more, nil
}
