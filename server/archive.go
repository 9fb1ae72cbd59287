package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"snowlink/internal/archived"
	"snowlink/internal/deadline"
	"snowlink/internal/postgres"
	"snowlink/internal/progress"
	"snowlink/internal/redisconn"
	"snowlink/internal/redisstore"
)

// upkeep is a command that looks after the archive, and what it works with.
type upkeep struct {
	cfg      config
	log      *slog.Logger
	progress *progress.Bar
	shards   *postgres.Shards
	conn     *redisconn.Conn // nil if the command needs no Redis
	hot      *redisstore.Store
}

// An outcome is what a command found or did. It is printed as a table for people, or as JSON.
type outcome interface {
	table(w io.Writer)
	// soFar says how far the command came, if it did not come to its end.
	soFar() string
}

// amiss is the error of a command that came to its end and found something wrong.
type amiss string

func (a amiss) Error() string { return string(a) }

// upkeeps are the subcommands of server archive.
var upkeeps = []upkeepCommand{
	{"status", "show what waits to be archived, and what each database holds", true, false, (*upkeep).status},
	{"backfill", "archive what Redis has and the archive has not, as from before it", true, true, (*upkeep).backfill},
	{"verify", "compare every link in Redis with the archive", true, true, (*upkeep).verify},
	{"move", "bring links home after databases were added to ARCHIVE_URL", true, true, (*upkeep).move},
	{"migrate", "update each schema, as every start does, and build pg_trgm's index", false, false, (*upkeep).migrate},
}

type upkeepCommand struct {
	name, about string
	needsRedis  bool
	logs        bool // outages, which it outlasts; the others tell of each error themselves
	do          func(*upkeep, context.Context) (outcome, error)
}

func archiveUsage() string {
	var b strings.Builder
	b.WriteString("usage: server archive COMMAND [-json]\n\nLooks after the archive. The environment is that of the backends.\n\n")
	for _, u := range upkeeps {
		fmt.Fprintf(&b, "  %-9s %s\n", u.name, u.about)
	}
	b.WriteString(`
All of them work while backends run, and while none does. Each may be broken off
and run again. Results go to standard output, with -json as one object; progress
goes to standard error. The exit status is not 0 if something is wrong.
`)
	return b.String()
}

// archiveCommand does what args say to the archive.
func archiveCommand(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	name := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("archive", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // run says what is wrong
	asJSON := flags.Bool("json", false, "")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp), err == nil && name == "" && flags.NArg() == 0, name == "help":
		fmt.Fprint(stdout, archiveUsage())
		return nil
	case err != nil:
		return fmt.Errorf("archive: %w\n\n%s", err, archiveUsage())
	case flags.NArg() > 0:
		return fmt.Errorf("archive: %q is too much: it takes one command, before -json\n\n%s", flags.Arg(0), archiveUsage())
	}
	i := slices.IndexFunc(upkeeps, func(c upkeepCommand) bool { return c.name == name })
	if i < 0 {
		return fmt.Errorf("archive: unknown command %q\n\n%s", name, archiveUsage())
	}

	cfg, err := readConfig(environ, false)
	if err != nil {
		return fmt.Errorf("configuration:\n%w\nsee: server help", err)
	}
	u, err := openUpkeep(cfg, upkeeps[i], stderr)
	if err != nil {
		return fmt.Errorf("archive %s: %w", name, err)
	}
	defer u.close()
	found, err := upkeeps[i].do(u, ctx)
	u.progress.End()
	if found == nil {
		return fmt.Errorf("archive %s: %w", name, err)
	}
	_, wrong := errors.AsType[amiss](err)
	complete := err == nil || wrong
	if *asJSON {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(found); err != nil {
			return err
		}
	} else if complete {
		if err := writeTable(stdout, found); err != nil {
			return err
		}
	}
	switch {
	case complete && !wrong:
		return nil
	case complete:
		return fmt.Errorf("archive %s: %w", name, err)
	case ctx.Err() != nil:
		return fmt.Errorf("archive %s was broken off: %s. It can be run again", name, found.soFar())
	}
	return fmt.Errorf("archive %s stopped: %s. It can be run again. What stopped it: %w", name, found.soFar(), err)
}

// writeTable writes the cells of an outcome, which tabs separate, in columns.
func writeTable(w io.Writer, found outcome) error {
	var cells strings.Builder
	columns := tabwriter.NewWriter(&cells, 0, 0, 3, ' ', 0)
	found.table(columns)
	if err := columns.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(cells.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// openUpkeep opens what a command works with. It connects to nothing yet.
func openUpkeep(cfg config, c upkeepCommand, stderr io.Writer) (u *upkeep, err error) {
	if cfg.ArchiveURL == "" {
		return nil, errors.New("ARCHIVE_URL is not set, so there is no archive; set it as the backends have it. See: server help")
	}
	if c.needsRedis && cfg.RedisURL == "" {
		return nil, errors.New("REDIS_URL is not set; set it as the backends have it. See: server help")
	}
	u = &upkeep{cfg: cfg, progress: progress.New(stderr), log: slog.New(slog.DiscardHandler)}
	if c.logs {
		u.log = slog.New(slog.NewTextHandler(u.progress, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	registry := prometheus.NewRegistry() // which nobody asks
	if u.shards, err = postgres.Open(cfg.ArchiveURL, cfg.ShardsBefore, u.log, registry); err != nil {
		return nil, fmt.Errorf("ARCHIVE_URL: %w", err)
	}
	if !c.needsRedis {
		return u, nil
	}
	if u.conn, err = redisconn.Open(cfg.RedisURL, u.log, registry); err != nil {
		u.shards.Close()
		return nil, fmt.Errorf("REDIS_URL: %w", err)
	}
	u.hot = redisstore.New(u.conn, redisstore.Options{JournalMax: cfg.JournalMax, Archived: true})
	return u, nil
}

func (u *upkeep) close() {
	if u.conn != nil {
		u.conn.Close()
	}
	u.shards.Close()
}

func (u *upkeep) archiver() *archived.Archiver {
	return archived.NewArchiver(u.hot, u.shards, u.log, prometheus.NewRegistry())
}

// links returns about how many links Redis has: there are few other keys.
func (u *upkeep) links(ctx context.Context) (int64, error) {
	info, err := u.conn.Info(ctx)
	return int64(info.Keys), err
}

// backfilled is the outcome of a backfill.
type backfilled struct {
	Complete bool  `json:"complete"`
	Links    int64 `json:"links"`
	Marked   int64 `json:"marked"`
	Pending  int64 `json:"pending_marks"`
}

func (b backfilled) soFar() string {
	return fmt.Sprintf("it had looked at %s links and marked %s, and %s marks were waiting for an archiver",
		progress.Grouped(b.Links), progress.Grouped(b.Marked), progress.Grouped(b.Pending))
}

func (b backfilled) table(w io.Writer) {
	fmt.Fprintf(w, "links in Redis\t%s\t\n", progress.Grouped(b.Links))
	fmt.Fprintf(w, "not archived before\t%s\tor with visits left, which are looked at each time\n", progress.Grouped(b.Marked))
	fmt.Fprintf(w, "marks that wait now\t%s\tof links that were written meanwhile\n", progress.Grouped(b.Pending))
}

// backfill marks what is not archived, and archives beside whoever does so already.
func (u *upkeep) backfill(ctx context.Context) (outcome, error) {
	if err := archived.Prepare(ctx, u.hot, u.shards); err != nil {
		return nil, err
	}
	of, err := u.links(ctx)
	if err != nil {
		return nil, err
	}
	archiver := u.archiver()
	archiving, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { _ = archiver.Run(archiving) }) // it returns nil
	defer work.Wait()
	defer stop()

	var b backfilled
	u.progress.Begin("looking for links that are not archived")
	swept, err := archiver.Sweep(ctx, func(s archived.Swept) { u.progress.Tell(s.Links, of) })
	b.Links, b.Marked = swept.Links, swept.Marked
	if err == nil {
		// What expires or was deleted before there was an archive has a time to live already, so that
		// no sweep finds it. Redis evicts it first.
		u.progress.Begin("comparing links with the archive")
		var found archived.Verified
		found, err = archiver.Verify(ctx, func(v archived.Verified) { u.progress.Tell(v.Links, of) })
		b.Marked += found.Wrong
	}
	if err != nil {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		b.Pending, _, _ = u.hot.Backlog(after) // 0 if Redis is away
		return b, err
	}
	// What is marked from now on is not for us to wait for. Marks have the time of Redis.
	until, err := u.conn.Client.Time(ctx).Result()
	if err != nil {
		return b, err
	}
	u.progress.Begin("waiting until they are archived")
	for most := int64(0); ; {
		n, since, err := u.hot.Backlog(ctx) // whose outage is logged
		if err == nil {
			b.Pending, most = n, max(most, n)
			if n == 0 || since.After(until) {
				b.Complete = true
				return b, nil
			}
			u.progress.Tell(most-n, most)
		}
		if !deadline.Sleep(ctx, progress.DrawEvery) {
			return b, ctx.Err()
		}
	}
}

// verified is the outcome of verify.
type verified struct {
	Complete   bool        `json:"complete"`
	Links      int64       `json:"links"`
	Same       int64       `json:"same"`
	Pending    int64       `json:"pending"`
	Wrong      int64       `json:"wrong"`
	Examples   []string    `json:"examples"`
	Unreadable int64       `json:"unreadable"`
	Rows       int64       `json:"rows"`
	Shards     []shardRows `json:"shards"`
}

type shardRows struct {
	Shard   int    `json:"shard"`
	Address string `json:"address"`
	Rows    int64  `json:"rows_estimate"`
}

func (v verified) soFar() string {
	return fmt.Sprintf("it had compared %s links, of which %s were wrong", progress.Grouped(v.Links), progress.Grouped(v.Wrong))
}

func (v verified) table(w io.Writer) {
	fmt.Fprintf(w, "links in Redis\t%s\t\n", progress.Grouped(v.Links))
	fmt.Fprintf(w, "  archived as they are\t%s\t\n", progress.Grouped(v.Same))
	fmt.Fprintf(w, "  not archived yet\t%s\tRedis keeps them until they are\n", progress.Grouped(v.Pending))
	fmt.Fprintf(w, "  wrong\t%s\tRedis may evict them, and the archive differs\n", progress.Grouped(v.Wrong))
	fmt.Fprintf(w, "  unreadable\t%s\tnot by us, and not archived\n", progress.Grouped(v.Unreadable))
	fmt.Fprintf(w, "links in the archive\t%s\tthose deleted among them\n", progress.Grouped(v.Rows))
	for _, s := range v.Shards {
		fmt.Fprintf(w, "  shard %d\tabout %s\t%s\n", s.Shard, progress.Grouped(s.Rows), s.Address)
	}
}

// verify compares Redis with the archive.
func (u *upkeep) verify(ctx context.Context) (outcome, error) {
	if err := archived.Prepare(ctx, u.hot, u.shards); err != nil {
		return nil, err
	}
	of, err := u.links(ctx)
	if err != nil {
		return nil, err
	}
	u.progress.Begin("comparing links with the archive")
	found, err := u.archiver().Verify(ctx, func(v archived.Verified) { u.progress.Tell(v.Links, of) })
	v := verified{Links: found.Links, Same: found.Same, Pending: found.Pending, Wrong: found.Wrong, Unreadable: found.Unfit,
		Rows: found.Rows, Examples: append([]string{}, found.Examples...), Shards: []shardRows{}}
	if err != nil {
		return v, err
	}
	for i, db := range u.shards.DBs() {
		stat, err := db.Stat(ctx)
		if err != nil {
			return v, err
		}
		v.Shards = append(v.Shards, shardRows{i + 1, db.Address(), stat.Rows})
	}
	v.Complete = true
	if v.Wrong > 0 {
		return v, amiss(fmt.Sprintf("links that are wrong: %s, such as %s.\n"+
			"Redis may evict each of them, and it would then lead where the archive says: to where it led before a change, or nowhere. "+
			"That happens when Redis loses writes, by a failover or a crash.\n"+
			"They are marked now, and archivers make Redis and the archive agree on them; where none runs, server archive backfill does. "+
			"Then run server archive verify again: it must find none. If it does, look for their codes in the logs of backends and workers.",
			progress.Grouped(v.Wrong), strings.Join(v.Examples, " ")))
	}
	return v, nil
}

// moved is the outcome of a move.
type moved struct {
	Complete bool     `json:"complete"`
	Looked   int64    `json:"looked_at"`
	Moved    int64    `json:"moved"`
	Stuck    int64    `json:"stuck"`
	Examples []string `json:"examples"`
	before   int
}

func (m moved) soFar() string {
	return fmt.Sprintf("it had moved %s links. What is moved stays moved, and links are found wherever they are, as long as every "+
		"process has ARCHIVE_SHARDS_BEFORE=%d", progress.Grouped(m.Moved), m.before)
}

func (m moved) table(w io.Writer) {
	fmt.Fprintf(w, "links moved home\t%s\t\n", progress.Grouped(m.Moved))
	fmt.Fprintf(w, "links that stayed\t%s\tin the databases from before\n", progress.Grouped(m.Looked-m.Moved-m.Stuck))
	fmt.Fprintf(w, "links away from home\t%s\t\n", progress.Grouped(m.Stuck))
	if m.Complete {
		fmt.Fprint(w, "\nEvery link is at home. Unset ARCHIVE_SHARDS_BEFORE everywhere and restart.\n")
	}
}

// move brings links home.
func (u *upkeep) move(ctx context.Context) (outcome, error) {
	if u.cfg.ShardsBefore == 0 {
		return nil, errors.New("ARCHIVE_SHARDS_BEFORE is not set: it says how many addresses ARCHIVE_URL had before some were added. " +
			"Set it everywhere, restart, and run this again")
	}
	if err := archived.Prepare(ctx, u.hot, u.shards); err != nil {
		return nil, err
	}
	u.progress.Begin("moving links home")
	got, err := u.shards.Move(ctx, func(m postgres.Moved) { u.progress.Tell(m.Looked, m.Rows) })
	m := moved{Looked: got.Looked, Moved: got.Moved, Stuck: got.Stuck, Examples: append([]string{}, got.Examples...), before: u.shards.Before()}
	switch {
	case err != nil:
		return m, err
	case m.Stuck > 0:
		return m, amiss(fmt.Sprintf("links that stay away from home: %s, such as %s. Their home has another link under the same code: "+
			"two processes shared a node ID, or a clock went back. Delete one of the two rows in its database, then run this again",
			progress.Grouped(m.Stuck), strings.Join(m.Examples, " ")))
	}
	m.Complete = true
	return m, nil
}

// migrated is the outcome of migrate.
type migrated struct {
	Complete bool             `json:"complete"`
	Shards   []*migratedShard `json:"shards"`
}

type migratedShard struct {
	Shard   int    `json:"shard"`
	Address string `json:"address"`
	From    int64  `json:"from"`
	To      int64  `json:"to"`
	// Search is how the database finds words now.
	Search postgres.Search `json:"search,omitempty"`
	Error  string          `json:"error,omitempty"`
}

func (m migrated) soFar() string {
	n := 0
	for _, s := range m.Shards {
		if s.Error == "" {
			n++
		}
	}
	return fmt.Sprintf("%d databases are up to date", n)
}

func (m migrated) table(w io.Writer) {
	fmt.Fprint(w, "SHARD\tADDRESS\tSCHEMA\tSEARCH\n")
	for _, s := range m.Shards {
		says := fmt.Sprintf("from version %d to %d", s.From, s.To)
		switch {
		case s.Error != "":
			says = "failed"
		case s.From == s.To:
			says = fmt.Sprintf("version %d already", s.To)
		}
		finds := map[postgres.Search]string{postgres.WholeWords: "whole words", postgres.Parts: "parts of words"}[s.Search]
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", s.Shard, s.Address, says, finds)
	}
}

// migrate brings the schemas up to date, one after another. One that fails does not keep the others.
func (u *upkeep) migrate(ctx context.Context) (outcome, error) {
	m := migrated{Shards: []*migratedShard{}}
	var wrong []string
	for i, db := range u.shards.DBs() {
		s := &migratedShard{Shard: i + 1, Address: db.Address()}
		m.Shards = append(m.Shards, s)
		u.progress.Begin(fmt.Sprintf("migrating shard %d of %d", s.Shard, len(u.shards.DBs())))
		var err error
		if s.From, _, err = db.Version(ctx); err == nil {
			if err = db.Migrate(ctx); err == nil {
				s.To, _, err = db.Version(ctx)
			}
		}
		if err == nil {
			u.progress.Begin(fmt.Sprintf("looking after the search of shard %d of %d", s.Shard, len(u.shards.DBs())))
			s.Search, err = db.IndexParts(ctx)
		}
		if err != nil {
			s.Error = oneLine(err)
			wrong = append(wrong, s.Error)
		}
	}
	if ctx.Err() != nil {
		return m, ctx.Err()
	}
	if len(wrong) > 0 {
		return m, amiss(strings.Join(wrong, "\n"))
	}
	m.Complete = true
	return m, nil
}

// oneLine is an error without line breaks, which pgx has.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
