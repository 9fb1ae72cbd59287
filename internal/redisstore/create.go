package redisstore

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/link"
)

// createLimited is SET NX GET for a link with a limit of visits. ARGV[1] is its record. If that is
// stored, so is ARGV[2], the count of its visits. Redis forgets both at ARGV[3], unless that is 0.
var createLimited = newScript(`
local function set(key, value, ...)
  if ARGV[3] == "0" then
    return redis.call("SET", key, value, ...)
  end
  return redis.call("SET", key, value, "PXAT", ARGV[3], ...)
end
local old = set(KEYS[1], ARGV[1], "NX", "GET")
if not old then
  set(KEYS[2], ARGV[2])
end
return old`, false)

// Create stores l under code as a link of owner and writes it down in that one's journal. It also
// succeeds if code stands for an equal link already: that is the first try of a write whose answer
// was lost. It fails with link.ErrExists if another link is there, with link.ErrFull if Redis has
// no room and evicts nothing, and otherwise with link.ErrUnavailable: then the link may or may not
// be stored.
func (s *Store) Create(ctx context.Context, owner, code string, l link.Link) error {
	l = l.OwnedBy(owner)
	record := encodeRecord(l)
	limited, cancel := s.conn.Limit(ctx)
	defer cancel()
	created := s.createCmd(limited, code, record, l)
	sent := s.conn.Pipe.Submit(limited, created)
	var err, journalErr error
	var mark *page
	if s.outbox != nil { // it is on its way while the link is
		mark = s.outbox.add(code)
	}
	if s.journalMax == nil {
		err = sent.WaitContext(limited)
	} else { // so is the entry
		p := s.journal(owner).add(journalEntry(code, l))
		err = sent.WaitContext(limited)
		journalErr = p.wait(limited) // mostly written by now
	}
	var old string
	if err == nil {
		old = created.Val()
	} else if l.Limit() > 0 && redis.HasErrorPrefix(err, "NOSCRIPT") {
		old, err = s.run(ctx, createLimited, linkKeys(code), s.createdArgs(record, l)...)
	}
	if mark != nil && journalErr == nil && (err == nil || errors.Is(err, redis.Nil)) {
		journalErr = s.marked(limited, mark, code)
	}
	if err = s.created(old, record, err, journalErr); l.Chosen() && !errors.Is(err, link.ErrExists) {
		// See announceChosen. In a Cluster it is sent after Create returns.
		limited = context.WithoutCancel(limited)
		s.conn.Pipe.Submit(limited, redis.NewIntCmd(limited, "publish", ChangesChannel, code))
	}
	return err
}

// announceChosen tells the near caches that chosen codes have links now. Somebody may have asked
// for them before, and a near cache remembers for a moment that there was none. Minted codes are
// new to everyone. A lost message costs no more than that moment, so nobody waits for it. In a
// Cluster any node passes it on, and the one that was asked may hang.
func (s *Store) announceChosen(ctx context.Context, codes ...string) {
	pipe := s.conn.Aside.Pipeline()
	for _, code := range codes {
		pipe.Publish(ctx, ChangesChannel, code)
	}
	_, _ = pipe.Exec(ctx)
}

// createCmd stores a link under a code that is free. Otherwise it answers with the record that is
// there.
func (s *Store) createCmd(ctx context.Context, code, record string, l link.Link) *redis.StringCmd {
	if l.Limit() > 0 {
		return createLimited.call(ctx, "evalsha", createLimited.sha, linkKeys(code), s.createdArgs(record, l))
	}
	if at := s.forgetAt(l); at > 0 {
		return redis.NewStringCmd(ctx, "set", LinkKey(code), record, "nx", "get", "pxat", at)
	}
	return redis.NewStringCmd(ctx, "set", LinkKey(code), record, "nx", "get")
}

// createdArgs are the arguments of createLimited.
func (s *Store) createdArgs(record string, l link.Link) []any {
	return []any{record, l.MaxVisits, s.forgetAt(l)}
}

var errNoAnswer = errors.New("the command was not answered")

// answered is the error of a command that never answers with "". go-redis leaves commands without
// error and answer if a Redis error ends their connection before they are sent.
func answered(cmd *redis.StringCmd) error {
	if err := cmd.Err(); err != nil || cmd.Val() != "" {
		return err
	}
	return errNoAnswer
}

// created is the error of a create. If err is nil, old is the record that was there. journalErr is
// that of its entry in the journal, or of its mark.
func (s *Store) created(old, record string, err, journalErr error) error {
	switch {
	case err != nil && !errors.Is(err, redis.Nil):
		return s.ops.create.NotWritten(s.conn.Writes, err)
	case err == nil && old == "": // see answered
		return s.ops.create.Unavailable(s.conn.Writes, errNoAnswer)
	case err == nil && !equalLinks(old, record): // redis.Nil means that there was none
		s.conn.Writes.Ended()
		return link.ErrExists
	case journalErr != nil:
		// The link is stored, but it may never be listed, or archived only by a sweep: the create
		// has to be repeated. This is no refusal, even if Redis had no room for the journal.
		return s.ops.create.Unavailable(s.conn.Writes, journalErr)
	}
	s.conn.Writes.Ended()
	return nil
}
