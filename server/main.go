// Command server is one backend of the Snowlink fleet: it mints short codes,
// keeps them in Redis and redirects.
//
//	server           serve, as the environment says
//	server ping      ask the server on LISTEN for /healthz: a container's health check
//	server key       make an API key for API_KEYS_FILE
//	server help      list the environment variables
//	server version   print what this binary was built from
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
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/valyala/fasthttp"

	"snowlink/internal/apikey"
	"snowlink/internal/embedded"
	"snowlink/internal/httpapi"
	"snowlink/internal/link"
	"snowlink/internal/metrics"
	"snowlink/internal/nearcache"
	"snowlink/internal/redisstore"
	"snowlink/snowflake"
)

const (
	// drainNotice is how long connections get to see Connection: close while
	// the listener is still open.
	drainNotice = time.Second
	pingTimeout = 2 * time.Second
	// doorWait is how long the first connections may wait for the node ID before
	// they are served without one. It takes milliseconds where Redis answers, and
	// Nginx waits for 2 s.
	doorWait = 500 * time.Millisecond
	// bulkShare says which part of the process's memory bulks and imports may take
	// together: one in so many. The rest is for the near cache, requests and garbage.
	bulkShare = 4
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	if err := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

const usage = `usage: server [ping | key NAME | help | version]

Without an argument it serves. On SIGHUP it reads API_KEYS_FILE again.

The environment, with defaults; a variable that is empty counts as unset:
`

// run does what args say until it is done or ctx ends. People are spoken to on
// stdout; the log goes to stderr.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	command := "serve"
	if len(args) > 0 {
		command = args[0]
	}
	switch command {
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
		writeVariables(stdout)
		return nil
	case "version":
		fmt.Fprintln(stdout, metrics.Version())
		return nil
	case "key":
		return mintKey(args[1:], stdout, stderr)
	case "serve", "ping":
	default:
		return fmt.Errorf("unknown command %q: it takes ping, key, help or version, or nothing to serve", command)
	}
	cfg, err := readConfig(environ)
	if err != nil {
		return fmt.Errorf("configuration:\n%w\nsee: server help", err)
	}
	if command == "ping" {
		return ping(cfg.Listen)
	}
	return serve(ctx, cfg, stdout, slog.New(slog.NewJSONHandler(stderr, nil)))
}

// serve builds the backend from Redis up, serves until ctx ends, and closes it
// in reverse.
func serve(ctx context.Context, cfg config, stdout io.Writer, log *slog.Logger) error {
	tuneGC(uint64(cfg.CacheBytes))
	hangup := make(chan os.Signal, 1)
	var named []apikey.Key
	if cfg.APIKeysFile != "" {
		signal.Notify(hangup, syscall.SIGHUP) // before the file is read: no change to it is missed
		defer signal.Stop(hangup)
		var err error
		if named, err = readKeysFile(cfg.APIKeysFile); err != nil {
			return err
		}
		if len(named)+len(cfg.APIKeys) == 0 && cfg.RedisURL != "" {
			return fmt.Errorf("API_KEYS_FILE: %s holds no key; make one with: server key NAME", cfg.APIKeysFile)
		}
	}
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("LISTEN: %w", err)
	}
	defer listener.Close()

	m := metrics.New()
	if cfg.MetricsListen != "off" {
		l, err := net.Listen("tcp", cfg.MetricsListen)
		if err != nil {
			return fmt.Errorf("METRICS_LISTEN: %w; set another address, or off", err)
		}
		srv := &http.Server{Handler: m.Handler(), ReadHeaderTimeout: 5 * time.Second}
		go srv.Serve(l)
		defer srv.Close()
	}

	isEmbedded := cfg.RedisURL == ""
	if isEmbedded {
		redis, err := embedded.Start()
		if err != nil {
			return err
		}
		defer redis.Close()
		cfg.RedisURL = redis.URL()
		log.Warn("REDIS_URL is not set: links are kept in this process and die with it")
		if len(cfg.APIKeys) == 0 {
			cfg.APIKeys = []string{rand.Text()}
		}
	}
	store, err := redisstore.Open(cfg.RedisURL, redisstore.Options{JournalMax: cfg.JournalMax}, log, m)
	if err != nil {
		return fmt.Errorf("REDIS_URL: %w", err)
	}
	defer store.Close()
	m.WatchPool(store.Pool)

	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	var links link.Store = store
	if cfg.CacheBytes > 0 {
		cache := nearcache.New(store, uint64(cfg.CacheBytes), cfg.StaleIfError, m)
		defer cache.Close()
		links = cache
		listening := make(chan struct{})
		go func() {
			defer close(listening)
			store.Changes(background, cache.Drop, cache.Distrust)
		}()
		defer func() { stopBackground(); <-listening }()
	}

	// The node ID may come late, since Redis may. Until then, and whenever the
	// lease is lost, creates answer 503 and all else works.
	lease := store.NewLease(cfg.NodeID, snowflake.MaxNode, log)
	mint := func() (snowflake.ID, error) {
		if id, ok := lease.Next(); ok {
			return id, nil
		}
		return 0, httpapi.ErrNoNode
	}
	ready := func(ctx context.Context) (missing []string) {
		if store.Ping(ctx) != nil {
			missing = append(missing, "Redis does not answer")
		}
		if !lease.Held() {
			missing = append(missing, "no node ID is held")
		}
		return missing
	}

	keys := apikey.NewKeys(cfg.APIKeys...)
	keys.SetNamed(named)
	go rereadKeys(background, hangup, cfg.APIKeysFile, keys, log)

	watcher := store.NewWatcher(keys.Owners, log)
	degraded := func() string {
		if watcher.Full() {
			return "Redis is nearly full: it holds more than 90 % of maxmemory"
		}
		return ""
	}

	api := httpapi.New(context.WithoutCancel(ctx), httpapi.Config{
		Store: links, Memory: store, Mint: mint, Ready: ready, Degraded: degraded,
		BaseURL: cfg.BaseURL, Own: cfg.own, Keys: keys, TakeRequest: store.TakeRequest,
		BulkMemory: debug.SetMemoryLimit(-1) / bulkShare, Metrics: m, Log: log,
	})
	srv := api.Server()

	leased := make(chan error, 1)
	go func() {
		defer close(leased)
		leased <- lease.Hold(background)
	}()
	// A create that came before the node ID would be refused, and a process that gets
	// none ends: the connections wait in the listener's queue until that is known.
	for until := time.Now().Add(doorWait); !lease.Held() && len(leased) == 0 && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
	if len(leased) > 0 {
		return <-leased
	}

	served := make(chan error, 1)
	go func() { served <- srv.Serve(httpapi.RefusalListener(listener)) }()
	log.Info("listening", "address", listener.Addr().String(), "base_url", cfg.BaseURL, "version", metrics.Version())
	if isEmbedded {
		printWelcome(stdout, cfg)
	}

	watched := make(chan error, 1)
	go func() {
		defer close(watched)
		watched <- watcher.Watch(background)
	}()

	var failed error
	select {
	case <-ctx.Done():
		log.Info("shutting down", "grace", cfg.ShutdownGrace.String())
	case failed = <-served:
	case failed = <-leased:
	case failed = <-watched:
	}
	failed = errors.Join(failed, drain(api, srv, cfg.ShutdownGrace))
	stopBackground()
	return errors.Join(failed, <-watched, <-leased) // the lease is released; Redis closes last
}

// tuneGC trades memory for time, unless GOGC says otherwise. What lives long here
// is the near cache; the rest is the garbage of requests, and collecting it a
// quarter as often took 9 % off the CPU of a create. Near the limit of memory,
// GOMEMLIMIT or nine tenths of the container's, Go collects as often as it must;
// without one, the limit is what the cache and its garbage may reasonably take.
func tuneGC(cacheBytes uint64) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if _, err := memlimit.Set(); err != nil { // no limit, or no cgroup to ask
		debug.SetMemoryLimit(int64(2*cacheBytes + 512<<20))
	}
}

// drain lets clients and Nginx go before it closes the door: /healthz turns
// 503 and answers close their connections while the listener is still open,
// then the listener closes and requests in flight finish.
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

// ping asks the server on listen whether it is ready.
func ping(listen string) error {
	status, body, err := fasthttp.GetTimeout(nil, "http://"+reachable(listen)+"/healthz", pingTimeout)
	if err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	if status != fasthttp.StatusOK {
		return fmt.Errorf("ping: %d %s", status, body)
	}
	return nil
}

// reachable is where a client on this machine finds what listens on listen.
func reachable(listen string) string {
	host, port, _ := net.SplitHostPort(listen) // readConfig has tried it
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// printWelcome gives someone who set nothing up a command that works.
func printWelcome(w io.Writer, cfg config) {
	fmt.Fprintf(w, `
Snowlink is listening. Its Redis is embedded: links die with this process.
Set REDIS_URL to keep them.

Make a link:

  curl -X POST http://%s/generate_url -H %s -d '{"url":"https://example.com/"}'

`, reachable(cfg.Listen), shellQuote("API-Key: "+cfg.APIKeys[0]))
}

// shellQuote makes s one word for a POSIX shell.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
