package redisstats

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// A page is rewritten once what was appended is as long as the rest, and this long.
	rewriteDay, rewriteTotals = 4 << 10, 1 << 10
	// rewriteTrip is how many pages are rewritten in one round trip.
	rewriteTrip = 32
	// identityDays is for how many days a page of totals knows who appended to it. A queue repeats
	// nothing for so long.
	identityDays = 4
)

// A rewriting is why pages are rewritten.
type rewriting struct {
	settle bool   // the day is long over: identities, and who the visitors were, matter no more
	forget string // a code: its sums are left out
}

// replace puts ARGV[3] in the place of the first ARGV[2] bytes of a page, if it still begins with
// ARGV[1]. It answers how long the page is now, or -1.
const replace = `
if redis.call("GETRANGE", KEYS[1], 0, #ARGV[1] - 1) ~= ARGV[1] then
  return -1
end
local page = ARGV[3] .. redis.call("GETRANGE", KEYS[1], ARGV[2], -1)
redis.call("SET", KEYS[1], page, "KEEPTTL")
return #page`

var replaceHash = redis.NewScript(replace).Hash()

// rewriteMin is what a page of the kind is at least before it is rewritten.
func rewriteMin(id pageID) int64 {
	if id.day == totals {
		return rewriteTotals
	}
	return rewriteDay
}

// growingCost is how much memory Redis takes for each byte of a page that something was appended to:
// it makes room for as much again (sdsMakeRoomFor in its sds.c). A day that is settled takes what it
// needs. keyCost is what a key takes beside its value (measured, Redis 7.0).
const growingCost, keyCost = 2, 130

// grow does what pages need now that they have grown: the longest are rewritten, and memory is
// accounted for and bounded. A page that this process knows, and that is new, had been lost.
func (s *Store) grow(ctx context.Context, pages []drawn, lengths []int64) error {
	cost := make(map[int]int64) // by day
	var long []pageID
	first := s.firstKept(time.Now())
	for i, p := range pages {
		added := int64(len(p.text))
		cost[p.id.day] += growingCost * added
		if lengths[i] == added {
			cost[p.id.day] += keyCost
		}
		limit, known := s.rewriteAt.LoadOrStore(p.id, 2*rewriteMin(p.id))
		if expired := p.id.day != totals && p.id.day < first; known && lengths[i] == added && !expired {
			s.gone.Inc()
			s.evicted.Observed(fmt.Errorf("the page %s is gone: redis has evicted it, or somebody has deleted it", p.id.key()))
		}
		if lengths[i] > limit.(int64) {
			long = append(long, p.id)
		}
	}
	err := s.rewrite(ctx, long, rewriting{}, cost)
	if accounted := s.account(ctx, cost); err == nil {
		err = accounted
	}
	return err
}

// rewrite rewrites pages as one segment each. What changed meanwhile is left as it is, unless it is
// to forget a link: then it is tried again. It adds to cost how the memory of days changes.
func (s *Store) rewrite(ctx context.Context, ids []pageID, why rewriting, cost map[int]int64) error {
	for len(ids) > 0 {
		some := ids[:min(rewriteTrip, len(ids))]
		ids = ids[len(some):]
		texts, err := s.read(ctx, some)
		if err != nil {
			return err
		}
		var changed []pageID
		pipe := s.conn.Aside.Pipeline()
		var replaced []*redis.Cmd
		var news []string
		var olds []string
		for i, text := range texts {
			if len(text) < headLength {
				continue // it is gone
			}
			name := ""
			if why.forget != "" {
				if name = linkName(why.forget); some[i].day == totals {
					name = why.forget
				}
				if p, err := readPage(text, name, 0); err != nil {
					return err
				} else if p.scopes[name] == nil {
					continue
				}
			}
			p, err := readPage(text, "", everyList)
			if err != nil {
				return err
			}
			delete(p.scopes, name)
			s.tidy(p, some[i].day, why.settle)
			whole := string(p.appendWhole(nil))
			if some[i].day == totals {
				whole = s.cutTotals(p, whole)
			}
			cmd := redis.NewCmd(ctx, "evalsha", replaceHash, 1, some[i].key(), text[:headLength], len(text), whole)
			_ = pipe.Process(ctx, cmd) // queues it
			replaced, news, olds, changed = append(replaced, cmd), append(news, whole), append(olds, text), append(changed, some[i])
		}
		if len(replaced) == 0 {
			continue
		}
		_, _ = pipe.Exec(ctx) // each command has its own error
		for i, cmd := range replaced {
			length, err := cmd.Int64()
			if redis.HasErrorPrefix(err, "NOSCRIPT") {
				length, err = s.conn.Aside.Eval(ctx, replace, []string{changed[i].key()}, olds[i][:headLength], len(olds[i]), news[i]).Int64()
			}
			if redis.IsOOMError(err) { // it makes room, and the embedded Redis, which does not know the flag, is never full
				length, err = s.conn.Aside.Eval(ctx, "#!lua flags=allow-oom\n"+replace, []string{changed[i].key()}, olds[i][:headLength], len(olds[i]), news[i]).Int64()
			}
			switch {
			case err != nil:
				return err
			case length < 0:
				if why.forget != "" {
					ids = append(slices.Clone(ids), changed[i])
				}
				continue
			}
			s.rewriteAt.Store(changed[i], max(2*length, rewriteMin(changed[i])+length))
			shorter := int64(len(olds[i]) - len(news[i]))
			if cost[changed[i].day] -= growingCost * shorter; why.settle {
				cost[changed[i].day] -= (growingCost - 1) * int64(len(news[i]))
			}
		}
	}
	return nil
}

// tidy makes a page of a day short.
func (s *Store) tidy(p *page, day int, settle bool) {
	for _, sums := range p.scopes {
		sums.tidy(p.facts.list)
		if settle {
			sums.settle()
		}
	}
	now := dayOf(time.Now())
	for producer, n := range p.producers {
		if settle || day == totals && n.day < now-identityDays {
			delete(p.producers, producer)
		}
	}
	if day == totals {
		first := s.firstKept(time.Now())
		for code, sums := range p.scopes {
			if sums.last < first {
				delete(p.scopes, code)
			}
		}
	}
}

// firstKept is the first day of which clicks are kept, if there is room.
func (s *Store) firstKept(now time.Time) int { return dayOf(now.Add(-s.o.Keep)) }

// cutTotals leaves out the totals of those links that were not clicked for longest, so that all
// totals take no more than a quarter of the memory.
func (s *Store) cutTotals(p *page, whole string) string {
	most := int(s.most.Load()) / 4 / growingCost / totalsPages
	if most == 0 || len(whole) <= most || len(p.scopes) < 2 {
		return whole
	}
	codes := make([]string, 0, len(p.scopes))
	for code := range p.scopes {
		codes = append(codes, code)
	}
	sort.Slice(codes, func(a, b int) bool {
		if x, y := p.scopes[codes[a]].last, p.scopes[codes[b]].last; x != y {
			return x < y
		}
		return codes[a] < codes[b]
	})
	for _, code := range codes[:len(codes)*(len(whole)-most*3/4)/len(whole)] {
		delete(p.scopes, code)
	}
	return string(p.appendWhole(nil))
}

// read returns the texts of pages, "" for those that are not there.
func (s *Store) read(ctx context.Context, ids []pageID) ([]string, error) {
	pipe := s.conn.Aside.Pipeline()
	for _, id := range ids {
		pipe.Get(ctx, id.key())
	}
	cmds, _ := pipe.Exec(ctx) // each command has its own error
	texts := make([]string, len(ids))
	for i, cmd := range cmds {
		text, err := cmd.(*redis.StringCmd).Result()
		if err != nil && err != redis.Nil {
			return nil, err
		}
		texts[i] = text
	}
	return texts, nil
}
