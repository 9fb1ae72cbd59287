package redisstore

import (
	"context"
	"sync"

	"github.com/redis/go-redis/v9"
)

// pageMost is how many links share an entry of a journal at most. An entry of its
// own for each took a tenth of what creates cost; of more than these few, a
// journal's entries could not be counted for its links.
const pageMost = 4

// A journal writes down what one owner creates: see List. Links that are created
// at the same moment share an entry: one that comes while others are being written
// waits for the first of them, or until pageMost wait.
type journal struct {
	store *Store
	key   any // a string; as an argument is passed

	mu       sync.Mutex
	open     *page // takes links; nil if there is none
	underWay int   // pages
}

// A page is the links of an entry.
type page struct {
	links string // as journalEntry has them, with spaces between
	count int

	sent    chan struct{} // closed once written is set
	written redis.AutoFuture
}

// journal returns the journal of owner. There are as many as names of keys.
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
		s.journals[owner] = &journal{store: s, key: journalKey(owner)}
	}
	return s.journals[owner]
}

// add puts a link on a page, which will be sent whether anybody waits for it or not.
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
	j.sendIfDue()
	return p
}

// sendIfDue sends the open page, if there is one and it need not wait. It unlocks mu,
// which the caller has locked.
func (j *journal) sendIfDue() {
	p := j.open
	due := p != nil && (p.count == pageMost || j.underWay == 0)
	if due {
		j.open = nil
		j.underWay++
	}
	j.mu.Unlock()
	if !due {
		return
	}
	// It is everyone's whose links are on it. Until its end it waits for a full queue.
	ctx, cancel := j.store.conn.Limit(context.Background())
	defer cancel()
	p.written = j.store.conn.Pipe.Submit(ctx, j.store.journalCmd(ctx, j.key, p.links, true))
	close(p.sent)
	go func() { // not one of those who wait: each may be held up, or have left
		_ = p.written.Wait()
		j.mu.Lock()
		j.underWay--
		j.sendIfDue()
	}()
}

// wait waits until the page is written, or ctx ends.
func (p *page) wait(ctx context.Context) error {
	select {
	case <-p.sent: // mostly: a select of two costs a tenth of a microsecond more
	default:
		select {
		case <-p.sent:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return p.written.WaitContext(ctx)
}
