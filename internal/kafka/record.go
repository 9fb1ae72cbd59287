package kafka

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"snowlink/internal/clicks"
	"snowlink/internal/link"
)

// version is that of the records: see docs/clicks-kafka.md. It changes when what is there already
// changes its meaning, and not when something is added.
const version = 1

const (
	typeClicks = "clicks"
	typeMiss   = "miss"

	// A broker takes records of 1 MiB. A count with more facts or visitors than these becomes several
	// records.
	recordFacts    = 300
	recordVisitors = 20_000
)

// record is the value of a record in Kafka.
type record struct {
	Version  int       `json:"v"`
	Type     string    `json:"type"`
	Producer string    `json:"producer"`
	Batch    uint64    `json:"batch"`
	Part     int       `json:"part"`
	Hour     time.Time `json:"hour"`
	Code     string    `json:"code"`
	Owner    string    `json:"owner,omitempty"`
	Tags     []string  `json:"tags,omitempty"`
	Clicks   int64     `json:"clicks"`
	Bots     int64     `json:"bots"`
	Facts    []facts   `json:"facts,omitempty"`
	Visitors []hash    `json:"visitors,omitempty"`
}

// facts has a field for each dimension, in order, and one for their clicks.
type facts struct {
	Clicks   int64  `json:"clicks"`
	Country  string `json:"country,omitempty"`
	Referrer string `json:"referrer,omitempty"`
	Browser  string `json:"browser,omitempty"`
	OS       string `json:"os,omitempty"`
	Device   string `json:"device,omitempty"`
	Source   string `json:"utm_source,omitempty"`
	Medium   string `json:"utm_medium,omitempty"`
	Campaign string `json:"utm_campaign,omitempty"`
	Via      string `json:"via,omitempty"`
	Bot      string `json:"bot,omitempty"`
}

// hash is a number as a decimal string: many a reader of JSON rounds numbers as large.
type hash uint64

func (h hash) AppendText(b []byte) ([]byte, error) { return strconv.AppendUint(b, uint64(h), 10), nil }

func (h *hash) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 10, 64)
	*h = hash(n)
	return err
}

// message is the key and the value of a record.
type message struct{ key, value []byte }

// messages are the records of a batch.
func messages(b *clicks.Batch) ([]message, error) {
	var all []message
	add := func(r record) error {
		r.Version, r.Producer, r.Batch, r.Part = version, b.Producer, b.Number, len(all)
		value, err := json.Marshal(&r)
		if err != nil {
			return fmt.Errorf("clicks of %s: %w", r.Code, err)
		}
		all = append(all, message{[]byte(r.Code), value})
		return nil
	}
	for _, count := range b.Counts {
		for _, c := range split(count) {
			r := record{
				Type: typeClicks, Hour: c.Hour.UTC(), Code: c.Code, Owner: c.Owner, Tags: c.Tags, Clicks: c.Clicks, Bots: c.Bots,
			}
			for _, f := range c.Facts {
				r.Facts = append(r.Facts, factsOf(f))
			}
			for _, v := range c.Visitors {
				r.Visitors = append(r.Visitors, hash(v))
			}
			if err := add(r); err != nil {
				return nil, err
			}
		}
	}
	for _, m := range b.Misses {
		if err := add(record{Type: typeMiss, Hour: m.Hour.UTC(), Code: m.Code, Clicks: m.Clicks}); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// split returns counts that are each small enough for a record, and add up to c. In each of them, as in
// c, facts and visitors are no more than clicks.
func split(c clicks.Count) (parts []clicks.Count) {
	if len(c.Facts) <= recordFacts && len(c.Visitors) <= recordVisitors {
		return []clicks.Count{c}
	}
	rest := c
	rest.Facts = slices.Clone(c.Facts)
	for len(rest.Facts) > 0 || rest.Clicks > 0 || rest.Bots > 0 {
		p := c
		p.Clicks, p.Bots, p.Facts, p.Visitors = 0, 0, nil, nil
		room := int64(math.MaxInt64) // for clicks
		if len(rest.Visitors) > 0 {
			room = recordVisitors
		}
		for len(rest.Facts) > 0 && len(p.Facts) < recordFacts && room > 0 {
			f := &rest.Facts[0]
			n := min(f.Clicks, room)
			p.Facts = append(p.Facts, clicks.FactCount{Facts: f.Facts, Clicks: n})
			if f.Facts[clicks.Bot] == "" {
				p.Clicks += n
			} else {
				p.Bots += n
			}
			room -= n
			if f.Clicks -= n; f.Clicks == 0 {
				rest.Facts = rest.Facts[1:]
			}
		}
		if len(rest.Facts) == 0 { // what has no facts
			people := max(0, min(rest.Clicks-p.Clicks, room))
			p.Clicks += people
			p.Bots += max(0, min(rest.Bots-p.Bots, room-people))
		}
		n := min(len(rest.Visitors), int(p.Clicks))
		p.Visitors, rest.Visitors = rest.Visitors[:n], rest.Visitors[n:]
		rest.Clicks, rest.Bots = rest.Clicks-p.Clicks, rest.Bots-p.Bots
		parts = append(parts, p)
	}
	return parts
}

// addTo adds what a record says to a batch, under the number. Whoever wrote the record, what is added is
// what package clicks says of batches. The error wraps link.ErrUnreadable.
func addTo(b *clicks.Batch, value []byte, number uint64) error {
	var r record
	if err := json.Unmarshal(value, &r); err != nil {
		return fmt.Errorf("%w: %w", link.ErrUnreadable, err)
	}
	var one clicks.Batch
	switch {
	case r.Version != version:
		return fmt.Errorf("%w: it is of version %d", link.ErrUnreadable, r.Version)
	case r.Hour.IsZero():
		return fmt.Errorf("%w: it has no hour", link.ErrUnreadable)
	case r.Type == typeMiss:
		one.Misses = []clicks.Miss{{Hour: r.Hour, Code: r.Code, Clicks: r.Clicks}}
	case r.Type == typeClicks:
		c := clicks.Count{Code: r.Code, Owner: r.Owner, Tags: r.Tags, Hour: r.Hour, Clicks: r.Clicks, Bots: r.Bots}
		for i := range r.Facts {
			c.Facts = append(c.Facts, r.Facts[i].count())
		}
		for _, v := range r.Visitors {
			c.Visitors = append(c.Visitors, uint64(v))
		}
		one.Counts = []clicks.Count{c}
	default:
		return fmt.Errorf("%w: it is of type %q", link.ErrUnreadable, r.Type)
	}
	// What a store can keep is for ParseBatch to say.
	one, err := clicks.ParseBatch(clicks.AppendBatch(nil, &one))
	if err != nil {
		return fmt.Errorf("%w: %w", link.ErrUnreadable, err)
	}
	for _, c := range one.Counts {
		c.Number = number
		b.Counts = append(b.Counts, c)
	}
	for _, m := range one.Misses {
		m.Number = number
		b.Misses = append(b.Misses, m)
	}
	return nil
}

func factsOf(f clicks.FactCount) facts {
	return facts{
		Clicks: f.Clicks, Country: f.Facts[clicks.Country], Referrer: f.Facts[clicks.Referrer], Browser: f.Facts[clicks.Browser],
		OS: f.Facts[clicks.OS], Device: f.Facts[clicks.Device], Source: f.Facts[clicks.Source], Medium: f.Facts[clicks.Medium],
		Campaign: f.Facts[clicks.Campaign], Via: f.Facts[clicks.Via], Bot: f.Facts[clicks.Bot],
	}
}

func (f *facts) count() clicks.FactCount {
	return clicks.FactCount{Clicks: f.Clicks, Facts: clicks.Facts{
		f.Country, f.Referrer, f.Browser, f.OS, f.Device, f.Source, f.Medium, f.Campaign, f.Via, f.Bot,
	}}
}
