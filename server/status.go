package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"snowlink/internal/archived"
	"snowlink/internal/postgres"
	"snowlink/internal/progress"
)

const (
	// askFor is how long a database or Redis may take to tell its status.
	askFor = 3 * time.Second
	// archiversRest is how long archivers may take no marks while some wait. It is twice as long as
	// they leave alone what another has taken.
	archiversRest = 20 * time.Second
)

// archiveStatus is the outcome of status.
type archiveStatus struct {
	Redis    redisStatus   `json:"redis"`
	Outbox   outboxStatus  `json:"outbox"`
	Shards   []shardStatus `json:"shards"`
	Moving   bool          `json:"moving"` // a move has begun, and not come to its end
	Problems []string      `json:"problems"`
}

type redisStatus struct {
	Answers    bool   `json:"answers"`
	Policy     string `json:"maxmemory_policy"`
	Used       uint64 `json:"used_bytes"`
	Max        uint64 `json:"max_bytes"`
	Evicted    uint64 `json:"evicted_keys"`
	Keys       uint64 `json:"keys"`
	WithoutTTL uint64 `json:"keys_without_ttl"`
}

type outboxStatus struct {
	Pending int64   `json:"pending_marks"`
	Lag     float64 `json:"lag_seconds"`
	// Archivers is "working", "idle" if there is nothing to do, "none" if marks wait and nobody takes
	// them, or "" if Redis does not answer.
	Archivers string `json:"archivers"`
	// LastTake is how long ago an archiver took marks; nil if none ever did.
	LastTake *float64 `json:"seconds_since_taken"`
}

type shardStatus struct {
	Shard   int     `json:"shard"`
	Address string  `json:"address"`
	Answers bool    `json:"answers"`
	Schema  int64   `json:"schema_version"`
	Newest  int64   `json:"schema_newest"`
	Rows    int64   `json:"rows_estimate"`
	Share   float64 `json:"share"` // of the rows of all that answer
	Bytes   int64   `json:"bytes"`
	Each    int64   `json:"bytes_per_row"`
	// Search is how the database finds words.
	Search postgres.Search `json:"search,omitempty"`
}

func (archiveStatus) soFar() string { return "" }

func (s archiveStatus) table(w io.Writer) {
	if r := s.Redis; !r.Answers {
		fmt.Fprint(w, "Redis\tdoes not answer\n")
	} else {
		policy, bound, free := r.Policy, "no bound", 0.0
		if policy == "" {
			policy = "a policy that it does not tell"
		}
		if r.Max > 0 {
			bound = progress.Sized(int64(r.Max))
		}
		if r.Keys > 0 {
			free = 100 * float64(r.WithoutTTL) / float64(r.Keys)
		}
		fmt.Fprintf(w, "Redis\t%s, %s of %s used, %s keys evicted\n", policy, progress.Sized(int64(r.Used)), bound, progress.Grouped(int64(r.Evicted)))
		fmt.Fprintf(w, "keys\t%s, of which %.1f %% have no time to live, so that Redis keeps them\n", progress.Grouped(int64(r.Keys)), free)
		waiting := "nothing"
		if s.Outbox.Pending > 0 {
			waiting = fmt.Sprintf("%s marks, the oldest for %.1f s", progress.Grouped(s.Outbox.Pending), s.Outbox.Lag)
		}
		fmt.Fprintf(w, "waiting\t%s\n", waiting)
		taken := "none took marks yet"
		if s.Outbox.LastTake != nil {
			taken = fmt.Sprintf("marks were taken %s ago", time.Duration(*s.Outbox.LastTake*float64(time.Second)).Round(100*time.Millisecond))
		}
		does := map[string]string{"working": "work", "idle": "have nothing to do", "none": "do not work"}[s.Outbox.Archivers]
		fmt.Fprintf(w, "archivers\t%s: %s\n", does, taken)
	}
	fmt.Fprint(w, "\nSHARD\tADDRESS\tSCHEMA\tLINKS\tSHARE\tSIZE\tBYTES A LINK\n")
	for _, d := range s.Shards {
		if !d.Answers {
			fmt.Fprintf(w, "%d\t%s\taway\t\t\t\t\n", d.Shard, d.Address)
			continue
		}
		fmt.Fprintf(w, "%d\t%s\t%d of %d\t~%s\t%.1f %%\t%s\t%d\n",
			d.Shard, d.Address, d.Schema, d.Newest, progress.Grouped(d.Rows), 100*d.Share, progress.Sized(d.Bytes), d.Each)
	}
	if finds := s.finds(); finds != "" {
		fmt.Fprintf(w, "\nSearch finds %s.\n", finds)
	}
	if s.Moving {
		fmt.Fprint(w, "\nLinks are being moved: run server archive move until it says that every link is at home.\n")
	}
	fmt.Fprint(w, "\nA number of links with ~ is PostgreSQL's estimate. It has deleted links, too.\n")
}

// finds says what a search finds, and what it takes to find more, if somebody began to see to that. It
// is "" unless all databases answer.
func (s archiveStatus) finds() string {
	var without, unindexed []string
	for _, d := range s.Shards {
		switch d.Search {
		case postgres.WholeWords:
			without = append(without, strconv.Itoa(d.Shard))
		case postgres.Unindexed:
			unindexed = append(unindexed, strconv.Itoa(d.Shard))
		case "":
			return ""
		}
	}
	switch {
	case len(without) == len(s.Shards):
		return "whole words"
	case len(without) > 0:
		return "whole words: for parts of words, pg_trgm is missing in shard " + strings.Join(without, ", ")
	case len(unindexed) > 0:
		return "whole words: for parts of words, run server archive migrate, which builds the index of shard " + strings.Join(unindexed, ", ")
	}
	return "parts of words"
}

// status asks Redis and every database at once. What is away keeps nothing else from showing.
func (u *upkeep) status(ctx context.Context) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	dbs := u.shards.DBs()
	s := archiveStatus{Shards: make([]shardStatus, len(dbs)), Problems: []string{}}
	problems := make([][]string, len(dbs)+1) // Redis's first
	var all sync.WaitGroup
	all.Go(func() { problems[0] = u.redisStatus(ctx, &s) })
	for i, db := range dbs {
		s.Shards[i] = shardStatus{Shard: i + 1, Address: db.Address()}
		all.Go(func() { problems[i+1] = s.Shards[i].ask(ctx, db) })
	}
	all.Wait()
	rows := int64(0)
	for _, d := range s.Shards {
		rows += d.Rows
	}
	for i := range s.Shards {
		if d := &s.Shards[i]; d.Rows > 0 {
			d.Share, d.Each = float64(d.Rows)/float64(rows), d.Bytes/d.Rows
		}
	}
	for _, p := range problems {
		s.Problems = append(s.Problems, p...)
	}
	if len(s.Problems) == 0 { // all of them answer
		var err error
		if s.Moving, err = u.shards.Compare(ctx); err != nil {
			s.Problems = append(s.Problems, oneLine(err))
		}
	}
	if len(s.Problems) > 0 {
		return s, amiss(strings.Join(s.Problems, "\n"))
	}
	return s, nil
}

// redisStatus asks Redis, and returns what is wrong.
func (u *upkeep) redisStatus(ctx context.Context, s *archiveStatus) (wrong []string) {
	info, err := u.conn.Info(ctx)
	if err != nil {
		return []string{"Redis does not answer: " + oneLine(err)}
	}
	s.Redis = redisStatus{true, info.Policy, info.Used, info.Max, info.Evicted, info.Keys, info.Keys - min(info.Expires, info.Keys)}
	if err := u.hot.CheckPolicy(ctx); err != nil {
		wrong = append(wrong, err.Error())
	}
	n, since, err := u.hot.Backlog(ctx)
	if err != nil {
		return append(wrong, "Redis does not tell what waits: "+oneLine(err))
	}
	ago, ever, err := u.hot.LastTake(ctx)
	if err != nil {
		return append(wrong, "Redis does not tell whether archivers work: "+oneLine(err))
	}
	lag := time.Duration(0)
	if n > 0 {
		lag = max(0, time.Since(since))
	}
	s.Outbox = outboxStatus{Pending: n, Lag: lag.Seconds(), Archivers: "working"}
	if ever {
		seconds := ago.Seconds()
		s.Outbox.LastTake = &seconds
	}
	switch resting := !ever || ago > archiversRest; {
	case resting && lag > archiversRest:
		s.Outbox.Archivers = "none"
		wrong = append(wrong, "marks wait, and no archiver takes them: run backends with WORK=on, or server work")
	case resting:
		s.Outbox.Archivers = "idle"
	}
	if lag > archived.LagMost {
		wrong = append(wrong, fmt.Sprintf("archiving is %s behind", lag.Round(time.Second)))
	}
	return wrong
}

// ask asks a database, and returns what is wrong.
func (d *shardStatus) ask(ctx context.Context, db *postgres.DB) (wrong []string) {
	var err error
	if d.Schema, d.Newest, err = db.Version(ctx); err != nil {
		return []string{oneLine(err)}
	}
	d.Answers = true
	if d.Schema < d.Newest {
		wrong = append(wrong, fmt.Sprintf("archive shard %d: its schema is version %d of %d: run server archive migrate", d.Shard, d.Schema, d.Newest))
	}
	if d.Schema == 0 {
		return wrong
	}
	stat, err := db.Stat(ctx)
	if err == nil {
		d.Search, err = db.Search(ctx)
	}
	if err != nil {
		d.Answers = false
		return append(wrong, oneLine(err))
	}
	d.Rows, d.Bytes = stat.Rows, stat.Bytes
	return wrong
}
