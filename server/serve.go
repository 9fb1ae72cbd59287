package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"
	"golang.org/x/sync/errgroup"

	"snowlink/internal/apikey"
	"snowlink/internal/archived"
	"snowlink/internal/buildinfo"
	"snowlink/internal/clicks"
	"snowlink/internal/dashboard"
	"snowlink/internal/embedded"
	"snowlink/internal/httpapi"
	"snowlink/internal/link"
	"snowlink/internal/nearcache"
	"snowlink/internal/nodelease"
	"snowlink/internal/redisconn"
	"snowlink/internal/redisstore"
	"snowlink/internal/shorten"
	"snowlink/snowflake"
)

const (
	// drainNotice is for how long clients can see Connection: close while the listener is still
	// open.
	drainNotice = time.Second
	// startWait is how long the first connections may wait for the node ID and the archive. After
	// that they are served without. It takes milliseconds if both answer, and Nginx waits for 2 s.
	startWait = 500 * time.Millisecond
	// bulkShare is the part of the memory of the process that all bulks and imports may take
	// together: one part in so many. The rest is for the near cache, requests and garbage.
	bulkShare = 4
)

// serve is the life of a backend: it is built from Redis up, serves until ctx ends, and is closed
// in reverse.
func serve(ctx context.Context, cfg config, stdout io.Writer, log *slog.Logger) error {
	tuneGC(uint64(cfg.CacheBytes))
	b := &backend{cfg: cfg, log: log, registry: newRegistry(), hangup: make(chan os.Signal, 1)}
	defer b.close()
	if err := b.build(); err != nil {
		return err
	}
	return b.run(ctx, stdout)
}

// backend is one backend and its parts, in the order in which they are built.
type backend struct {
	cfg      config
	log      *slog.Logger
	registry *prometheus.Registry
	closers  []func()

	hangup   chan os.Signal // read API_KEYS_FILE and GEOIP_FILE again
	keys     *apikey.Keys
	listener net.Listener
	conn     *redisconn.Conn // of the links
	state    *redisconn.Conn // of what is no link; conn without REDIS_STATE_URL
	store    *redisstore.Store
	archive  *archive         // nil without ARCHIVE_URL
	cache    *nearcache.Cache // nil if CACHE_BYTES is 0
	counting *counting        // nil if CLICKS is off
	lease    *nodelease.Lease
	watcher  *redisstore.Watcher
	// stateWatcher watches the Redis at REDIS_STATE_URL; nil without one.
	stateWatcher *redisstore.Watcher
	sessions     *dashboard.Sessions // nil if DASHBOARD is off
	api          *httpapi.API
}

// onClose adds f to what close calls. The last f that was added is called first.
func (b *backend) onClose(f func()) { b.closers = append(b.closers, f) }

func (b *backend) close() {
	for _, f := range slices.Backward(b.closers) {
		f()
	}
}

// build makes the backend from Redis up. If it fails, close closes what has been opened.
func (b *backend) build() (err error) {
	if b.cfg.APIKeysFile != "" || b.cfg.GeoIPFile != "" {
		signal.Notify(b.hangup, syscall.SIGHUP) // before a file is read: no change to it is missed
		b.onClose(func() { signal.Stop(b.hangup) })
	}
	if b.keys, err = b.readKeys(); err != nil {
		return err
	}
	if b.listener, err = net.Listen("tcp", b.cfg.Listen); err != nil {
		return fmt.Errorf("LISTEN: %w", err)
	}
	b.onClose(func() { b.listener.Close() })
	if err := b.serveMetrics(); err != nil {
		return err
	}
	redisURL, err := b.redisURL()
	if err != nil {
		return err
	}
	log, registry := b.named("links")
	if b.conn, err = redisconn.Open(redisURL, log, registry); err != nil {
		return fmt.Errorf("REDIS_URL: %w", err)
	}
	b.onClose(func() { b.conn.Close() })
	if err := b.openState(); err != nil {
		return err
	}

	// A redirect asks the near cache, which asks Redis, or Redis and the archive.
	b.store = redisstore.New(b.conn, redisstore.Options{
		JournalMax: b.cfg.JournalMax, Archived: b.cfg.ArchiveURL != "", StateElsewhere: b.state != b.conn,
	})
	state := b.store // of promises and rates
	if b.state != b.conn {
		state = redisstore.New(b.state, redisstore.Options{NoLinks: true})
		log, registry := b.named("state")
		b.stateWatcher = state.NewWatcher(b.keys.Owners, log, registry)
	}
	var links link.Store = b.store
	if b.cfg.ArchiveURL != "" {
		if b.archive, err = openArchive(b.cfg, b.store, b.log, b.registry); err != nil {
			return err
		}
		b.onClose(b.archive.Close)
		links = archived.New(b.store, b.archive.shards, b.registry)
	}
	if b.cfg.CacheBytes > 0 {
		b.cache = nearcache.New(links, uint64(b.cfg.CacheBytes), b.cfg.StaleIfError, b.registry)
		b.onClose(b.cache.Close)
		links = b.cache
	}

	if err := b.openCounting(); err != nil {
		return err
	}
	if b.counting != nil {
		if err := b.counting.openRecorder(b.cfg, state, links.Get, b.log, b.registry); err != nil {
			return err
		}
	}

	b.lease = nodelease.New(b.state, b.cfg.NodeID, snowflake.MaxNode, b.log)
	b.watcher = b.store.NewWatcher(b.keys.Owners, log, registry)
	c := httpapi.Config{
		Store:       links,
		Shortener:   shorten.New(links, state, b.mint, b.registry),
		Ready:       b.missing,
		Degraded:    b.degraded,
		BaseURL:     b.cfg.BaseURL,
		OwnHosts:    b.cfg.own,
		Keys:        b.keys,
		TakeRequest: state.TakeRequest,
		BulkMemory:  debug.SetMemoryLimit(-1) / bulkShare,
		Service:     b.service,
		RootURL:     b.cfg.RootURL,
		Registry:    b.registry,
		Log:         b.log,
	}
	if b.cfg.Dashboard {
		b.sessions = dashboard.NewSessions(state, b.keys)
		c.Sessions = b.sessions
	}
	if b.counting != nil {
		c.Clicks, c.Stats, c.Feed, c.CountryHeader = b.counting.recorder, b.counting.stats, b.counting.feed, b.cfg.CountryHeader
		c.Country = func(header []byte, address netip.Addr) string {
			return clicks.CountryOf(header, b.counting.geo, address)
		}
	}
	b.api = httpapi.New(context.Background(), c)
	return nil
}

// readKeys reads the keys of API_KEY and API_KEYS_FILE. If there are none and Redis is embedded, it
// makes a key.
func (b *backend) readKeys() (*apikey.Keys, error) {
	var named []apikey.Key
	if b.cfg.APIKeysFile != "" {
		var err error
		if named, err = readKeysFile(b.cfg.APIKeysFile); err != nil {
			return nil, err
		}
		if len(named)+len(b.cfg.APIKeys) == 0 && b.cfg.RedisURL != "" {
			return nil, fmt.Errorf("API_KEYS_FILE: %s holds no key; make one with: server key NAME", b.cfg.APIKeysFile)
		}
	}
	if len(b.cfg.APIKeys) == 0 && b.cfg.RedisURL == "" {
		b.cfg.APIKeys = []string{rand.Text()}
	}
	keys := apikey.NewKeys(b.cfg.APIKeys...)
	keys.SetNamed(named)
	return keys, nil
}

// serveMetrics serves /metrics on METRICS_LISTEN.
func (b *backend) serveMetrics() error {
	if b.cfg.MetricsListen == "off" {
		return nil
	}
	l, err := net.Listen("tcp", b.cfg.MetricsListen)
	if err != nil {
		return fmt.Errorf("METRICS_LISTEN: %w; set another address, or off", err)
	}
	srv := &http.Server{Handler: metricsHandler(b.registry), ReadHeaderTimeout: 5 * time.Second}
	go srv.Serve(l)
	b.onClose(func() { srv.Close() })
	return nil
}

// redisURL returns REDIS_URL, or the address of a Redis in this process.
func (b *backend) redisURL() (string, error) {
	if b.cfg.RedisURL != "" {
		return b.cfg.RedisURL, nil
	}
	redis, err := embedded.Start()
	if err != nil {
		return "", err
	}
	b.onClose(redis.Close)
	b.log.Warn("REDIS_URL is not set: links are kept in this process and die with it")
	return redis.URL(), nil
}

// named returns the log and the registry of one Redis. Their lines and series say which one it is.
func (b *backend) named(redis string) (*slog.Logger, prometheus.Registerer) {
	return b.log.With("redis", redis), prometheus.WrapRegistererWith(prometheus.Labels{"redis": redis}, b.registry)
}

// openState opens the Redis at REDIS_STATE_URL.
func (b *backend) openState() (err error) {
	if b.cfg.RedisStateURL == "" {
		b.state = b.conn
		return nil
	}
	log, registry := b.named("state")
	if b.state, err = redisconn.Open(b.cfg.RedisStateURL, log, registry); err != nil {
		return fmt.Errorf("REDIS_STATE_URL: %w", err)
	}
	b.onClose(func() { b.state.Close() })
	return nil
}

// openCounting makes what CLICKS describes, but for what takes note of visits.
func (b *backend) openCounting() (err error) {
	if !b.cfg.Clicks {
		return nil
	}
	if b.counting, err = openCounting(b.cfg, b.state, b.archive, b.log, b.registry); err != nil {
		return err
	}
	b.onClose(b.counting.Close)
	return nil
}

// mint makes an ID, if a node ID is held. The node ID may come late, because Redis may. Until then,
// and whenever the lease is lost, creates answer 503 and everything else works.
func (b *backend) mint() (snowflake.ID, error) {
	if id, ok := b.lease.Next(); ok {
		return id, nil
	}
	return 0, shorten.ErrNoNode
}

// missing returns what is missing to serve every route.
func (b *backend) missing(ctx context.Context) (missing []string) {
	if b.conn.Ping(ctx) != nil {
		missing = append(missing, "Redis does not answer")
	}
	if b.state != b.conn && b.state.Ping(ctx) != nil {
		missing = append(missing, "the Redis at REDIS_STATE_URL does not answer")
	}
	if !b.lease.Held() {
		missing = append(missing, "no node ID is held")
	}
	return missing
}

// degraded returns what the operator should attend to, or "".
func (b *backend) degraded() string {
	reasons := []string{b.watcher.Degraded()}
	if b.archive != nil {
		reasons = append(reasons, b.archive.archiver.Degraded())
	}
	if b.stateWatcher != nil {
		reasons = append(reasons, b.stateWatcher.Degraded())
	}
	if b.counting != nil {
		reasons = append(reasons, b.counting.Degraded())
	}
	return strings.Join(slices.DeleteFunc(reasons, func(r string) bool { return r == "" }), "; ")
}

// run serves until ctx ends or something fails that the backend cannot do without. Requests in
// flight finish first, then the jobs in the background, because the requests need them.
func (b *backend) run(ctx context.Context, stdout io.Writer) error {
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	jobs, running := errgroup.WithContext(background)
	jobs.Go(func() error { return b.lease.Hold(running) })
	if b.cache != nil {
		jobs.Go(func() error { b.store.Changes(running, b.cache.Drop, b.cache.Distrust); return nil })
	}
	archive := b.startArchive(running, jobs)
	jobs.Go(func() error { b.reread(running); return nil })
	if b.counting != nil {
		b.counting.start(running, background, jobs, bool(b.cfg.Work))
	}

	// A create that came before the node ID would be refused, and so would be a link that the archive
	// alone has. A process that gets no node ID ends, and one whose archive is not what it says. Until
	// that is known, connections wait in the queue of the listener.
	wait, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for _, ready := range []<-chan struct{}{b.lease.Taken(), archive} {
		select {
		case <-ready:
		case <-wait.Done():
		case <-running.Done():
			stop() // for the job that takes note of visits
			return jobs.Wait()
		}
	}
	if ctx.Err() != nil {
		stop()
		return jobs.Wait()
	}
	jobs.Go(func() error { return b.watcher.Watch(running) })
	if b.stateWatcher != nil {
		jobs.Go(func() error { return b.stateWatcher.Watch(running) })
	}

	server := b.api.Server()
	served := make(chan error, 1)
	go func() { served <- server.Serve(httpapi.RefusalListener(b.listener)) }()
	b.log.Info("listening", "address", b.listener.Addr().String(), "base_url", b.cfg.BaseURL, "version", buildinfo.Version())
	if b.cfg.RedisURL == "" {
		b.welcome(ctx, stdout)
	}

	var failed error
	select {
	case <-ctx.Done():
		b.log.Info("shutting down", "grace", b.cfg.ShutdownGrace.String())
	case failed = <-served:
	case <-running.Done(): // a job failed, and Wait returns why
	}
	failed = errors.Join(failed, drain(b.api, server, b.cfg.ShutdownGrace))
	stop()
	return errors.Join(failed, jobs.Wait()) // the node ID is given back
}

// reread reads the files of the configuration again at every hangup, until ctx ends.
func (b *backend) reread(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.hangup:
		}
		if b.cfg.APIKeysFile != "" {
			rereadKeys(b.cfg.APIKeysFile, b.keys, b.log)
		}
		if b.counting != nil {
			b.counting.reload(b.log)
		}
	}
}

// startArchive begins the jobs of the archive, or makes sure that there is none. The channel is closed
// once that was tried.
func (b *backend) startArchive(ctx context.Context, jobs *errgroup.Group) (tried <-chan struct{}) {
	if b.archive != nil {
		return b.archive.start(ctx, jobs, bool(b.cfg.Work))
	}
	done := make(chan struct{})
	jobs.Go(func() error { return checkNoArchive(ctx, b.store, done) })
	return done
}

// drain lets clients and Nginx go first: /healthz turns 503 and answers close their connections
// while the listener is still open. Then the listener closes, and requests in flight finish.
func drain(api *httpapi.API, srv *fasthttp.Server, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	api.Drain()
	for notice := time.Now().Add(min(drainNotice, grace/2)); time.Now().Before(notice) && srv.GetOpenConnectionsCount() > 0; {
		time.Sleep(10 * time.Millisecond)
	}
	if err := srv.ShutdownWithContext(ctx); err != nil {
		return fmt.Errorf("close the HTTP server, SHUTDOWN_GRACE is %s: %w", grace, err)
	}
	return nil
}

// tuneGC trades memory for time, unless GOGC is set. Only the near cache lives long here. The rest
// is the garbage of requests, and to collect it a quarter as often took 9 % off the CPU of a
// create. Near the limit of memory, which is GOMEMLIMIT or nine tenths of the container's, Go
// collects as often as it must. If there is no limit, it is set to what the cache and its garbage
// may reasonably take.
func tuneGC(cacheBytes uint64) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if _, err := memlimit.Set(); err != nil { // no limit, or no cgroup to ask
		debug.SetMemoryLimit(int64(2*cacheBytes + 512<<20))
	}
}

// welcome shows someone who has set nothing up the page, already signed in, and a command that works.
func (b *backend) welcome(ctx context.Context, w io.Writer) {
	here, secret := "http://"+reachable(b.cfg.Listen), b.cfg.APIKeys[0]
	fmt.Fprint(w, `
Snowlink is listening. Its Redis is embedded: links die with this process.
Set REDIS_URL to keep them.
`)
	if b.sessions != nil {
		key, _ := b.keys.Find([]byte(secret))
		if token, err := b.sessions.Invite(ctx, key); err != nil {
			b.log.Warn("no link that signs in: sign in with the key", "err", err)
		} else {
			fmt.Fprintf(w, "\nOpen this within %d minutes, to make links and see their clicks; it signs in once:\n\n  %s/dashboard/#token=%s\n",
				int(dashboard.InviteTime.Minutes()), here, token)
		}
	}
	fmt.Fprintf(w, `
Make a link from here:

  curl -X POST %s/links -H %s -d '{"url":"https://example.com/"}'

`, here, shellQuote("API-Key: "+secret))
}

// shellQuote makes s one word for a POSIX shell.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
