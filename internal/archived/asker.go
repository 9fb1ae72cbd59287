package archived

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"snowlink/internal/link"
	"snowlink/internal/postgres"
	"snowlink/internal/redisstore"
)

const (
	// askTime is how long it may take to answer questions. Whoever asks may give up before.
	askTime = 1500 * time.Millisecond
	// askMost is how many codes a query asks for, and atOnce how many queries of a database are under
	// way. What comes meanwhile waits for the next one: so misses of a moment share it.
	askMost = 256
	atOnce  = 4
)

// askers is an asker for each database: nobody waits for one that hangs but who needs it.
type askers struct {
	shards *postgres.Shards
	of     map[*postgres.DB]*asker
}

func newAskers(shards *postgres.Shards, answer func([]*question)) askers {
	as := askers{shards, make(map[*postgres.DB]*asker)}
	for _, db := range shards.DBs() {
		as.of[db] = newAsker(answer)
	}
	return as
}

// ask returns what is found under the code. The error wraps link.ErrNotFound if it is nowhere, and
// link.ErrUnavailable if that is not known.
func (as askers) ask(ctx context.Context, code string) (archived, error) {
	return as.of[as.shards.Home(code)].ask(ctx, code)
}

// restore is ask that returns only once the record has been restored, if that could be.
func (as askers) restore(ctx context.Context, code string) error {
	return as.of[as.shards.Home(code)].restore(ctx, code)
}

// asker gathers what is asked at the same time. Whoever asks joins only a question that nobody has
// begun to answer: a link that was deleted since would come back to a reader that began after the
// delete. Of one code, no two questions are being answered at once: so a storm of readers of one
// cold code makes one query, and those who came later find the link restored.
type asker struct {
	answer func([]*question) // sets found and err of each and calls done, before it returns

	mu      sync.Mutex
	waiting map[string]*question // nobody has begun to answer them
	order   []*question          // of those, the ones whose code is not being answered, the oldest first
	asked   map[string]bool      // codes that are being answered
	running int
}

// question is a code that is asked for, by everyone who waits for it.
type question struct {
	code     string
	until    time.Time     // when the last of them gives up
	answered chan struct{} // closed once found and err are set
	found    archived
	err      error
	restored chan struct{} // closed once Redis has it again, if it could be restored
}

func (q *question) done(found archived, err error) {
	q.found, q.err = found, err
	close(q.answered)
}

func newAsker(answer func([]*question)) *asker {
	return &asker{answer: answer, waiting: make(map[string]*question), asked: make(map[string]bool)}
}

// ask is askers.ask.
func (a *asker) ask(ctx context.Context, code string) (archived, error) {
	q := a.question(ctx, code)
	if err := waitFor(ctx, q.answered); err != nil {
		return archived{}, err
	}
	return q.found, q.err
}

// restore is askers.restore.
func (a *asker) restore(ctx context.Context, code string) error {
	q := a.question(ctx, code)
	if err := waitFor(ctx, q.restored); err != nil {
		return err
	}
	return q.err
}

func waitFor(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", link.ErrUnavailable, ctx.Err())
	}
}

// question asks for a code, or joins who does.
func (a *asker) question(ctx context.Context, code string) *question {
	until := time.Now().Add(requestTime)
	if end, ok := ctx.Deadline(); ok {
		until = end
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.waiting[code]
	if q == nil {
		q = &question{code: code, answered: make(chan struct{}), restored: make(chan struct{})}
		a.waiting[code] = q
		if !a.asked[code] {
			a.order = append(a.order, q)
			if a.running < atOnce {
				a.running++
				go a.run()
			}
		}
	}
	if until.After(q.until) {
		q.until = until
	}
	return q
}

// run answers until no question is left.
func (a *asker) run() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.order) > 0 {
		// What nobody waits for any more would pile up in an outage, and be asked after it before what
		// somebody does wait for.
		var questions []*question
		now := time.Now()
		for len(a.order) > 0 && len(questions) < askMost {
			q := a.order[0]
			a.order = a.order[1:]
			delete(a.waiting, q.code)
			if !now.Before(q.until) {
				q.done(archived{}, fmt.Errorf("%w: %w", link.ErrUnavailable, context.DeadlineExceeded))
				close(q.restored)
				continue
			}
			a.asked[q.code] = true
			questions = append(questions, q)
		}
		if len(questions) == 0 {
			break
		}
		a.mu.Unlock()
		a.answer(questions)
		a.mu.Lock()
		for _, q := range questions {
			close(q.restored)
			delete(a.asked, q.code)
			if next := a.waiting[q.code]; next != nil {
				a.order = append(a.order, next)
			}
		}
	}
	a.running--
}

// answerRows asks the archive alone.
func (s *Store) answerRows(questions []*question) {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	codes := make([]string, len(questions))
	for i, q := range questions {
		codes[i] = q.code
	}
	s.metrics.queries.Inc()
	for i, a := range s.archive.get(ctx, codes) {
		questions[i].done(a.archived, a.err)
	}
}

// answerCold asks Redis for a record or a pass, then the archive; what is found there is restored.
func (s *Store) answerCold(questions []*question) {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	codes := make([]string, len(questions))
	for i, q := range questions {
		codes[i] = q.code
	}
	misses := s.hot.Miss(ctx, codes)
	codes = codes[:0]
	var open []*question
	var passes []string
	var hotErrs []error // of those for which Redis went away meanwhile
	for i, q := range questions {
		m := misses[i]
		switch {
		case m.Found:
			q.done(archived{Record: m.Record}, m.Err)
			continue
		case m.Err != nil && !errors.Is(m.Err, link.ErrUnavailable):
			q.done(archived{}, m.Err)
			continue
		}
		open, codes, passes, hotErrs = append(open, q), append(codes, q.code), append(passes, m.Pass), append(hotErrs, m.Err)
	}
	if len(open) == 0 {
		return
	}
	s.metrics.queries.Inc()
	now := time.Now()
	var back []redisstore.Record
	var backPasses []string
	for i, a := range s.archive.get(ctx, codes) {
		q := open[i]
		if a.err == nil && a.forgotten(now) {
			a = answer{err: link.ErrNotFound}
		}
		switch {
		case hotErrs[i] != nil && (a.err != nil || a.Limit() > 0):
			a = answer{err: hotErrs[i]}
		case hotErrs[i] != nil:
			s.metrics.stale.Inc()
		case a.err == nil:
			s.metrics.restored.Inc()
			back, backPasses = append(back, a.Record), append(backPasses, passes[i])
		}
		q.done(a.archived, a.err)
	}
	if len(back) > 0 {
		s.hot.Restore(ctx, back, backPasses)
	}
}
