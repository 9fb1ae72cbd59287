// Package clickstest helps to test what clicks go through.
package clickstest

import (
	"context"
	"crypto/sha256"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"snowlink/internal/clicks"
)

var (
	_ clicks.Queue = (*Queue)(nil)
	_ clicks.Salts = Salts{}
)

// A Queue keeps in memory what it is sent, as bytes.
type Queue struct {
	mu   sync.Mutex
	sent [][]byte
	fail error
}

// Fail makes Send fail with err, until it is nil.
func (q *Queue) Fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.fail = err
}

func (q *Queue) Send(_ context.Context, b *clicks.Batch) error {
	raw := clicks.AppendBatch(nil, b)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.fail == nil {
		q.sent = append(q.sent, raw)
	}
	return q.fail
}

// Bytes returns what was sent.
func (q *Queue) Bytes() [][]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([][]byte(nil), q.sent...)
}

// Batches returns what was sent.
func (q *Queue) Batches(t testing.TB) (batches []clicks.Batch) {
	t.Helper()
	for _, raw := range q.Bytes() {
		b, err := clicks.ParseBatch(raw)
		if err != nil {
			t.Fatal(err)
		}
		batches = append(batches, b)
	}
	return batches
}

// Receive gives nobody anything.
func (q *Queue) Receive(ctx context.Context, _ func(context.Context, []clicks.Batch) error) error {
	<-ctx.Done()
	return nil
}

func (q *Queue) Lag(context.Context) (clicks.Lag, error) { return clicks.Lag{}, nil }

// Salts are a salt for each day, and always the same.
type Salts struct{}

func (Salts) Salt(_ context.Context, day time.Time) (clicks.Salt, error) {
	return sha256.Sum256([]byte(day.Format(time.DateOnly))), nil
}

// GeoIP writes a database with the countries of some networks, as GeoLite2-Country has them, and
// returns its path.
func GeoIP(t testing.TB, countries map[string]string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "countries.mmdb")
	WriteGeoIP(t, path, countries)
	return path
}

// WriteGeoIP writes such a database to path.
func WriteGeoIP(t testing.TB, path string, countries map[string]string) {
	t.Helper()
	w, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test-Country", IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	for network, country := range countries {
		_, ipNet, err := net.ParseCIDR(network)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Insert(ipNet, mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(country)}}); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(path + ".new")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
