// Command loadtest runs Snowlink fleets on this machine and measures them. See
// usage for what it does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"snowlink/internal/fleet"
)

const usage = `Usage: go run ./loadtest COMMAND [flags]

  fleet   keeps a fleet up (Redis, backends, Nginx) until Ctrl-C: no containers needed
  links   creates links through Nginx with wrk and proves every single one
  bench   measures redirects and creates against the constant-answer server, direct and
          through Nginx, and says which of the project's bars hold
  growth  measures what changes with the number of links and of connections
  eviction
          counts the hot links that Redis loses while it evicts half of all links
  bulk    measures bulk against single creates, and the time and memory of an export and
          an import of a million links
  pgo     profiles a backend under load and writes server/default.pgo

bench and growth write loadtest/results/ when they run without flags, and where -o
says. go run ./loadtest COMMAND -h lists a command's flags. Needs redis-server, nginx and
wrk, which "make tools" installs. For load on a fleet that runs already, use wrk with
the scripts in loadtest/; each says how on its first lines.
`

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
		fmt.Fprint(stderr, usage)
		return errors.New("no command")
	}
	flags := flag.NewFlagSet("loadtest "+args[0], flag.ContinueOnError)
	flags.SetOutput(stderr)
	switch args[0] {
	case "fleet":
		backends := flags.Int("backends", 3, "how many backends")
		if err := parse(flags, args[1:]); err != nil {
			return err
		}
		return keepFleet(ctx, *backends, stdout)
	case "links":
		n := flags.Int("n", 100_000, "how many links")
		connections := flags.Int("connections", 1000, "connections that wrk keeps open")
		if err := parse(flags, args[1:]); err != nil {
			return err
		}
		return proveLinks(ctx, *n, *connections, stdout)
	case "bench":
		b := bench{output: newOutput(args, stderr)}
		b.output.flag(flags)
		b.eviction.flags(flags)
		flags.DurationVar(&b.duration, "duration", defaultDuration, "of each of the runs: two a round and scenario")
		flags.IntVar(&b.rounds, "rounds", 5, "pairs of runs per scenario; the medians count")
		flags.StringVar(&b.only, "only", "", "only the scenarios whose name contains this")
		flags.IntVar(&b.connections, "connections", 0, "connections that wrk keeps open (default: as the scenario says)")
		flags.IntVar(&b.threads, "threads", defaultThreads(), "threads of wrk")
		flags.IntVar(&b.codes, "codes", 10_000, "links that redirects are spread over")
		flags.IntVar(&b.links, "links", 10_000_000, "links in the larger Redis of the comparison by links")
		if err := parse(flags, args[1:]); err != nil {
			return err
		}
		b.output.whole = flags.NFlag() == 0
		b.eviction.progress = stderr
		return b.run(ctx, stdout)
	case "growth":
		g := growth{
			sizes:       []int{10_000, 1_000_000, 10_000_000},
			connections: []int{16, 64, 256, 1000, 4000},
			output:      newOutput(args, stderr),
		}
		g.output.flag(flags)
		flags.DurationVar(&g.duration, "duration", defaultDuration, "of each run")
		flags.IntVar(&g.rounds, "rounds", 3, "runs of each line; the medians count")
		flags.IntVar(&g.threads, "threads", defaultThreads(), "threads of wrk")
		flags.Func("links", "numbers of links in Redis (default 10000,1000000,10000000)", numbers(&g.sizes))
		flags.Func("connections", "numbers of connections (default 16,64,256,1000,4000)", numbers(&g.connections))
		flags.StringVar(&g.maxmemory, "maxmemory", "2gb", "of the Redis that is filled to the first eviction")
		if err := parse(flags, args[1:]); err != nil {
			return err
		}
		g.output.whole = flags.NFlag() == 0
		return g.run(ctx, stdout)
	case "eviction":
		e := eviction{progress: stderr}
		e.flags(flags)
		if err := parse(flags, args[1:]); err != nil {
			return err
		}
		lost, err := e.run(ctx)
		if err == nil {
			fmt.Fprint(stdout, lost)
		}
		return err
	case "bulk":
		b := bulkBench{progress: stderr}
		flags.IntVar(&b.rounds, "rounds", 5, "pairs of runs; the medians count")
		flags.DurationVar(&b.duration, "duration", defaultDuration, "of each run")
		flags.IntVar(&b.links, "links", 1_000_000, "links that are exported and imported")
		if err := parse(flags, args[1:]); err != nil {
			return err
		}
		return b.run(ctx, stdout)
	case "pgo":
		each := flags.Duration("duration", 10*time.Second, "under each kind of load, in whole seconds")
		if err := parse(flags, args[1:]); err != nil {
			return err
		}
		return writeProfile(ctx, *each, stderr)
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
		return nil
	}
	fmt.Fprint(stderr, usage)
	return fmt.Errorf("no command %q", args[0])
}

// newOutput is for the command in args.
func newOutput(args []string, stderr io.Writer) output {
	return output{command: strings.Join(append([]string{"go run ./loadtest"}, args...), " "), progress: stderr}
}

// numbers reads a list as 16,64,256.
func numbers(into *[]int) func(string) error {
	return func(list string) error {
		*into = nil
		for number := range strings.SplitSeq(list, ",") {
			n, err := strconv.Atoi(number)
			if err != nil {
				return err
			}
			*into = append(*into, n)
		}
		return nil
	}
}

func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is not a flag", flags.Arg(0))
	}
	return nil
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
	fmt.Fprintln(stdout, "Ctrl-C stops everything; its links go with it.")
	<-ctx.Done()
	return nil
}
