package redisstore

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/link"
)

// What package archived needs to bring back what Redis forgot, and to keep codes that only the
// archive has from being given again. The scripts are those of package archived/model, which says
// why they are as they are.

const (
	// passTime is how long a pass is there at most: longer than what is done with it takes.
	passTime = 10 * time.Second
	// restoredTime is how long Redis keeps a record that was restored, unless it is evicted before.
	restoredTime = time.Hour
)

// ErrPass reports that somebody wrote the link since the pass was issued, or that the pass ran out.
var ErrPass = errors.New("the pass has ended")

// passKey is the key of the pass of a link, in one slot with it.
func passKey(code string) string { return "pass:{" + LinkKey(code) + "}" }

// Record is a link as it stands in Redis, or in the archive.
type Record struct {
	Code string
	// Number is 0 when the link is created, and one more with each change.
	Number int64
	// Text is the value in Redis, byte for byte.
	Text string
	// Link is what Text says.
	link.Link
}

// Record reads a record. It fails with link.ErrUnreadable.
func (s *Store) Record(code, text string) (Record, error) {
	l, err := s.decode(code, text)
	return Record{code, numberOf(text), text, l}, err
}

// Is reports whether the record is of an equal link, whatever its number.
func (r Record) Is(l link.Link) bool { return equalLinks(r.Text, encodeRecord(l)) }

// Renumbered returns the record with another number.
func (r Record) Renumbered(number int64) Record {
	r.Number, r.Text = number, encodeNumbered(r.Link, number)
	return r
}

// miss answers with the record, after an r, or else with a pass, after a p: the one that is there,
// or ARGV[1], which ends after ARGV[2] milliseconds.
var miss = newScript(`
local record = redis.call("GET", KEYS[1])
if record then
  return "r" .. record
end
redis.call("SET", KEYS[2], ARGV[1], "NX", "PX", ARGV[2])
return "p" .. redis.call("GET", KEYS[2])`, true)

// A Miss is what Redis says of a code when it is asked once more: a record, or a pass. While a pass
// is there, nobody has written the link since it was issued.
type Miss struct {
	Found  bool
	Record Record // if it was found
	Pass   string // otherwise
	Err    error  // wraps link.ErrUnavailable or link.ErrUnreadable
}

// Miss looks each code up once more, and issues a pass or shares the one that is there, in one step.
func (s *Store) Miss(ctx context.Context, codes []string) []Miss {
	ctx, cancel := s.conn.Limit(ctx)
	defer cancel()
	keys, args := make([][]any, len(codes)), make([][]any, len(codes))
	for i, code := range codes {
		keys[i] = []any{LinkKey(code), passKey(code)}
		args[i] = []any{strconv.FormatUint(rand.Uint64(), 36), passTime.Milliseconds()}
	}
	misses := make([]Miss, len(codes))
	answers, errs := s.runAll(ctx, s.piped, miss, keys, args)
	for i, answer := range answers {
		m := &misses[i]
		switch {
		case errs[i] != nil:
			m.Err = s.ops.miss.Unavailable(s.conn.Reads, errs[i])
		case answer[0] == 'r':
			m.Found = true
			m.Record, m.Err = s.Record(codes[i], answer[1:])
		default:
			m.Pass = answer[1:]
		}
	}
	return misses
}

// restore puts the record ARGV[2] back for ARGV[3] milliseconds, if there is none and the pass is
// ARGV[1].
var restore = newScript(`
if redis.call("GET", KEYS[2]) == ARGV[1] then
  redis.call("SET", KEYS[1], ARGV[2], "NX", "PX", ARGV[3])
end
return 1`, true)

// Restore puts records back for an hour at most, each if there is none and its pass is still there.
// It tells of no failure: whoever misses the link again restores it.
func (s *Store) Restore(ctx context.Context, records []Record, passes []string) {
	ctx, cancel := s.conn.Limit(ctx)
	defer cancel()
	keys, args := make([][]any, len(records)), make([][]any, len(records))
	for i, r := range records {
		keys[i] = []any{LinkKey(r.Code), passKey(r.Code)}
		args[i] = []any{passes[i], r.Text, restoredTime.Milliseconds()}
	}
	_, errs := s.runAll(ctx, s.piped, restore, keys, args)
	for _, err := range errs {
		if err != nil {
			_ = s.ops.restore.NotWritten(s.conn.Writes, err) // counts it
		}
	}
}

// createFenced stores the record ARGV[2], and the count of its visits ARGV[3] unless that is 0, if
// there is no record and the pass is ARGV[1]. It answers with 1, with the record that is there after
// an r, or with 0 if the pass has ended.
var createFenced = newScript(`
local record = redis.call("GET", KEYS[1])
if record then
  return "r" .. record
elseif redis.call("GET", KEYS[2]) ~= ARGV[1] then
  redis.call("SETRANGE", KEYS[2], 0, "") -- does nothing, but fails if Redis is full, which evicts passes
  return 0
end
redis.call("SET", KEYS[1], ARGV[2])
if ARGV[3] ~= "0" then
  redis.call("SET", KEYS[3], ARGV[3])
end
redis.call("DEL", KEYS[2])
return 1`, false)

// Fenced is a link to be created under a code that the archive may have.
type Fenced struct {
	link.Coded
	// Number is that of its record: 0, or one more than that of the link that had the code before.
	Number int64
	// Pass is one that was issued before the archive was asked for the code. With any other value no
	// link is created, but one that is there is found.
	Pass string
}

// CreateFenced creates links, each as Create does, if nobody has written it since its pass was
// issued. Otherwise, and if no other link is there, it fails with ErrPass.
func (s *Store) CreateFenced(ctx context.Context, owner string, links []Fenced) []error {
	ctx, cancel := s.conn.Limit(ctx)
	defer cancel()
	keys, args := make([][]any, len(links)), make([][]any, len(links))
	links = slices.Clone(links)
	for i := range links {
		links[i].Link = links[i].OwnedBy(owner)
		l := links[i]
		keys[i] = []any{LinkKey(l.Code), passKey(l.Code), visitsKey(l.Code)}
		args[i] = []any{l.Pass, encodeNumbered(l.Link, l.Number), l.Limit()}
	}
	// Journals name what was tried to create. A bulk's names come in order, in a trip of their own.
	send, journaled := s.piped, func(int) error { return nil }
	if len(links) > 1 {
		send = s.aside
	}
	switch {
	case s.journalMax == nil:
	case len(links) == 1:
		p := s.journal(owner).add(journalEntry(links[0].Code, links[0].Link))
		journaled = func(int) error { return p.wait(ctx) }
	default:
		var entries []*redis.StringCmd
		for some := range slices.Chunk(links, pageMost) {
			names := make([]string, len(some))
			for i, l := range some {
				names[i] = journalEntry(l.Code, l.Link)
			}
			entries = append(entries, s.journalCmd(ctx, JournalKey(owner), strings.Join(names, " "), len(entries) == 0))
		}
		errs := s.aside(ctx, entries)
		journaled = func(i int) error { return errs[i/pageMost] }
	}
	answers, errs := s.runAll(ctx, send, createFenced, keys, args)

	// A mark comes after its create. What was there may be the first try of one that did not come to
	// its mark.
	marks := make([]*page, len(links))
	for i, l := range links {
		switch {
		case errs[i] != nil: // see below
		case answers[i] == "0":
			errs[i] = ErrPass
		case answers[i] != "1" && !equalLinks(answers[i][1:], encodeRecord(l.Link)):
			errs[i] = link.ErrExists
		default:
			marks[i] = s.outbox.add(l.Code)
		}
	}
	var chosen []string
	for i, l := range links {
		if marks[i] == nil {
			if !errors.Is(errs[i], link.ErrExists) && !errors.Is(errs[i], ErrPass) {
				errs[i] = s.ops.create.NotWritten(s.conn.Writes, errs[i])
			}
			continue
		}
		err := s.marked(ctx, marks[i], l.Code)
		if err == nil {
			err = journaled(i)
		}
		errs[i] = s.created("", "", redis.Nil, err)
		if l.Chosen() {
			chosen = append(chosen, l.Code)
		}
	}
	if chosen != nil {
		go s.announceChosen(context.WithoutCancel(ctx), chosen...)
	}
	return errs
}

// A sender sends commands and waits for their answers. It returns their errors: after one of ctx a
// command may still be under way, and must not be read.
type sender func(ctx context.Context, cmds []*redis.StringCmd) []error

// piped sends commands in round trips with whatever else is waiting.
func (s *Store) piped(ctx context.Context, cmds []*redis.StringCmd) []error {
	sent, errs := make([]redis.AutoFuture, len(cmds)), make([]error, len(cmds))
	for i, cmd := range cmds {
		sent[i] = s.conn.Pipe.Submit(ctx, cmd)
	}
	for i := range sent {
		errs[i] = sent[i].WaitContext(ctx)
	}
	return errs
}

// aside sends commands on a connection of their own, bulkSize in a round trip.
func (s *Store) aside(ctx context.Context, cmds []*redis.StringCmd) []error {
	errs := make([]error, 0, len(cmds))
	for some := range slices.Chunk(cmds, bulkSize) {
		pipe := s.conn.Aside.Pipeline()
		for _, cmd := range some {
			_ = pipe.Process(ctx, cmd) // queues it
		}
		_, failed := pipe.Exec(ctx)
		for _, cmd := range some {
			err := cmd.Err()
			if failed != nil {
				err = answered(cmd)
			}
			errs = append(errs, err)
		}
	}
	return errs
}

// runAll runs a script once for each of keys and args, as run does, in as few round trips as can be.
func (s *Store) runAll(ctx context.Context, send sender, sc script, keys, args [][]any) (answers []string, errs []error) {
	const bySource, evenIfFull = 1, 2
	answers, errs = make([]string, len(keys)), make([]error, len(keys))
	forms, open := make([]int, len(keys)), make([]int, len(keys))
	for i := range open {
		open[i] = i
	}
	for len(open) > 0 {
		cmds := make([]*redis.StringCmd, len(open))
		for k, i := range open {
			switch forms[i] {
			case bySource:
				cmds[k] = sc.call(ctx, "eval", sc.source, keys[i], args[i])
			case evenIfFull:
				cmds[k] = sc.call(ctx, "eval", "#!lua flags=allow-oom\n"+sc.source, keys[i], args[i])
			default:
				cmds[k] = sc.call(ctx, "evalsha", sc.sha, keys[i], args[i])
			}
		}
		var again []int
		for k, err := range send(ctx, cmds) {
			i := open[k]
			switch errs[i] = err; {
			case err == nil:
				answers[i] = cmds[k].Val()
			case redis.HasErrorPrefix(err, "NOSCRIPT") && forms[i] < bySource:
				forms[i], again = bySource, append(again, i)
			case redis.IsOOMError(err) && sc.evenIfFull && forms[i] < evenIfFull:
				forms[i], again = evenIfFull, append(again, i)
			}
		}
		open = again
	}
	return answers, errs
}
