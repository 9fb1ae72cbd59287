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

// work is the life of a worker: it archives links as a backend does, and serves nothing but
// /metrics.
func work(ctx context.Context, cfg config, log *slog.Logger) (err error) {
	if cfg.ArchiveURL == "" || cfg.RedisURL == "" {
		return errors.New("there is no work without an archive: set ARCHIVE_URL and REDIS_URL as the backends have them")
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
	b.store = redisstore.New(b.conn, redisstore.Options{Archived: true})
	if b.archive, err = openArchive(cfg, b.store, log, b.registry); err != nil {
		return err
	}
	b.onClose(b.archive.Close)

	jobs, running := errgroup.WithContext(ctx)
	b.archive.start(running, jobs, true)
	log.Info("working")
	return jobs.Wait()
}
