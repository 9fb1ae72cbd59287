package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/sync/errgroup"

	"snowlink/internal/redisconn"
	"snowlink/internal/redisstore"
)

// work is the life of a worker: it archives links and adds up clicks as a backend does, and serves
// nothing but /metrics.
func work(ctx context.Context, cfg config, log *slog.Logger) (err error) {
	if cfg.RedisURL == "" || cfg.ArchiveURL == "" && !cfg.Clicks {
		return errors.New("there is no work: set REDIS_URL, and ARCHIVE_URL if there is an archive, as the backends have them; with CLICKS=off there is work only for an archive")
	}
	b := &backend{cfg: cfg, log: log, registry: newRegistry()}
	defer b.close()
	if err := b.serveMetrics(); err != nil {
		return err
	}
	redisLog, registry := b.named("links")
	if b.conn, err = redisconn.Open(cfg.RedisURL, redisLog, registry); err != nil {
		return fmt.Errorf("REDIS_URL: %w", err)
	}
	b.onClose(func() { b.conn.Close() })
	if err := b.openState(); err != nil {
		return err
	}
	b.store = redisstore.New(b.conn, redisstore.Options{Archived: cfg.ArchiveURL != ""})
	if cfg.ArchiveURL != "" {
		if b.archive, err = openArchive(cfg, b.store, log, b.registry); err != nil {
			return err
		}
		b.onClose(b.archive.Close)
	}
	if err := b.openCounting(); err != nil {
		return err
	}

	jobs, running := errgroup.WithContext(ctx)
	b.cfg.Work = true
	b.startArchive(running, jobs)
	if b.counting != nil {
		b.counting.start(running, running, jobs, true)
	}
	log.Info("working", "archive", b.archive != nil, "clicks", b.counting != nil)
	return jobs.Wait()
}
