package clicks

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"

	"github.com/oschwald/maxminddb-golang/v2"
)

// A GeoIP tells the countries of addresses, by a database in the MMDB format. Its methods may be
// called concurrently.
type GeoIP struct {
	path   string
	reader atomic.Pointer[maxminddb.Reader]
	loaded atomic.Uint64 // how often
}

// OpenGeoIP reads the database. The error names the file, and says what to do.
func OpenGeoIP(path string) (*GeoIP, error) {
	g := &GeoIP{path: path}
	return g, g.Reload()
}

// Reload reads the file again. If it cannot, the database stays the one that was read before.
func (g *GeoIP) Reload() error {
	// In memory, and not mapped: a file that somebody writes to in place would end the process.
	raw, err := os.ReadFile(g.path)
	if err != nil {
		return fmt.Errorf("read the database of countries: %w", err)
	}
	reader, err := maxminddb.OpenBytes(raw)
	if err == nil {
		err = hasCountries(reader)
	}
	if err != nil {
		return fmt.Errorf("%s is no database of countries: %w; it must be an MMDB file such as GeoLite2-Country.mmdb or dbip-country-lite.mmdb, unpacked",
			g.path, err)
	}
	g.reader.Store(reader)
	g.loaded.Add(1)
	return nil
}

// hasCountries reports an error if none of the first networks has a country.
func hasCountries(r *maxminddb.Reader) error {
	n := 0
	for result := range r.Networks() {
		if err := result.Err(); err != nil {
			return err
		}
		if c := countryOf(result); c[0] != 0 {
			return nil
		}
		if n++; n == 10_000 {
			break
		}
	}
	return errors.New("it has none")
}

// Country returns the two letters of the country of an address, or "".
func (g *GeoIP) Country(address netip.Addr) string {
	if c := g.country(address); c[0] != 0 {
		return string(c[:])
	}
	return ""
}

// CountryOf returns the country of a visitor as a Recorder finds it, or "": what the header that
// COUNTRY_HEADER names says, or else the database, which may be nil.
func CountryOf(header []byte, g *GeoIP, address netip.Addr) string {
	var c [2]byte
	if len(header) == len(c) {
		putCountry(c[:], header)
	}
	switch {
	case c[0] != 0:
		return string(c[:])
	case g != nil && address.IsValid():
		return g.Country(address)
	}
	return ""
}

func (g *GeoIP) country(address netip.Addr) [2]byte {
	return countryOf(g.reader.Load().Lookup(address.Unmap()))
}

// countryPaths are where databases have the country: those of MaxMind and DB-IP, and IPinfo's.
var countryPaths = [][]any{{"country", "iso_code"}, {"country_code"}, {"country"}, {"registered_country", "iso_code"}}

func countryOf(r maxminddb.Result) (c [2]byte) {
	if !r.Found() {
		return c
	}
	for _, path := range countryPaths {
		var code string
		if err := r.DecodePath(&code, path...); err == nil && len(code) == 2 {
			putCountry(c[:], []byte(code))
			return c
		}
	}
	return c
}
