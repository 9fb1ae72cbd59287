// Command server is one backend of the Snowlink fleet: it mints short codes, keeps links in Redis
// and redirects.
//
//	server           serve, as the environment says
//	server work      archive links and add up clicks, and serve nothing but metrics: see WORK
//	server ping      ask the server on LISTEN for /healthz: a container's health check
//	server key       make an API key for API_KEYS_FILE
//	server archive   look after the archive of ARCHIVE_URL
//	server help      list the environment variables
//	server version   print what this binary was built from
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
	_ "time/tzdata" // the container has no zones

	"snowlink/internal/buildinfo"

	"github.com/valyala/fasthttp"
)

// pingTimeout is how long `server ping` waits.
const pingTimeout = 2 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	if err := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

const usage = `usage: server [work | ping | key NAME | archive COMMAND | help | version]

Without an argument it serves. On SIGHUP it reads API_KEYS_FILE and GEOIP_FILE
again.
server archive lists its commands.

The environment, with defaults; a variable that is empty counts as unset:
`

// run does what args say until it is done or ctx ends. Messages for people go to stdout, and the
// log goes to stderr.
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
		fmt.Fprintln(stdout, buildinfo.Version())
		return nil
	case "key":
		return mintKey(args[1:], stdout, stderr)
	case "archive":
		return archiveCommand(ctx, args[1:], environ, stdout, stderr)
	case "serve", "work", "ping":
	default:
		return fmt.Errorf("unknown command %q: it takes work, ping, key, archive, help or version, or nothing to serve", command)
	}
	cfg, err := readConfig(environ, command == "serve")
	if err != nil {
		return fmt.Errorf("configuration:\n%w\nsee: server help", err)
	}
	log := slog.New(slog.NewJSONHandler(stderr, nil))
	switch command {
	case "ping":
		return ping(cfg.Listen)
	case "work":
		return work(ctx, cfg, log)
	}
	return serve(ctx, cfg, stdout, log)
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

// reachable returns the address at which a client on this machine finds what listens on listen.
func reachable(listen string) string {
	host, port, _ := net.SplitHostPort(listen) // readConfig has checked it
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
