// Package pgstats adds up clicks in the archive's PostgreSQL databases, and answers questions about
// the sums.
//
// Its decisions. A row is all that is known of one scope on one day, packed: a question of three
// months reads ninety rows, and not a million, and no value that a visitor sent is kept longer than the
// row it is in. Batches are appended, so that those who apply them never wait for each other; rows of
// the same scope and day are merged later, by one who tends at a time. And rows never move: a scope is
// written to its present home, and a question asks each database that was its home when there were
// fewer of them, and adds up. So databases can be added while everything runs.
package pgstats

import (
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"sync"
	"time"

	"snowlink/internal/postgres"
	"snowlink/internal/stats"
)

// Options are what a Store may be told.
type Options struct {
	// Keep is for how long hours, and facts in combination, are kept: CLICKS_KEEP. What is older is
	// kept by days and single dimensions, for ever. 0 is 90 days.
	Keep time.Duration
	Log  *slog.Logger // nil is none

	now func() time.Time // for tests
}

// Store keeps clicks in the databases of the archive.
type Store struct {
	shards *postgres.Shards
	keep   time.Duration
	log    *slog.Logger
	now    func() time.Time

	mu    sync.Mutex
	heaps map[heapOf]*heap // of scopes that this process adds to
}

var _ stats.Store = (*Store)(nil)

// New makes a Store over the databases, whose schema must be up to date before it is used.
func New(shards *postgres.Shards, o Options) *Store {
	s := &Store{shards: shards, keep: o.Keep, log: o.Log, now: o.now, heaps: make(map[heapOf]*heap)}
	if s.keep == 0 {
		s.keep = 90 * 24 * time.Hour
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	return s
}

// Since returns the midnight (UTC) since when hours are kept. Days are kept for ever.
func (s *Store) Since(now time.Time) (hours, days time.Time) {
	return now.Add(-s.keep).UTC().Truncate(24 * time.Hour), time.Time{}
}

// cutoff is the first day that is kept by hours.
func (s *Store) cutoff() int32 {
	hours, _ := s.Since(s.now())
	return dayOf(hours)
}

// The scopes as they are written. The first byte is the kind.
const (
	ofLink     = 'l' // and the code
	ofOwner    = 'o' // and the name
	ofOwnerTag = 'p' // and the length of the name, the name and the tag
	ofTag      = 't' // and the tag
	ofAll      = "a"
	ofMisses   = "m"
)

func linkKey(code string) string   { return bounded(string(ofLink) + code) }
func ownerKey(owner string) string { return bounded(string(ofOwner) + owner) }
func tagKey(tag string) string     { return bounded(string(ofTag) + tag) }

func ownerTagKey(owner, tag string) string {
	return bounded(string(append(binary.AppendUvarint([]byte{ofOwnerTag}, uint64(len(owner))), owner+tag...)))
}

func keyOf(s stats.Scope) string {
	switch {
	case s.Code != "":
		return linkKey(s.Code)
	case s.Owner != "" && s.Tag != "":
		return ownerTagKey(s.Owner, s.Tag)
	case s.Owner != "":
		return ownerKey(s.Owner)
	case s.Tag != "":
		return tagKey(s.Tag)
	}
	return ofAll
}

// bounded replaces the end of a text that is too long for an index by a hash of it.
func bounded(key string) string {
	const most = 256
	if len(key) <= most {
		return key
	}
	hash := sha256.Sum256([]byte(key))
	return key[:most-len(hash)] + string(hash[:])
}

const secondsPerDay = 24 * 60 * 60

// hourOf returns the day and the hour of the day, UTC.
func hourOf(t time.Time) (day int32, hour int) {
	s := t.Unix()
	day = dayOf(t)
	return day, int((s - int64(day)*secondsPerDay) / 3600)
}

// dayOf returns the day, UTC. Times that no click has are put into the first day or the last.
func dayOf(t time.Time) int32 {
	s := t.Unix()
	day := s / secondsPerDay
	if s%secondsPerDay < 0 {
		day--
	}
	return int32(min(max(day, -1_000_000), 1_000_000))
}

func timeOf(day int32, hour int) time.Time {
	return time.Unix(int64(day)*secondsPerDay+int64(hour)*3600, 0).UTC()
}

// monthOf returns the month of a day, as clicks_days has it, and which of its days it is, from 0.
func monthOf(day int32) (month int32, slot int) {
	t := timeOf(day, 0)
	return int32(t.Year()*12 + int(t.Month()) - 1), t.Day() - 1
}

// dayIn is the opposite of monthOf.
func dayIn(month int32, slot int) int32 {
	return dayOf(time.Date(0, time.Month(month+1), slot+1, 0, 0, 0, 0, time.UTC))
}
