package redisstore

import (
	"context"
	"strconv"
	"sync"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/link"
)

// A journal is a stream for each owner. It names each link that the owner created or tried to
// create: only its code, in some 25 bytes at most. Links of the same moment share an entry. An
// entry is written while its links are, so that what was acknowledged is listed. It says nothing of
// what became of a link: List looks.
//
// A name stands for nothing if the link there has another owner. A chosen code is named with the
// time of its creation. If the code was taken, or chosen again after the link was forgotten, the
// link there has another time, and the name stands for nothing either.

// JournalKey is the key of the list of an owner's links.
func JournalKey(owner string) string { return "journal:" + owner }

// journalEntry is the name of a link in a journal. It has no space.
func journalEntry(code string, l link.Link) string {
	if !l.Chosen() {
		return code
	}
	return code + "@" + strconv.FormatInt(millis(l.Created), 10)
}

// journalCmd adds an entry that names links and, if trim is set, cuts off what is too old. A bulk
// trims once.
func (s *Store) journalCmd(ctx context.Context, key any, links string, trim bool) *redis.StringCmd {
	if !trim {
		return redis.NewStringCmd(ctx, "xadd", key, "*", "c", links)
	}
	return redis.NewStringCmd(ctx, "xadd", key, "maxlen", "~", s.journalMax, "*", "c", links)
}

// pageMost is how many links share an entry of a journal at most. An entry for each link took a
// tenth of what creates cost. With more than a few links an entry, JournalMax would say little
// about how many links a journal has.
const pageMost = 4

// A journal writes down what one owner creates: see List. A link that comes while no entry is being
// written is sent at once. One that comes while some are goes on the open page, which is sent when
// one of those has been written, or when it has pageMost links.
type journal struct {
	store *Store
	key   any // a string, as an argument of a command
	trim  bool

	mu       sync.Mutex
	open     *page // takes links; nil if there is none
	underWay int   // pages that are being written
}

// A page is the links of one entry.
type page struct {
	links string // as journalEntry names them, with spaces between
	count int

	sent    chan struct{} // closed once written is set
	written redis.AutoFuture
}

// journal returns the journal of owner. There are only as many as API keys have names.
func (s *Store) journal(owner string) *journal {
	s.journalsMu.RLock()
	j := s.journals[owner]
	s.journalsMu.RUnlock()
	if j != nil {
		return j
	}
	s.journalsMu.Lock()
	defer s.journalsMu.Unlock()
	if s.journals[owner] == nil {
		s.journals[owner] = &journal{store: s, key: JournalKey(owner), trim: true}
	}
	return s.journals[owner]
}

// add puts a link on a page. The page is sent whether anybody waits for it or not.
func (j *journal) add(entry string) *page {
	j.mu.Lock()
	p := j.open
	if p == nil {
		p = &page{links: entry, sent: make(chan struct{})}
		j.open = p
	} else {
		p.links += " " + entry
	}
	p.count++
	due := j.takeDue()
	j.mu.Unlock()
	if due != nil {
		j.send(due)
	}
	return p
}

// takeDue takes the open page away, for the caller to send, if there is one and it need not wait.
// The caller has locked mu.
func (j *journal) takeDue() *page {
	p := j.open
	if p == nil || p.count < pageMost && j.underWay > 0 {
		return nil
	}
	j.open = nil
	j.underWay++
	return p
}

// send sends a page, and the next one once it is written.
func (j *journal) send(p *page) {
	// The context is the page's own, since several creates wait for it. Until it ends, Submit waits
	// for room in the queue.
	ctx, cancel := j.store.conn.Limit(context.Background())
	defer cancel()
	p.written = j.store.conn.Pipe.Submit(ctx, j.store.journalCmd(ctx, j.key, p.links, j.trim))
	close(p.sent)
	go func() { // no create does this: each may be held up, or have left
		_ = p.written.Wait()
		j.mu.Lock()
		j.underWay--
		next := j.takeDue()
		j.mu.Unlock()
		if next != nil {
			j.send(next)
		}
	}()
}

// wait waits until the page is written, or ctx ends.
func (p *page) wait(ctx context.Context) error {
	select {
	case <-p.sent: // mostly; a select of two channels costs a tenth of a microsecond more
	default:
		select {
		case <-p.sent:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return p.written.WaitContext(ctx)
}

// touchJournals makes journals look used. Otherwise an LRU Redis would drop the whole journal of an
// owner who makes and lists nothing for longer than his links are not read.
func (s *Store) touchJournals(ctx context.Context, owners []string) error {
	if s.journalMax == nil || len(owners) == 0 {
		return nil
	}
	pipe := s.conn.Client.Pipeline()
	for _, owner := range owners {
		pipe.Touch(ctx, JournalKey(owner)) // one by one: a Cluster has them in many slots
	}
	_, err := pipe.Exec(ctx)
	return err
}
