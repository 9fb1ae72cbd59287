package kafka_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"

	"snowlink/internal/clicks"
	"snowlink/internal/clicks/queuetest"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/kafka"
	"snowlink/internal/link"
)

func TestParseBrokers(t *testing.T) {
	for _, good := range []string{
		"a:1", "a:1,b:2", "a:1, b:2,", "[::1]:9092", "kafka://a:1", "kafkas://a:1,b:2", "kafka://u:p@a:1", "kafkas://u:p@a:1?sasl=plain",
		"kafkas://u:p@a:1,b:2?sasl=scram-sha-256", "kafkas://u:a%2Cb%40c%3A%2F@a:1?sasl=scram-sha-512", "u:p@a:1",
	} {
		if _, err := kafka.ParseBrokers(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", ",", "a", "a:", ":1", "a:0", "a:99999", "a:x", "http://a:1", "redis://u:secret@a:1", "kafkas://u:secret@a", "kafka://u:secret@a:1?sasl=plain",
		"kafkas://u:secret@a:1?sasl=gssapi", "kafkas://u:secret@a:1?ssl=secret%zz", "kafkas://secret@a:1", "kafkas://:secret@a:1", "kafkas://u:@a:1",
		"kafkas://u:secret%zz@a:1", "kafka://a:1?sasl=plain", "kafka://a:1?tls=1", "kafkas://u:secret@a:1,u:secret/x", "u:secret,a:1", "kafkas://u:sec@ret@a",
	} {
		_, err := kafka.ParseBrokers(bad)
		if err == nil {
			t.Errorf("%q is taken", bad)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error shows the password: %v", bad, err)
		}
		if _, err := kafka.Open(bad, "t", quiet, prometheus.NewRegistry()); err == nil {
			t.Errorf("%q is opened", bad)
		}
	}
}

// A Kafka that asks for a password gets it by the mechanism that is named, and neither an error nor
// the log shows it.
func TestSASL(t *testing.T) {
	for _, tt := range []struct{ method, parameter string }{
		{"SCRAM-SHA-512", ""}, {"SCRAM-SHA-256", "?sasl=scram-sha-256"}, {"SCRAM-SHA-512", "?sasl=scram-sha-512"},
	} {
		t.Run(tt.method+tt.parameter, func(t *testing.T) {
			c := fake(t, kfake.EnableSASL(), kfake.Superuser(tt.method, "u", "se,cr@et"))
			topic := topic()
			q := open(t, "kafka://u:se%2Ccr%40et@"+c.ListenAddrs()[0]+tt.parameter, topic)
			b := queuetest.Batch("p", 1)
			queuetest.SendUntil(t, q, &b)
			sink := queuetest.NewSink(t)
			fleettest.Background(t, func(ctx context.Context) error { return q.Receive(ctx, sink.Apply) })
			sink.Await([]clicks.Batch{b})

			var log fleettest.Output
			wrong := openWith(t, "kafka://u:wrongsecret@"+c.ListenAddrs()[0]+tt.parameter, topic, slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry())
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			err := wrong.Send(ctx, &b)
			if !errors.Is(err, link.ErrUnavailable) || strings.Contains(err.Error()+log.String(), "wrongsecret") {
				t.Errorf("with a wrong password Send returns %v, and the log has\n%s", err, log.String())
			}
		})
	}
}

// TLS takes only certificates that the machine trusts: kfake's is none.
func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	mine := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, mine, mine, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	c := fake(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{certificate}}))
	q := open(t, "kafkas://"+c.ListenAddrs()[0], topic())
	b := queuetest.Batch("p", 1)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := q.Send(ctx, &b); !errors.Is(err, link.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("Send returns %v", err)
	}
}
