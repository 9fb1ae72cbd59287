package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caarlos0/env/v11"

	"snowlink/internal/link"
	"snowlink/snowflake"
)

// config is the environment, read once. A variable that is set but empty counts
// as unset. The takes tag says what a variable accepts, for errors and help.
type config struct {
	// Listen is the address of the public HTTP server.
	Listen string `env:"LISTEN" envDefault:":8000" takes:"an address such as :8000 or 127.0.0.1:8000"`

	// RedisURL is where links live. Several addresses mean Cluster,
	// ?master_name= means Sentinel. Unset: an embedded Redis in this process,
	// whose links are lost with it.
	RedisURL string `env:"REDIS_URL" takes:"redis://, rediss:// or unix://, comma-separated for Cluster, ?master_name= for Sentinel; unset: a Redis in this process, lost with it"`

	// APIKeys may do everything, without a limit. Unset with the embedded Redis: one
	// is minted and printed. Unset with a real one, and no APIKeysFile: the server
	// refuses to start.
	APIKeys []string `env:"API_KEY" takes:"one or more keys, comma-separated, with all scopes; make one with: openssl rand -hex 32"`

	// APIKeysFile has named keys, each with what it may do and how often. It is read
	// again at SIGHUP. Unset: there are none.
	APIKeysFile string `env:"API_KEYS_FILE" takes:"a file of named keys, a line each; make one with: server key NAME"`

	// BaseURL is what short URLs begin with, whatever Host a request names, and
	// no target may point to its host. Unset: http://localhost:<port of LISTEN>.
	BaseURL string `env:"BASE_URL" takes:"a URL such as https://example.com, without a path; unset: http://localhost and the port of LISTEN"`

	// NodeID is this backend's part of every ID it mints. Two backends never
	// share one. Unset, here -1: the lowest that is free.
	NodeID int `env:"NODE_ID" takes:"a number from 0 to 1023; unset: the lowest that is free"`

	// CacheBytes bounds the near cache, which keeps this backend's share of the
	// hot links in the process. 0 turns it off: every redirect asks Redis.
	CacheBytes byteSize `env:"CACHE_BYTES" envDefault:"64MiB" takes:"bytes such as 64MiB, 1MiB at least, or 0 for no near cache"`

	// StaleIfError is how long the near cache goes on serving a link that Redis,
	// being away, cannot confirm. Less than nearcache.FreshFor counts as that.
	StaleIfError time.Duration `env:"STALE_IF_ERROR" envDefault:"24h" takes:"a duration such as 24h; below 30s it is 30s"`

	// JournalMax bounds the journal of each API key, which lists its links, to
	// this many entries of 25 to 65 bytes: journals must not crowd links out of
	// Redis. Older links live on unlisted. 0 keeps no journals, and lists are empty.
	JournalMax int `env:"JOURNAL_MAX" envDefault:"1000000" takes:"how many links of a key can be listed at least, the newest ones, such as 1000000; 0 for no lists"`

	// MetricsListen is the address of /metrics and /debug/pprof/, which ask for no
	// key and must not be reachable from outside. On another address than the
	// loopback, whoever reaches it can read the process's memory.
	MetricsListen string `env:"METRICS_LISTEN" envDefault:"127.0.0.1:9100" takes:"an address such as 127.0.0.1:9100 or, if nobody else can reach it, :9100; or off"`

	// ShutdownGrace is how long requests in flight have to finish after SIGTERM.
	// A bulk, an import or an export that takes longer is cut off.
	ShutdownGrace time.Duration `env:"SHUTDOWN_GRACE" envDefault:"10s" takes:"a duration above zero such as 10s"`

	// own are the hosts of BaseURL, which no target may point to.
	own link.Hosts
}

// readConfig reads environ, which has the form of os.Environ. Its error names
// every variable that is wrong and what it takes, but no value: it may be a
// secret.
func readConfig(environ []string) (config, error) {
	set := make(map[string]string)
	for _, entry := range environ {
		if name, value, _ := strings.Cut(entry, "="); value != "" {
			set[name] = value
		}
	}
	c := config{NodeID: -1}
	var wrong []error
	invalid := func(field string) {
		f, _ := reflect.TypeFor[config]().FieldByName(field)
		wrong = append(wrong, fmt.Errorf("%s is not valid: it takes %s", f.Tag.Get("env"), f.Tag.Get("takes")))
	}

	if err := env.ParseWithOptions(&c, env.Options{Environment: set}); err != nil {
		parsing, ok := errors.AsType[env.AggregateError](err)
		if !ok {
			return config{}, err
		}
		for _, e := range parsing.Errors {
			field, ok := errors.AsType[env.ParseError](e)
			if !ok {
				return config{}, e
			}
			invalid(field.Name)
		}
		return config{}, errors.Join(wrong...)
	}

	port, ok := portOf(c.Listen)
	if !ok {
		invalid("Listen")
	}
	if _, ok := portOf(c.MetricsListen); !ok && c.MetricsListen != "off" {
		invalid("MetricsListen")
	}
	if set["NODE_ID"] != "" && (c.NodeID < 0 || c.NodeID > snowflake.MaxNode) {
		invalid("NodeID")
	}
	if c.CacheBytes > 0 && c.CacheBytes < 1<<20 {
		invalid("CacheBytes")
	}
	if c.JournalMax < 0 {
		invalid("JournalMax")
	}
	if c.StaleIfError < 0 {
		invalid("StaleIfError")
	}
	if c.ShutdownGrace <= 0 {
		invalid("ShutdownGrace")
	}
	for i, key := range c.APIKeys {
		if c.APIKeys[i] = strings.TrimSpace(key); c.APIKeys[i] == "" {
			invalid("APIKeys")
			break
		}
	}
	if len(c.APIKeys) == 0 && c.APIKeysFile == "" && c.RedisURL != "" {
		wrong = append(wrong, errors.New("neither API_KEY nor API_KEYS_FILE is set: without a key nobody could create links in the Redis at REDIS_URL; make one with: openssl rand -hex 32, or server key NAME"))
	}
	if c.BaseURL == "" {
		c.BaseURL = "http://localhost:" + port
	}
	base, own, err := link.ParseBaseURL(c.BaseURL)
	if err != nil {
		invalid("BaseURL")
	}
	c.BaseURL, c.own = base, own
	return c, errors.Join(wrong...)
}

// byteSize is a number of bytes, written with a binary unit or none.
type byteSize uint64

func (b *byteSize) UnmarshalText(text []byte) error {
	digits, shift := string(text), 0
	for unit, s := range map[string]int{"KiB": 10, "MiB": 20, "GiB": 30} {
		if before, ok := strings.CutSuffix(digits, unit); ok {
			digits, shift = before, s
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63-shift)
	*b = byteSize(n << shift)
	return err
}

// portOf returns the port of a listen address, which must be a number: it
// becomes part of short URLs.
func portOf(listen string) (string, bool) {
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return port, err == nil && n > 0
}

// writeVariables writes the configuration as a table for people.
func writeVariables(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range reflect.VisibleFields(reflect.TypeFor[config]()) {
		if name := f.Tag.Get("env"); name != "" {
			fmt.Fprintf(table, "  %s\t%s\t%s\n", name, f.Tag.Get("envDefault"), f.Tag.Get("takes"))
		}
	}
	table.Flush()
}
