package kafka

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// ParseBrokers reads KAFKA_BROKERS: one host:port or several, separated by commas. In front there may
// be kafka://, or kafkas:// for TLS with the certificates that this machine trusts, and user:password@
// for SASL, percent-encoded. Behind, ?sasl= names the mechanism: scram-sha-512 if it is left out,
// scram-sha-256, or plain, which needs TLS. An error never repeats the password.
func ParseBrokers(brokers string) ([]kgo.Opt, error) {
	rest, query, _ := strings.Cut(brokers, "?")
	scheme, hosts, ok := strings.Cut(rest, "://")
	if !ok {
		scheme, hosts = "kafka", rest
	}
	var opts []kgo.Opt
	switch scheme {
	case "kafka":
	case "kafkas":
		opts = append(opts, kgo.DialTLSConfig(&tls.Config{MinVersion: tls.VersionTLS12}))
	default:
		return nil, errors.New("it begins with neither kafka:// nor kafkas:// nor a host")
	}

	parameters, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("what follows the ? cannot be read")
	}
	for name := range parameters {
		if name != "sasl" {
			// The name is not repeated: it may be the rest of a password with a ? in it.
			return nil, errors.New("the only parameter behind the ? is sasl; a ? in a password is written %3F")
		}
	}
	login, hosts, hasLogin := cutLast(hosts, "@")
	if hasLogin {
		user, password, _ := strings.Cut(login, ":")
		user, err := url.PathUnescape(user)
		password, err2 := url.PathUnescape(password)
		if err != nil || err2 != nil || user == "" || password == "" {
			return nil, errors.New("what stands before the @ is not a user and a password, percent-encoded")
		}
		switch mechanism := parameters.Get("sasl"); mechanism {
		case "", "scram-sha-512":
			opts = append(opts, kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha512Mechanism()))
		case "scram-sha-256":
			opts = append(opts, kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha256Mechanism()))
		case "plain":
			if scheme != "kafkas" {
				return nil, errors.New("sasl=plain sends the password as it is, so it needs kafkas://")
			}
			opts = append(opts, kgo.SASL(plain.Auth{User: user, Pass: password}.AsMechanism()))
		default:
			return nil, fmt.Errorf("sasl is scram-sha-512, scram-sha-256 or plain, not %q", mechanism)
		}
	} else if parameters.Has("sasl") {
		return nil, errors.New("sasl needs user:password@ before the hosts")
	}

	var seeds []string
	for host := range strings.SplitSeq(hosts, ",") {
		if host = strings.TrimSpace(host); host == "" {
			continue
		}
		name, port, err := net.SplitHostPort(host)
		if number, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || number == 0 || name == "" {
			return nil, errors.New("a broker is not host:port") // it may be a part of a password
		}
		seeds = append(seeds, host)
	}
	if len(seeds) == 0 {
		return nil, errors.New("it names no broker")
	}
	return append(opts, kgo.SeedBrokers(seeds...)), nil
}

// cutLast cuts s around the last sep.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}
