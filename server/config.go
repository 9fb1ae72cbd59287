package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"snowlink/internal/clicks"
	"snowlink/internal/link"
	"snowlink/snowflake"
)

// config is the environment, read at the start. A variable that is set but empty counts as unset.
// The table of variables says what each one is for.
type config struct {
	Listen        string        `env:"LISTEN" envDefault:":8000"`
	RedisURL      string        `env:"REDIS_URL"`
	RedisStateURL string        `env:"REDIS_STATE_URL"`
	ArchiveURL    string        `env:"ARCHIVE_URL"`
	ShardsBefore  int           `env:"ARCHIVE_SHARDS_BEFORE"`
	Work          onOff         `env:"WORK" envDefault:"on"`
	Clicks        onOff         `env:"CLICKS" envDefault:"on"`
	ClicksKeep    time.Duration `env:"CLICKS_KEEP" envDefault:"2160h"`
	ClicksWithout dimensions    `env:"CLICKS_WITHOUT"`
	GeoIPFile     string        `env:"GEOIP_FILE"`
	CountryHeader string        `env:"COUNTRY_HEADER"`
	KafkaBrokers  string        `env:"KAFKA_BROKERS"`
	KafkaTopic    string        `env:"KAFKA_TOPIC" envDefault:"snowlink.clicks"`
	EdgeLogListen string        `env:"EDGE_LOG_LISTEN"`
	APIKeys       []string      `env:"API_KEY"`
	APIKeysFile   string        `env:"API_KEYS_FILE"`
	BaseURL       string        `env:"BASE_URL"`
	RootURL       string        `env:"ROOT_URL"`
	Dashboard     onOff         `env:"DASHBOARD" envDefault:"on"`
	NodeID        int           `env:"NODE_ID"` // -1: the lowest that is free
	CacheBytes    byteSize      `env:"CACHE_BYTES" envDefault:"64MiB"`
	StaleIfError  time.Duration `env:"STALE_IF_ERROR" envDefault:"24h"`
	JournalMax    int           `env:"JOURNAL_MAX" envDefault:"1000000"`
	MetricsListen string        `env:"METRICS_LISTEN" envDefault:"127.0.0.1:9100"`
	ShutdownGrace time.Duration `env:"SHUTDOWN_GRACE" envDefault:"10s"`

	own link.Hosts // the hosts of BaseURL, to which no target may point
}

// A variable describes one field of config. The texts are Markdown, with backquotes around what is
// typed; for a terminal the backquotes are left out.
type variable struct {
	name  string // the env tag of the field
	about string // what it is for and what follows from it
	takes string // the values it accepts, to follow "it takes"
	unset string // what holds without it, if the field has no envDefault
}

// variables is the one description of the environment: errors, server help and
// docs/configuration.md are made from it.
var variables = []variable{
	{
		name:  "LISTEN",
		about: "The address of the HTTP server.",
		takes: "an address such as `:8000` or `127.0.0.1:8000`",
	},
	{
		name: "REDIS_URL",
		about: "The Redis that holds the links. Its query parameters are those of go-redis, such as `read_timeout`. " +
			"Sizes of pools count twice: lists and bulks have connections of their own.",
		takes: "`redis://`, `rediss://` or `unix://`; several addresses, comma-separated, for Cluster; `?master_name=` for Sentinel",
		unset: "a Redis in this process, whose links die with it",
	},
	{
		name: "REDIS_STATE_URL",
		about: "A small Redis for what is no link: leases of node IDs, promises of `Idempotency-Key`, rates of API keys, sessions of the dashboard, and clicks on their way; without an archive, all that is kept of clicks. " +
			"Run it with `noeviction`. With an archive it should be set: a full Redis of links evicts only what has a time to live.",
		takes: "what `REDIS_URL` takes, which must be set too",
		unset: "they are kept in the Redis at `REDIS_URL`",
	},
	{
		name: "ARCHIVE_URL",
		about: "The PostgreSQL databases that hold every link, 14 or newer. Redis then forgets only what they have. " +
			"The order of several is part of where a link is: add new ones at the end, and see `ARCHIVE_SHARDS_BEFORE`. " +
			"Query parameters are those of libpq and pgx, such as `sslmode` and `pool_max_conns`.",
		takes: "one or more addresses such as `postgres://user:password@host/database`, comma-separated; it needs `REDIS_URL`",
		unset: "no archive: a link that Redis evicts is gone",
	},
	{
		name: "ARCHIVE_SHARDS_BEFORE",
		about: "How many addresses `ARCHIVE_URL` had before some were added. Links are looked for at their old home, too, " +
			"until `server archive move` has moved them. Then unset it.",
		takes: "a number of at least 1, and less than that of the addresses",
		unset: "every link is at home",
	},
	{
		name: "WORK",
		about: "Whether this backend archives links and adds up clicks. With `off` on every backend, processes started as `server work` must run: " +
			"until they do, nothing new is archived, Redis fills up, and clicks wait in their queue.",
		takes: "`on` or `off`",
	},
	{
		name: "CLICKS",
		about: "Whether visits are counted. No visitor's address is ever kept. With `off` nothing is counted, and what was counted cannot be asked for; " +
			"all backends and workers should agree.",
		takes: "`on` or `off`",
	},
	{
		name: "CLICKS_KEEP",
		about: "How long clicks are kept by the hour and with several dimensions together. With an archive, days by single dimensions are kept for ever; " +
			"without one, nothing is kept for longer.",
		takes: "a duration of at least `48h`",
	},
	{
		name:  "CLICKS_WITHOUT",
		about: "Dimensions in which clicks are not told apart. What was counted before stays.",
		takes: "one or more of " + dimensionList() + ", comma-separated",
		unset: "clicks are counted in all dimensions",
	},
	{
		name:  "GEOIP_FILE",
		about: "A database of the countries of addresses, such as GeoLite2 or DB-IP Lite. The file is read again on SIGHUP; a wrong file changes nothing and is reported in the log.",
		takes: "the path of an MMDB file",
		unset: "no country is known, unless `COUNTRY_HEADER` says it",
	},
	{
		name: "COUNTRY_HEADER",
		about: "The header in which a network in front of Nginx says which country a visitor is in. It wins over `GEOIP_FILE`. " +
			"Nginx passes on `CF-IPCountry`, `CloudFront-Viewer-Country` and `X-Country-Code`; for another, add it to nginx/snippets/proxy.conf. " +
			"Set it only if nobody reaches Nginx without that network: a visitor could send the header, too.",
		takes: "the name of a header such as `CF-IPCountry`",
		unset: "no header is believed",
	},
	{
		name:  "KAFKA_BROKERS",
		about: "A Kafka that carries clicks from those who count them to those who add them up, for programs that want to read them, too. All backends and workers must agree.",
		takes: "one or more addresses such as `kafka:9092`, comma-separated; with TLS and a password `kafkas://user:password@kafka:9093`, and `?sasl=` for the mechanism",
		unset: "Redis carries them",
	},
	{
		name:  "KAFKA_TOPIC",
		about: "The topic of clicks. It is made if it is not there.",
		takes: "a name of up to 249 letters, digits, dots, hyphens and underscores",
	},
	{
		name: "EDGE_LOG_LISTEN",
		about: "The UDP address to which Nginx reports the visits that its edge cache answers: see nginx/edge-log. " +
			"It asks for no key: whoever reaches it can make clicks up.",
		takes: "an address such as `127.0.0.1:9514` or, if nobody else can reach it, `:9514`",
		unset: "visits that the edge cache answers are not counted",
	},
	{
		name:  "API_KEY",
		about: "Keys that may do everything, as often as they like. Only their digests stay in memory.",
		takes: "one or more keys, comma-separated; make one with: `openssl rand -hex 32`",
		unset: "without `REDIS_URL`, a key is made and printed; with it, `API_KEYS_FILE` must be set",
	},
	{
		name:  "API_KEYS_FILE",
		about: "Named keys, each with scopes and a rate. The file is read again on SIGHUP; a wrong file changes nothing and is reported in the log.",
		takes: "the path of a file with one key a line; make a line with: `server key NAME`",
		unset: "no named keys",
	},
	{
		name:  "BASE_URL",
		about: "What short URLs begin with, whatever `Host` a request names. No target may point to its host.",
		takes: "a URL such as `https://example.com`, without a path",
		unset: "`http://localhost` and the port of `LISTEN`",
	},
	{
		name:  "ROOT_URL",
		about: "Where `/` leads: whoever types your short domain alone, or removes the code.",
		takes: "a URL such as `https://example.com/about`, or a path such as `/dashboard/`",
		unset: "the dashboard; with `DASHBOARD=off`, nothing is there",
	},
	{
		name: "DASHBOARD",
		about: "Whether there is a page for people at `/dashboard/`. They sign in with an API key. " +
			"All backends should agree.",
		takes: "`on` or `off`",
	},
	{
		name:  "NODE_ID",
		about: "This backend's part of every ID that it mints. It is leased in Redis: a second process with the same ID refuses to start and names the first.",
		takes: "a number from 0 to 1023",
		unset: "the lowest that is free",
	},
	{
		name:  "CACHE_BYTES",
		about: "The memory of the near cache, which keeps the links in use in the process. With 0 every redirect asks Redis.",
		takes: "bytes such as `64MiB`, 1MiB at least, or 0 for no near cache",
	},
	{
		name:  "STALE_IF_ERROR",
		about: "How long the near cache goes on serving a link that Redis, being away, cannot confirm.",
		takes: "a duration such as `24h`; below 30s it is 30s",
	},
	{
		name: "JOURNAL_MAX",
		about: "How many links of each key name can be listed at least without an archive: the newest ones, at 16 to 25 bytes of Redis a link. " +
			"Older links go on working and are not listed. With an archive all links are.",
		takes: "a number such as `1000000`, or 0 for no lists",
	},
	{
		name:  "METRICS_LISTEN",
		about: "The address of Prometheus `/metrics` and of `/debug/pprof/`. Neither asks for a key, and whoever reaches them can read the memory of the process.",
		takes: "an address such as `127.0.0.1:9100` or, if nobody else can reach it, `:9100`; or `off`",
	},
	{
		name:  "SHUTDOWN_GRACE",
		about: "How long requests in flight have to finish after SIGTERM. A bulk, an import or an export that takes longer is cut off.",
		takes: "a duration above zero such as `10s`",
	},
}

// describe returns the description of a field of config.
func describe(field reflect.StructField) variable {
	name := field.Tag.Get("env")
	i := slices.IndexFunc(variables, func(v variable) bool { return v.name == name })
	if i < 0 {
		return variable{name: name}
	}
	return variables[i]
}

// readConfig reads environ, which has the form of os.Environ. Its error names every variable that
// is wrong and what it takes. It names no value, which may be a secret. serving says that the
// process will serve, which takes a key.
func readConfig(environ []string, serving bool) (config, error) {
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
		v := describe(f)
		wrong = append(wrong, fmt.Errorf("%s is not valid: it takes %s", v.name, plain(v.takes)))
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
	if c.ClicksKeep < clicksKeepLeast {
		invalid("ClicksKeep")
	}
	if c.CountryHeader != "" && !isToken.MatchString(c.CountryHeader) {
		invalid("CountryHeader")
	}
	if !isTopic.MatchString(c.KafkaTopic) {
		invalid("KafkaTopic")
	}
	if _, ok := portOf(c.EdgeLogListen); !ok && c.EdgeLogListen != "" {
		invalid("EdgeLogListen")
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
	if serving && c.ArchiveURL != "" && c.RedisURL == "" {
		wrong = append(wrong, errors.New("ARCHIVE_URL is set and REDIS_URL is not: the Redis in this process would lose links before they are archived"))
	}
	if set["ARCHIVE_SHARDS_BEFORE"] != "" && (c.ShardsBefore < 1 || c.ArchiveURL == "") {
		invalid("ShardsBefore")
	}
	if serving && len(c.APIKeys) == 0 && c.APIKeysFile == "" && c.RedisURL != "" {
		wrong = append(wrong, errors.New("neither API_KEY nor API_KEYS_FILE is set: without a key nobody could create links in the Redis at REDIS_URL; make one with: openssl rand -hex 32, or server key NAME"))
	}
	if c.RedisStateURL != "" && c.RedisURL == "" {
		invalid("RedisStateURL")
	}
	if c.BaseURL == "" {
		c.BaseURL = "http://localhost:" + port
	}
	base, own, err := link.ParseBaseURL(c.BaseURL)
	if err != nil {
		invalid("BaseURL")
	}
	c.BaseURL, c.own = base, own
	switch path := strings.HasPrefix(c.RootURL, "/"); {
	case c.RootURL == "" && bool(c.Dashboard):
		c.RootURL = "/dashboard/"
	case c.RootURL == "":
	case path && len(c.RootURL) > 1 && c.RootURL[1] != '/' && !strings.ContainsFunc(c.RootURL, func(r rune) bool { return r <= ' ' || r > '~' || r == '\\' }):
	default:
		if c.RootURL, err = link.ParseTarget(c.RootURL, link.Hosts{}); err != nil || c.RootURL == base+"/" { // a circle
			invalid("RootURL")
		}
	}
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

// onOff is a switch.
type onOff bool

func (o *onOff) UnmarshalText(text []byte) error {
	switch string(text) {
	case "on", "off":
		*o = string(text) == "on"
		return nil
	}
	return errors.New("neither on nor off")
}

// dimensions are some of those that clicks are told apart by.
type dimensions []clicks.Dimension

func (d *dimensions) UnmarshalText(text []byte) error {
	for name := range strings.SplitSeq(string(text), ",") {
		dimension, ok := clicks.DimensionOf(strings.TrimSpace(name))
		if !ok || dimension == clicks.Bot { // without which no number would mean people
			return errors.New("no dimension, or one that is always needed")
		}
		*d = append(*d, dimension)
	}
	return nil
}

// dimensionList names all dimensions that may be left out, in Markdown.
func dimensionList() string {
	var names []string
	for d := range clicks.Dimension(clicks.Dimensions) {
		if d != clicks.Bot {
			names = append(names, "`"+d.String()+"`")
		}
	}
	return strings.Join(names, ", ")
}

// clicksKeepLeast is a day that is over and one that is not: what is older is summed up.
const clicksKeepLeast = 48 * time.Hour

var (
	isToken = regexp.MustCompile(`^[0-9A-Za-z-]+$`)
	isTopic = regexp.MustCompile(`^[0-9A-Za-z._-]{1,249}$`)
)

// portOf returns the port of a listen address. It must be a number, because it becomes part of
// short URLs.
func portOf(listen string) (string, bool) {
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return port, err == nil && n > 0
}

// helpWidth is the width of the narrowest terminal in use.
const helpWidth = 80

// writeVariables writes the environment for people at a terminal.
func writeVariables(w io.Writer) {
	for _, f := range reflect.VisibleFields(reflect.TypeFor[config]()) {
		v := describe(f)
		if v.name == "" {
			continue
		}
		fmt.Fprintf(w, "\n  %s", v.name)
		if byDefault := f.Tag.Get("envDefault"); byDefault != "" {
			fmt.Fprintf(w, "=%s", byDefault)
		}
		fmt.Fprintln(w)
		writeWrapped(w, v.about)
		writeWrapped(w, "Takes "+v.takes+".")
		if v.unset != "" {
			writeWrapped(w, "Unset: "+v.unset+".")
		}
	}
}

// writeWrapped writes a paragraph, indented.
func writeWrapped(w io.Writer, text string) {
	const indent = "       "
	line := indent
	for _, word := range strings.Fields(plain(text)) {
		if len(line)+len(" ")+len(word) > helpWidth {
			fmt.Fprintln(w, line)
			line = indent
		}
		line += " " + word
	}
	fmt.Fprintln(w, line)
}

// plain turns Markdown into text for a terminal.
func plain(text string) string { return strings.ReplaceAll(text, "`", "") }
