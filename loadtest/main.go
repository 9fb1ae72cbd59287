// Command loadtest starts Snowlink fleets on this machine and measures them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"snowlink/internal/fleet"
)

// A command is what the first argument names.
type command struct {
	name, about string
	// define declares the command's flags. What it returns runs the command, once the
	// flags are parsed.
	define func(*flag.FlagSet, console) func(context.Context) error
}

// console is how a command was called, and where it writes.
type console struct {
	typed            string    // the whole line
	stdout, progress io.Writer // for results, and for what it is doing
}

var commands = []command{
	{"fleet", "keeps a fleet running (Redis, backends, Nginx) until Ctrl-C. It needs no containers.", defineFleet},
	{"links", "creates links through Nginx with wrk and proves every one of them.", defineLinks},
	{"bench", "measures redirects and creates against a server that answers from constants, direct and\nthrough Nginx, and says which of the project's bars hold.", defineBench},
	{"growth", "measures what changes with the number of links and of connections.", defineGrowth},
	{"eviction", "counts the hot links that Redis loses while it evicts half of all links.", defineEviction},
	{"bulk", "measures bulk against single creates, and the time and memory that an export and an\nimport of a million links take.", defineBulk},
	{"clicks", "fills a PostgreSQL with clicks, and measures every kind of question about them. It may be\nbroken off and run again, if it is told which PostgreSQL.", defineClicks},
	{"pgo", "profiles a backend under load and writes server/default.pgo, which builds then use.", definePGO},
}

func usage(to io.Writer) {
	fmt.Fprint(to, "Usage: go run ./loadtest COMMAND [flags]\n\n")
	for _, c := range commands {
		fmt.Fprintf(to, "  %-9s %s\n", c.name, indent(c.about, 12))
	}
	fmt.Fprint(to, `
go run ./loadtest COMMAND -h lists a command's flags. Without flags, bench, growth and
clicks write to loadtest/results/. All of it needs redis-server, nginx and wrk, which "make tools"
installs. To load a fleet that runs already, use wrk with the scripts in loadtest/; the first
lines of each say how.
`)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); {
	case errors.Is(err, flag.ErrHelp): // the flag package has printed it
	case err != nil:
		fmt.Fprintln(os.Stderr, "loadtest:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		usage(stderr)
		return errors.New("no command")
	}
	for _, c := range commands {
		if c.name == args[0] {
			return c.run(ctx, args[1:], console{"go run ./loadtest " + strings.Join(args, " "), stdout, stderr})
		}
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		usage(stdout)
		return nil
	}
	usage(stderr)
	return fmt.Errorf("no command %q", args[0])
}

func (c command) run(ctx context.Context, args []string, to console) error {
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(to.progress)
	flags.Usage = func() {
		fmt.Fprintf(to.progress, "Usage: go run ./loadtest %s [flags]\n\n%s %s\n\n", c.name, c.name, c.about)
		flags.PrintDefaults()
	}
	do := c.define(flags, to)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is not a flag", flags.Arg(0))
	}
	return do(ctx)
}

func defineFleet(flags *flag.FlagSet, to console) func(context.Context) error {
	var backends int
	numberVar(flags, &backends, 1, "backends", 3, "`number` of backends")
	return func(ctx context.Context) error { return keepFleet(ctx, backends, to.stdout) }
}

func defineLinks(flags *flag.FlagSet, to console) func(context.Context) error {
	var n, connections int
	numberVar(flags, &n, 1, "n", 100_000, "`number` of links")
	numberVar(flags, &connections, 1, "connections", 1000, "`number` of connections that wrk keeps open")
	return func(ctx context.Context) error { return proveLinks(ctx, n, connections, to.stdout) }
}

func defineBench(flags *flag.FlagSet, to console) func(context.Context) error {
	b := bench{eviction: eviction{progress: to.progress}}
	b.measuring.define(flags, to, 5)
	b.eviction.define(flags)
	flags.StringVar(&b.only, "only", "", "run only the scenarios whose name contains this `text`")
	numberVar(flags, &b.connections, 1, "connections", 0, "`number` of connections that wrk keeps open (default: as the scenario says)")
	numberVar(flags, &b.codes, 1, "codes", 10_000, "`number` of links that redirects are spread over")
	numberVar(flags, &b.links, 1, "links", 10_000_000, "`number` of links in the larger Redis of the comparison by links")
	return func(ctx context.Context) error {
		b.output.whole = flags.NFlag() == 0
		return b.run(ctx, to.stdout)
	}
}

func defineGrowth(flags *flag.FlagSet, to console) func(context.Context) error {
	g := growth{sizes: numbers{10_000, 1_000_000, 10_000_000}, connections: numbers{16, 64, 256, 1000, 4000}}
	g.measuring.define(flags, to, 3)
	flags.Var(&g.sizes, "links", "`numbers` of links in Redis, with commas between them")
	flags.Var(&g.connections, "connections", "`numbers` of connections, with commas between them")
	flags.StringVar(&g.maxmemory, "maxmemory", "2gb", "`memory` of the Redis that is filled until it evicts a link")
	return func(ctx context.Context) error {
		g.output.whole = flags.NFlag() == 0
		return g.run(ctx, to.stdout)
	}
}

func defineEviction(flags *flag.FlagSet, to console) func(context.Context) error {
	e := eviction{progress: to.progress}
	e.define(flags)
	return func(ctx context.Context) error {
		lost, err := e.run(ctx)
		if err == nil {
			fmt.Fprint(to.stdout, lost)
		}
		return err
	}
}

func defineBulk(flags *flag.FlagSet, to console) func(context.Context) error {
	b := bulkBench{progress: to.progress}
	numberVar(flags, &b.rounds, 1, "rounds", 5, "`number` of rounds; the medians count")
	secondsVar(flags, &b.duration, "duration", defaultDuration, "`time` of each run, in whole seconds")
	numberVar(flags, &b.links, 1, "links", 1_000_000, "`number` of links that are exported and imported")
	return func(ctx context.Context) error { return b.run(ctx, to.stdout) }
}

func defineClicks(flags *flag.FlagSet, to console) func(context.Context) error {
	var q questions
	q.define(flags, to)
	return func(ctx context.Context) error {
		q.output.whole = q.millions == 100 && q.links == 100_000 // wherever they are
		return q.run(ctx, to.stdout)
	}
}

func definePGO(flags *flag.FlagSet, to console) func(context.Context) error {
	var each time.Duration
	secondsVar(flags, &each, "duration", 10*time.Second, "`time` under each kind of load, in whole seconds")
	return func(ctx context.Context) error { return writeProfile(ctx, each, to.progress) }
}

// keepFleet runs a fleet until ctx ends.
func keepFleet(ctx context.Context, backends int, stdout io.Writer) (err error) {
	f, err := fleet.Start(ctx, fleet.Options{Backends: backends})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()

	fmt.Fprintf(stdout, "Nginx     %s\n", f.URL)
	for i, b := range f.Backends {
		fmt.Fprintf(stdout, "backend%d  %s  %s\n", i+1, b.URL, b.MetricsURL)
	}
	fmt.Fprintf(stdout, "Redis     %s\n", f.Redis.Addr)
	fmt.Fprintf(stdout, "logs      %s\n", f.Dir)
	fmt.Fprintf(stdout, "API_KEY   %s\n\n", f.APIKey)
	fmt.Fprintf(stdout, "curl -i %s/generate_url -H 'API-Key: %s' -d '{\"url\":\"https://example.com/\"}'\n\n", f.URL, f.APIKey)
	fmt.Fprintln(stdout, "Ctrl-C stops everything, and the links are gone then.")
	<-ctx.Done()
	return nil
}
