package redisstats

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"snowlink/internal/deadline"
)

const (
	// daysKey is a hash: for each day, and for totals, about how many bytes their pages take.
	daysKey = "clicks:bytes"

	unbounded = 64 << 20 // the bound without maxmemory
	share     = 10       // of maxmemory: a tenth
	lookEvery = time.Minute
)

// lookUpMost finds out what the bound is, now and then.
func (s *Store) lookUpMost(ctx context.Context) {
	if s.o.Most > 0 {
		s.most.Store(s.o.Most)
		return
	}
	s.most.Store(s.share.Bytes(ctx))
}

// account takes note of how the memory of days changed, and forgets the oldest while there is too
// much.
func (s *Store) account(ctx context.Context, cost map[int]int64) error {
	pipe := s.conn.Aside.Pipeline()
	for day, bytes := range cost {
		pipe.HIncrBy(ctx, daysKey, field(day), bytes)
	}
	pipe.Expire(ctx, daysKey, s.o.Keep+48*time.Hour)
	kept := pipe.HGetAll(ctx, daysKey)
	if _, err := pipe.Exec(ctx); err != nil && !redis.IsOOMError(err) {
		return err
	}
	if kept.Err() != nil { // while a Redis that is full only did not take the costs
		return kept.Err()
	}
	for {
		oldest, sum := "", int64(0)
		for name, text := range kept.Val() {
			bytes, _ := strconv.ParseInt(text, 10, 64) // only HINCRBY writes it
			sum += max(0, bytes)
			if name != field(totals) && (oldest == "" || name < oldest) {
				oldest = name
			}
		}
		s.bytes.Set(float64(sum))
		most := s.most.Load()
		over := most > 0 && sum > most
		day, err := time.Parse(time.DateOnly, oldest)
		if err == nil {
			s.oldest.Store(int64(s.oldestKept(dayOf(day))))
		}
		if !over || err != nil || oldest >= field(dayOf(time.Now())) {
			if s.full.Swap(over) != over && over && s.fullOn.Swap(int64(dayOf(time.Now()))) != int64(dayOf(time.Now())) {
				s.log.Warn("the clicks of today alone take all memory that clicks may take: those of links and tags are left out until tomorrow", "bytes", sum, "most", most)
			}
			return nil
		}
		if err := s.forgetDay(ctx, dayOf(day)); err != nil {
			return err
		}
		s.forgotten.Inc()
		s.log.Warn("clicks of the oldest day were forgotten, since clicks took more memory than they may", "day", oldest, "bytes", sum, "most", most)
		if kept = s.conn.Aside.HGetAll(ctx, daysKey); kept.Err() != nil {
			return kept.Err()
		}
	}
}

// oldestKept is the oldest day of which there are clicks, if it is within what is kept; otherwise 0.
func (s *Store) oldestKept(day int) int {
	if day <= s.firstKept(time.Now()) {
		return 0
	}
	return day
}

// forgetDay deletes the pages of a day.
func (s *Store) forgetDay(ctx context.Context, day int) error {
	pipe := s.conn.Aside.Pipeline()
	for number := range daysPages {
		pipe.Unlink(ctx, pageID{day, number}.key())
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	for number := range daysPages { // it is no loss if they are new
		s.rewriteAt.Delete(pageID{day, number})
	}
	return s.conn.Aside.HDel(ctx, daysKey, field(day)).Err()
}

const (
	// tendedKey says that somebody tended within tendEvery.
	tendedKey = "clicks:tended"
	tendEvery = time.Hour
	tendTime  = time.Minute // for one look at everything
	// settledAfter is how many days after a day it is settled. Until then batches may be repeated.
	settledAfter = identityDays
)

// Tend counts anew how much memory each day takes, every hour, since what Apply accounts for is lost
// if it is killed. And it settles days that are long over: their visitors become a number. It
// returns nil when ctx ends.
func (s *Store) Tend(ctx context.Context) error {
	for {
		if err := s.tendOnce(ctx); err != nil && ctx.Err() == nil {
			_ = s.ops.tend.Unavailable(s.conn.Writes, err)
		}
		if !deadline.Sleep(ctx, lookEvery) {
			return nil
		}
	}
}

// tendOnce tends unless somebody did within the hour.
func (s *Store) tendOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, tendTime)
	defer cancel()
	s.lookUpMost(ctx)
	mine, err := s.conn.Aside.SetNX(ctx, tendedKey, 1, tendEvery).Result()
	if err != nil || !mine {
		return err
	}
	err = s.tend(ctx)
	if err != nil {
		_ = s.conn.Aside.Del(ctx, tendedKey).Err() // somebody tries again in a minute
	}
	return err
}

func (s *Store) tend(ctx context.Context) error {
	today := dayOf(time.Now())
	s.rewriteAt.Range(func(id, _ any) bool {
		if day := id.(pageID).day; day != totals && day < today-settledAfter {
			s.rewriteAt.Delete(id)
		}
		return true
	})
	known, err := s.conn.Aside.HGetAll(ctx, daysKey).Result()
	if err != nil {
		return err
	}
	for name := range known { // of days that Redis has forgotten, pages and all
		if day, err := time.Parse(time.DateOnly, name); err == nil && dayOf(day) < s.firstKept(time.Now())-2 {
			if err := s.conn.Aside.HDel(ctx, daysKey, name).Err(); err != nil {
				return err
			}
		}
	}
	settled := func(day int) string { return "clicks:settled:" + field(day) }
	for day := today - settledAfter; day > today-2*settledAfter; day-- {
		mine, err := s.conn.Aside.SetNX(ctx, settled(day), 1, 4*settledAfter*24*time.Hour).Result()
		if err != nil {
			return err
		}
		if !mine {
			continue
		}
		if err := s.settle(ctx, day); err != nil {
			return errors.Join(err, s.conn.Aside.Del(ctx, settled(day)).Err())
		}
	}
	for name := range known {
		day := totals
		if at, err := time.Parse(time.DateOnly, name); err == nil {
			day = dayOf(at)
		}
		if err := s.recount(ctx, day); err != nil {
			return err
		}
	}
	return s.account(ctx, nil)
}

// settle rewrites the pages of a day that is long over.
func (s *Store) settle(ctx context.Context, day int) error {
	ids := make([]pageID, daysPages)
	for n := range ids {
		ids[n] = pageID{day, n}
	}
	cost := make(map[int]int64)
	if err := s.rewrite(ctx, ids, rewriting{settle: true}, cost); err != nil {
		return err
	}
	return s.account(ctx, cost)
}

// recount counts the memory of a day anew. What others account for meanwhile may be lost or counted
// twice: the next one mends it.
func (s *Store) recount(ctx context.Context, day int) error {
	pages, byte := daysPages, int64(growingCost)
	if day == totals {
		pages = totalsPages
	} else if day <= dayOf(time.Now())-settledAfter {
		byte = 1
	}
	sum := int64(0)
	for from := 0; from < pages; from += tripCommands {
		pipe := s.conn.Aside.Pipeline()
		var lengths []*redis.IntCmd
		for n := from; n < min(from+tripCommands, pages); n++ {
			lengths = append(lengths, pipe.StrLen(ctx, pageID{day, n}.key()))
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
		for _, l := range lengths {
			if l.Val() > 0 {
				sum += l.Val()*byte + keyCost
			}
		}
	}
	if sum == 0 {
		return s.conn.Aside.HDel(ctx, daysKey, field(day)).Err()
	}
	return s.conn.Aside.HSet(ctx, daysKey, field(day), sum).Err()
}
