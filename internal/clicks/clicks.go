// Package clicks counts visits without slowing them: what a click is, how clicks become batches in
// the process that answered them, and what carries batches to where they are added up.
//
// It holds three decisions. A redirect never waits: what cannot be recorded at once is dropped,
// counted and said. No visitor's address leaves the process: it becomes a country, and a hash with
// a salt that is gone the next day. And a batch is counted once, however often it arrives, because
// it says who made it and which of theirs it is.
package clicks

import (
	"time"

	"snowlink/internal/link"
)

// A Click is one answered redirect, as the handler saw it. The slices need be valid only while
// Record runs.
type Click struct {
	Code string
	Link link.Link // for its owner and tags
	At   time.Time

	Address   []byte // the visitor's, as text
	UserAgent []byte
	Referrer  []byte // the whole header
	Query     []byte // of the visit
	Purpose   []byte // Sec-Purpose, or Purpose
	Country   []byte // the header that COUNTRY_HEADER names; empty without one
}

// A Dimension is something that clicks are told apart by.
type Dimension int

// The dimensions. Their order is that of Facts, and of what is stored: new ones come last.
const (
	Country  Dimension = iota // ISO 3166-1 alpha-2, such as "DE"
	Referrer                  // the host of the page with the link, without "www."
	Browser
	OS
	Device   // "desktop", "phone", "tablet", "tv", or as the user agent says
	Source   // utm_source of the visit's query
	Medium   // utm_medium
	Campaign // utm_campaign
	Via      // "qr" if a QR code was scanned
	Bot      // "" for a person, else "crawler", "preview" or "prefetch"

	Dimensions = iota // how many there are
)

var names = [Dimensions]string{
	"country", "referrer", "browser", "os", "device", "utm_source", "utm_medium", "utm_campaign", "via", "bot",
}

// String returns the name of the dimension in the API and in Kafka.
func (d Dimension) String() string { return names[d] }

// DimensionOf returns the dimension of that name.
func DimensionOf(name string) (d Dimension, ok bool) {
	for d, n := range names {
		if n == name {
			return Dimension(d), true
		}
	}
	return 0, false
}

// Other stands for the values of a dimension that were too many to be kept.
const Other = "(other)"

// MaxValue is the length of the longest value of a dimension, in bytes. What is longer is cut.
const MaxValue = 100

// Facts are the values that a click has in each dimension: "" if there is none or it is not known.
// Values are valid UTF-8 without control characters, at most MaxValue bytes long.
type Facts [Dimensions]string
