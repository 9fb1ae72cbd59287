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
	"snowlink/snowflake"
)

const (
	// listTrip is how many names List looks at in a round trip once it knows that few of them are
	// wanted.
	listTrip = 1000
	// listFor is how long List goes on looking for more links of a page.
	listFor = 250 * time.Millisecond
)

// List returns links of the owner that the journal names and the query takes. It fails with
// link.ErrCursor, link.ErrEveryone and link.ErrUnavailable.
func (s *Store) List(ctx context.Context, q link.Query) (link.Page, error) {
	if q.Owner == "" {
		return link.Page{}, link.ErrEveryone
	}
	last := ""
	if q.Cursor != "" {
		at, err := base64.RawURLEncoding.DecodeString(q.Cursor)
		if err != nil || !position.Match(at) {
			return link.Page{}, link.ErrCursor
		}
		last = string(at)
	}
	list := link.Page{Newest: new(s.journalMost)}
	listed := make(map[string]bool) // a create that was repeated is named twice
	// As many names as links are asked for are mostly enough.
	for trip, started := q.N, time.Now(); ; trip = listTrip {
		page, more, err := s.journaled(ctx, q, last, trip)
		if err != nil {
			return link.Page{}, err
		}
		for _, e := range page {
			if len(list.Links) == q.N {
				more = true
				break
			}
			last = e.at
			if e.there && !listed[e.Code] {
				listed[e.Code] = true
				list.Links = append(list.Links, e.Coded)
			}
		}
		if !more {
			if q.Cursor == "" {
				list.Total = &link.Total{Links: int64(len(list.Links))}
			}
			return list, nil
		}
		if len(list.Links) == q.N || time.Since(started) > listFor {
			list.Next = base64.RawURLEncoding.EncodeToString([]byte(last))
			return list, nil
		}
	}
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

// journaled reads n names in the journal of the query's owner, and their links: those after the name at
// last in the order of the query, or the first if last is "". It reports whether there may be more.
func (s *Store) journaled(ctx context.Context, q link.Query, last string, n int) (page []journaled, more bool, err error) {
	command, from, end := "xrevrange", "+", "-"
	if q.Oldest {
		command, from, end = "xrange", "-", "+"
	}
	id, at := "", 0
	if m := position.FindStringSubmatch(last); m != nil {
		id, from = m[1], m[1] // whose entry may have more names
		at, _ = strconv.Atoi(m[2])
	}
	cmd := redis.NewXMessageSliceCmd(ctx, command, JournalKey(q.Owner), from, end, "count", n+1)
	if err := s.conn.Do(ctx, cmd); err != nil {
		return nil, false, s.ops.list.Unavailable(s.conn.Reads, err)
	}
	for _, message := range cmd.Val() {
		value, _ := message.Values["c"].(string)
		names := strings.Split(value, " ")
		order := slices.Backward(names)
		if q.Oldest {
			order = slices.All(names)
		}
		for i, name := range order {
			if message.ID == id && (i == at || (i < at) == q.Oldest) {
				continue // they were looked at
			}
			code, _, _ := strings.Cut(name, "@")
			page = append(page, journaled{at: fmt.Sprintf("%s.%d", message.ID, i), name: name, Coded: link.Coded{Code: code}})
		}
	}
	more = len(page) > n || len(cmd.Val()) > n
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
		j := &page[i]
		j.Link = l
		theirs := l.Owner != "" && l.OwnerName() != q.Owner // a link of before has no owner
		j.there = err == nil && !theirs && journalEntry(j.Code, l) == j.name && q.Takes(j.Coded, CreatedAt(j.Code, l), now)
	}
	return page, more, nil
}

// CreatedAt returns when the link was made. A minted code says so itself. For any other code, the
// record does. Zero means that it is not known.
func CreatedAt(code string, l link.Link) time.Time {
	if l.Chosen() {
		return l.Created
	}
	if id, err := snowflake.Decode(code); err == nil {
		return id.Time()
	}
	return time.Time{}
}
