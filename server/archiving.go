package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"snowlink/internal/archived"
	"snowlink/internal/deadline"
	"snowlink/internal/postgres"
	"snowlink/internal/redisstore"
)

// prepareEvery is the time between two tries to prepare an archive that is away.
const prepareEvery = time.Second

// archive is the archive of a process, and what works for it.
type archive struct {
	hot      *redisstore.Store
	shards   *postgres.Shards
	archiver *archived.Archiver
	log      *slog.Logger
}

// openArchive makes what ARCHIVE_URL describes, without connecting.
func openArchive(cfg config, hot *redisstore.Store, log *slog.Logger, reg prometheus.Registerer) (*archive, error) {
	shards, err := postgres.Open(cfg.ArchiveURL, cfg.ShardsBefore, log, reg)
	if err != nil {
		return nil, fmt.Errorf("ARCHIVE_URL: %w", err)
	}
	return &archive{hot, shards, archived.NewArchiver(hot, shards, log, reg), log}, nil
}

func (a *archive) Close() { a.shards.Close() }

// start begins the archive's jobs. work says whether they are to archive. The channel is closed once
// the archive is prepared, or something that it needs does not answer.
func (a *archive) start(ctx context.Context, jobs *errgroup.Group, work bool) (tried <-chan struct{}) {
	done := make(chan struct{})
	jobs.Go(func() error { return a.prepare(ctx, done) })
	jobs.Go(func() error { return a.archiver.Watch(ctx) })
	if work {
		jobs.Go(func() error { return a.archiver.Run(ctx) })
		jobs.Go(func() error { return a.archiver.Tend(ctx) })
	}
	return done
}

// prepare prepares the archive, as soon as Redis and all databases answer. It fails if the
// configuration is wrong. It closes tried after the first try.
func (a *archive) prepare(ctx context.Context, tried chan<- struct{}) error {
	for first := true; ; first = false {
		err := archived.Prepare(ctx, a.hot, a.shards)
		if first {
			close(tried)
		}
		switch {
		case err == nil:
			a.log.Info("archive ready", "shards", len(a.shards.DBs()))
			return nil
		case errors.Is(err, postgres.ErrShard):
			return fmt.Errorf("ARCHIVE_URL: %w", err)
		case errors.Is(err, redisstore.ErrPolicy):
			return fmt.Errorf("ARCHIVE_URL is set, but %w", err)
		case ctx.Err() != nil:
			return nil
		case first:
			a.log.Warn("the archive is not ready", "err", err)
		}
		if !deadline.Sleep(ctx, prepareEvery) {
			return nil
		}
	}
}

// checkNoArchive fails if Redis is in front of an archive: without ARCHIVE_URL, links that it has
// evicted would be missing. It waits for Redis, and closes tried after the first try.
func checkNoArchive(ctx context.Context, hot *redisstore.Store, tried chan<- struct{}) error {
	for first := true; ; first = false {
		remembers, err := hot.RemembersArchive(ctx)
		if first {
			close(tried)
		}
		switch {
		case err == nil && remembers:
			return errors.New("ARCHIVE_URL is not set, but this Redis is in front of an archive, which alone has the links that Redis evicted: " +
				"set ARCHIVE_URL to what the other backends have; to give up the archive and those links for good: redis-cli del archive")
		case err == nil || !deadline.Sleep(ctx, prepareEvery):
			return nil
		}
	}
}
