package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"snowlink/internal/clicks"
	"snowlink/internal/clickstream"
	"snowlink/internal/edgelog"
	"snowlink/internal/kafka"
	"snowlink/internal/link"
	"snowlink/internal/redisconn"
	"snowlink/internal/stats"
	"snowlink/internal/stats/pgstats"
	"snowlink/internal/stats/redisstats"
)

// recordGrace is how long what was counted last has to reach the queue after SHUTDOWN_GRACE.
const recordGrace = 3 * time.Second

// counting is how a process counts clicks: what it records goes into a queue, workers add up what comes
// out of it, and the feed tells of that.
type counting struct {
	queue  clicks.Queue
	stats  stats.Store
	feed   clicks.Feed
	worker *stats.Worker
	close  func() // the connections of the queue

	// These are only in a process that serves.
	recorder *clicks.Recorder
	geo      *clicks.GeoIP     // nil without GEOIP_FILE
	edge     *edgelog.Listener // nil without EDGE_LOG_LISTEN
}

// openCounting makes what carries clicks, adds them up and answers for them, without connecting. What is
// no link is in the Redis of state.
func openCounting(cfg config, state *redisconn.Conn, archive *archive, log *slog.Logger, reg prometheus.Registerer) (*counting, error) {
	c := &counting{feed: clickstream.NewFeed(state), close: func() {}}
	if err := c.openQueue(cfg, state, log, reg); err != nil {
		return nil, err
	}
	if archive != nil {
		c.stats = pgstats.New(archive.shards, pgstats.Options{Keep: cfg.ClicksKeep, Log: log})
	} else {
		c.stats = redisstats.New(state, log, reg, redisstats.Options{Keep: cfg.ClicksKeep})
	}
	c.worker = stats.NewWorker(c.queue, c.stats, c.feed, reg)
	return c, nil
}

// openQueue makes what KAFKA_BROKERS describes, or a queue in Redis.
func (c *counting) openQueue(cfg config, state *redisconn.Conn, log *slog.Logger, reg prometheus.Registerer) error {
	if cfg.KafkaBrokers == "" {
		c.queue = clickstream.New(state, log, reg, clickstream.Options{})
		return nil
	}
	queue, err := kafka.Open(cfg.KafkaBrokers, cfg.KafkaTopic, log, reg)
	if err != nil {
		return fmt.Errorf("KAFKA_BROKERS: %w", err)
	}
	c.queue, c.close = queue, queue.Close
	return nil
}

// openRecorder makes what takes note of visits: those that this process answers, and those that the edge
// cache reports to it, whose links get finds.
func (c *counting) openRecorder(cfg config, salts clicks.Salts, get func(context.Context, string) (link.Link, error), log *slog.Logger, reg prometheus.Registerer) (err error) {
	if cfg.GeoIPFile != "" {
		if c.geo, err = clicks.OpenGeoIP(cfg.GeoIPFile); err != nil {
			return fmt.Errorf("GEOIP_FILE: %w", err)
		}
	}
	c.recorder = clicks.New(clicks.Options{
		Queue: c.queue, Salts: salts, GeoIP: c.geo, Without: cfg.ClicksWithout, Grace: recordGrace, Log: log, Registry: reg,
	})
	if cfg.EdgeLogListen != "" {
		if c.edge, err = edgelog.Listen(cfg.EdgeLogListen, cfg.CountryHeader, get, c.recorder.Record, reg); err != nil {
			return fmt.Errorf("EDGE_LOG_LISTEN: %w", err)
		}
	}
	return nil
}

// Close closes what was opened. Nothing may run any more.
func (c *counting) Close() {
	if c.edge != nil {
		c.edge.Close()
	}
	c.close()
}

// start begins the jobs. work says whether they are to add clicks up. Visits are taken note of until
// recording ends, which is after the last request.
func (c *counting) start(ctx, recording context.Context, jobs *errgroup.Group, work bool) {
	jobs.Go(func() error { return c.worker.Watch(ctx) })
	if c.recorder != nil {
		jobs.Go(func() error { return c.record(recording) })
	}
	if work {
		jobs.Go(func() error { return c.worker.Run(ctx) })
		jobs.Go(func() error { return c.stats.Tend(ctx) })
	}
}

// record takes note of visits until ctx ends. Then reports of the edge cache end first, and after them
// the recorder, which sends what is left.
func (c *counting) record(ctx context.Context) error {
	recording, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	recorded := make(chan error, 1)
	go func() { recorded <- c.recorder.Run(recording) }()
	var err error
	if c.edge != nil {
		err = c.edge.Run(ctx)
	} else {
		<-ctx.Done()
	}
	stop()
	return errors.Join(err, <-recorded)
}

// reload reads GEOIP_FILE again.
func (c *counting) reload(log *slog.Logger) {
	if c.geo == nil {
		return
	}
	if err := c.geo.Reload(); err != nil {
		log.Error("the file of GEOIP_FILE is wrong and was ignored: the one read before stays", "err", err)
		return
	}
	log.Info("countries of addresses read again")
}

// Degraded says why the operator should attend to the counting of clicks, or returns "".
func (c *counting) Degraded() string {
	reasons := []string{c.worker.Degraded(), c.recorder.Degraded()}
	return strings.Join(slices.DeleteFunc(reasons, func(r string) bool { return r == "" }), "; ")
}
