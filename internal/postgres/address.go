package postgres

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Limits on connections, used where an address does not set its own.
const (
	// maxConns is for each database, in each backend. A query takes less than a millisecond, and more
	// of them at once than a database has cores only wait there. Three backends, and workers beside
	// them, stay well below the 100 connections of a PostgreSQL as it comes.
	maxConns = 8
	// connectTime leaves room for a second try within the time of a request.
	connectTime = 800 * time.Millisecond
	// statementTime is the second line behind the deadline of each query: it ends what a backend that
	// died, or that PostgreSQL did not hear of, has left behind.
	statementTime = 15 * time.Second
)

// address is one of ARCHIVE_URL: it stands at a comma that another address follows. So neither a comma
// in a password separates anything, nor one between several hosts of one database.
var address = regexp.MustCompile(`,\s*(postgres(?:ql)?://)`)

// parse reads ARCHIVE_URL: one address of a database, or several separated by commas. Their order is
// their identity. An address is a URL as PostgreSQL's own programs take it; of its parameters,
// pool_max_conns, connect_timeout and statement_timeout replace our limits. Several hosts in one
// address are one database that fails over. An error never repeats an address.
func parse(archiveURL string) ([]*pgxpool.Config, error) {
	var configs []*pgxpool.Config
	for i, text := range strings.Split(address.ReplaceAllString(strings.TrimSpace(archiveURL), "\x00$1"), "\x00") {
		config, err := parseOne(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("address %d: %w", i+1, err)
		}
		configs = append(configs, config)
	}
	return configs, nil
}

func parseOne(text string) (*pgxpool.Config, error) {
	if !strings.HasPrefix(text, "postgres://") && !strings.HasPrefix(text, "postgresql://") {
		return nil, errors.New("it does not begin with postgres://")
	}
	_, after, _ := strings.Cut(text, "?")
	query, err := url.ParseQuery(after)
	if err != nil {
		return nil, errors.New("its parameters are not those of a URL")
	}
	config, err := pgxpool.ParseConfig(text)
	if err != nil {
		return nil, redacted(err)
	}
	if !query.Has("pool_max_conns") {
		config.MaxConns = maxConns
	}
	if !query.Has("connect_timeout") {
		config.ConnConfig.ConnectTimeout = connectTime
	}
	params := config.ConnConfig.RuntimeParams
	if !query.Has("statement_timeout") {
		params["statement_timeout"] = fmt.Sprint(statementTime.Milliseconds())
	}
	if !query.Has("application_name") {
		params["application_name"] = "snowlink"
	}
	return config, nil
}

// Address returns where the database is, as host:port/database, without user and password.
func (db *DB) Address() string {
	config := db.pool.Config().ConnConfig
	hosts := []string{net.JoinHostPort(config.Host, fmt.Sprint(config.Port))}
	for _, f := range config.Fallbacks { // other hosts, and each again without TLS
		if host := net.JoinHostPort(f.Host, fmt.Sprint(f.Port)); !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return strings.Join(hosts, ",") + "/" + config.Database
}

// redacted says what is wrong with an address without repeating it: pgx quotes it, and hides only a
// password that stands where it belongs. What net/url says may have a part of the password, too.
func redacted(err error) error {
	if _, ok := errors.AsType[*pgconn.ParseConfigError](err); ok {
		return errors.New("it is not a URL of a PostgreSQL, as postgres://user:password@host:5432/database")
	}
	return errors.New("a pool_ parameter cannot be understood")
}
