package main

import (
	"context"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"

	"snowlink/internal/buildinfo"
	"snowlink/internal/clicks"
	"snowlink/internal/httpapi"
	"snowlink/internal/redisconn"
	"snowlink/snowflake"
)

const (
	// partTime is how long a part of /service has to answer, at most until httpapi.RequestTime is over,
	// and partGrace how much longer it is waited for.
	partTime  = 1200 * time.Millisecond
	partGrace = 200 * time.Millisecond

	noAnswer = "It does not answer."
)

// service asks all parts at once how they are.
func (b *backend) service(ctx context.Context) httpapi.Service {
	s := httpapi.Service{
		Status: "ok", Reasons: []string{}, Version: buildinfo.Version(), Redis: []httpapi.RedisStatus{{Name: "links"}},
		Backends: httpapi.BackendsStatus{List: []httpapi.Backend{}},
	}
	conns := []*redisconn.Conn{b.conn}
	if b.state != b.conn {
		s.Redis, conns = append(s.Redis, httpapi.RedisStatus{Name: "state"}), append(conns, b.state)
	}
	var all sync.WaitGroup
	var missing []string
	all.Go(func() {
		var answered bool
		if missing, answered = part(ctx, b.missing); !answered {
			missing = []string{"Redis does not answer"}
		}
	})
	for i, conn := range conns {
		all.Go(func() { askRedis(ctx, conn, &s.Redis[i]) })
	}
	all.Go(func() { s.Backends = b.backends(ctx) })
	if b.archive != nil {
		all.Go(func() { s.Archive = b.archiveStatus(ctx) })
	}
	if b.counting != nil {
		all.Go(func() { s.Clicks = b.clicksStatus(ctx) })
	}
	all.Wait()
	if reason := b.degraded(); reason != "" {
		s.Status, s.Reasons = "degraded", []string{reason}
	}
	if len(missing) > 0 {
		s.Status, s.Reasons = "unavailable", append(missing, s.Reasons...)
	}
	return s
}

// part asks one part. It reports false if that does not answer in time.
func part[T any](ctx context.Context, ask func(context.Context) T) (answer T, answered bool) {
	ctx, cancel := context.WithTimeout(ctx, partTime)
	defer cancel()
	done := make(chan T, 1)
	go func() { done <- ask(ctx) }()
	select {
	case answer = <-done:
		return answer, true
	case <-ctx.Done(): // a moment later it says why, if it ends with its context
	}
	late := time.NewTimer(partGrace)
	defer late.Stop()
	select {
	case answer = <-done:
		return answer, true
	case <-late.C:
		return answer, false
	}
}

func askRedis(ctx context.Context, conn *redisconn.Conn, s *httpapi.RedisStatus) {
	type told struct {
		redisconn.Info
		err error
	}
	info, answered := part(ctx, func(ctx context.Context) told {
		info, err := conn.Info(ctx)
		return told{info, err}
	})
	if !answered || info.err != nil {
		s.Error = noAnswer
		return
	}
	*s = httpapi.RedisStatus{
		Name: s.Name, Version: info.Version, Policy: info.Policy, Used: info.Used, Max: info.Max, Evicted: info.Evicted,
		Keys: info.Keys, WithoutTTL: info.Keys - min(info.Expires, info.Keys),
	}
}

// backends returns who holds a node ID.
func (b *backend) backends(ctx context.Context) httpapi.BackendsStatus {
	s, answered := part(ctx, func(ctx context.Context) httpapi.BackendsStatus {
		s := httpapi.BackendsStatus{List: []httpapi.Backend{}}
		holders, err := b.lease.Holders(ctx, snowflake.MaxNode)
		if err != nil {
			s.Error = noAnswer
		}
		for _, h := range holders {
			backend := httpapi.Backend{Node: h.Node, Host: h.Host, PID: h.PID, This: h.Self}
			if !h.Since.IsZero() {
				backend.Since = &h.Since
			}
			s.List = append(s.List, backend)
		}
		return s
	})
	if !answered {
		return httpapi.BackendsStatus{Error: noAnswer, List: []httpapi.Backend{}}
	}
	return s
}

// archiveStatus returns how the archive is.
func (b *backend) archiveStatus(ctx context.Context) *httpapi.ArchiveStatus {
	s := &httpapi.ArchiveStatus{Shards: []httpapi.Shard{}}
	found, answered := part(ctx, func(ctx context.Context) archiveStatus {
		o, _ := (&upkeep{conn: b.conn, hot: b.store, shards: b.archive.shards}).status(ctx) // the problems are in it
		return o.(archiveStatus)
	})
	if !answered {
		s.Error = noAnswer
		return s
	}
	if !found.Redis.Answers {
		s.Error = "Redis, which knows what waits for it, does not answer."
	}
	s.Pending, s.Lag, s.Moving = found.Outbox.Pending, found.Outbox.Lag, found.Moving
	for _, d := range found.Shards {
		shard := httpapi.Shard{Shard: d.Shard, Address: d.Address, Rows: d.Rows, Bytes: d.Bytes}
		if !d.Answers {
			shard.Error = noAnswer
		}
		s.Shards = append(s.Shards, shard)
	}
	return s
}

// clicksStatus returns how the counting of clicks is.
func (b *backend) clicksStatus(ctx context.Context) *httpapi.ClicksStatus {
	s := &httpapi.ClicksStatus{Queue: "redis"}
	if b.cfg.KafkaBrokers != "" {
		s.Queue = "kafka"
	}
	families, _ := b.registry.Gather() // what could be gathered
	s.Recorded = total(families, "snowlink_clicks_recorded_total")
	s.Dropped = total(families, "snowlink_clicks_dropped_total")
	s.Applied = total(families, "snowlink_clicks_applied_total")
	type told struct {
		clicks.Lag
		err error
	}
	lag, answered := part(ctx, func(ctx context.Context) told {
		lag, err := b.counting.queue.Lag(ctx)
		return told{lag, err}
	})
	if !answered || lag.err != nil {
		s.Error = "The queue does not answer."
		return s
	}
	s.Waiting, s.Lag = lag.Batches, lag.Oldest.Seconds()
	return s
}

// total is the sum of all series of a counter.
func total(families []*dto.MetricFamily, name string) (n int64) {
	for _, family := range families {
		if family.GetName() == name {
			for _, m := range family.GetMetric() {
				n += int64(m.GetCounter().GetValue())
			}
		}
	}
	return n
}
