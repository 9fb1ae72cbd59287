package clicks_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"snowlink/internal/clicks"
	"snowlink/internal/link"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// batches are one of each kind.
func batches() map[string]clicks.Batch {
	facts := clicks.Facts{clicks.Country: "DE", clicks.Browser: "Firefox", clicks.Source: "Zeitung für Köln", clicks.Via: "qr"}
	full := clicks.Batch{Producer: "P1", Number: 7, Counts: []clicks.Count{
		{Code: "abc", Owner: "default", Hour: noon, Clicks: 3, Bots: 1, Visitors: []uint64{1, 1<<64 - 1}, Facts: []clicks.FactCount{
			{Facts: facts, Clicks: 3}, {Facts: clicks.Facts{clicks.Bot: "crawler"}, Clicks: 1},
		}},
		{Code: "abd", Owner: "shop", Tags: []string{"Firefox", "größer"}, Hour: noon.Add(-time.Hour), Clicks: 1 << 40, Facts: []clicks.FactCount{{Facts: facts, Clicks: 5}}},
		{Code: strings.Repeat("x", link.MaxCode), Owner: "shop", Hour: noon, Bots: 2},
	}, Misses: []clicks.Miss{{Hour: noon.Add(-time.Hour), Code: "nothing", Clicks: 4}}}
	ordered := full
	ordered.Ordered, ordered.Producer, ordered.Number, ordered.Misses = true, "kafka:snowlink.clicks/3", 0, nil
	ordered.Counts = []clicks.Count{full.Counts[0], full.Counts[1]}
	ordered.Counts[0].Number, ordered.Counts[1].Number = 1<<63, 1<<63+5
	return map[string]clicks.Batch{
		"full": full, "ordered": ordered, "empty": {},
		"misses": {Producer: "P1", Number: 1<<64 - 1, Misses: full.Misses},
	}
}

func TestBatchEncoding(t *testing.T) {
	for name, want := range batches() {
		t.Run(name, func(t *testing.T) {
			raw := clicks.AppendBatch([]byte("before"), &want)
			got, err := clicks.ParseBatch(raw[len("before"):])
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		})
	}
}

// A link that was clicked once takes little more than its code and its visitor.
func TestBatchIsCompact(t *testing.T) {
	const links = 5000
	b := clicks.Batch{Producer: "QWERTYUIOPASDFGHJKLZXCVBNM", Number: 1 << 20}
	for i := range links {
		b.Counts = append(b.Counts, clicks.Count{Code: fmt.Sprintf("8h4LR%05d", i), Owner: "default", Hour: noon, Clicks: 1, Visitors: []uint64{uint64(i) << 40},
			Facts: []clicks.FactCount{{Facts: clicks.Facts{clicks.Country: "DE", clicks.Browser: "Firefox", clicks.Referrer: fmt.Sprintf("%d.example.com", i%200)}, Clicks: 1}}})
	}
	if n := len(clicks.AppendBatch(nil, &b)); n > 30*links {
		t.Errorf("%d bytes a link", n/links)
	}
}

func TestParseBatchRefuses(t *testing.T) {
	change := func(f func(*clicks.Batch)) []byte {
		b := batches()["full"]
		f(&b)
		return clicks.AppendBatch(nil, &b)
	}
	good := change(func(*clicks.Batch) {})
	rows := map[string][]byte{
		"nothing":             nil,
		"a later version":     append([]byte{2}, good[1:]...),
		"more behind it":      append(good[:len(good):len(good)], 0),
		"too long":            make([]byte, clicks.MaxEncoded+1),
		"no code":             change(func(b *clicks.Batch) { b.Counts[0].Code = "a/b" }),
		"an empty code":       change(func(b *clicks.Batch) { b.Misses[0].Code = "" }),
		"negative clicks":     change(func(b *clicks.Batch) { b.Counts[0].Clicks = -1 }),
		"too many clicks":     change(func(b *clicks.Batch) { b.Counts[0].Clicks = 1<<40 + 1 }),
		"more facts":          change(func(b *clicks.Batch) { b.Counts[0].Facts[0].Clicks = 4 }),
		"more visitors":       change(func(b *clicks.Batch) { b.Counts[0].Visitors = make([]uint64, 4) }),
		"a long value":        change(func(b *clicks.Batch) { b.Counts[0].Facts[0].Facts[0] = strings.Repeat("v", clicks.MaxValue+1) }),
		"a value with a line": change(func(b *clicks.Batch) { b.Counts[0].Facts[0].Facts[0] = "a\nb" }),
		"no UTF-8":            change(func(b *clicks.Batch) { b.Counts[0].Tags = []string{"\xff"} }),
		"a long tag, as a value": change(func(b *clicks.Batch) {
			b.Counts[0].Tags = []string{strings.Repeat("t", 200)}
			b.Counts[0].Facts[0].Facts[0] = b.Counts[0].Tags[0]
		}),
		"too many tags":  change(func(b *clicks.Batch) { b.Counts[0].Tags = make([]string, 65) }),
		"an early hour":  change(func(b *clicks.Batch) { b.Counts[0].Hour = time.Unix(-7200, 0) }),
		"a distant hour": change(func(b *clicks.Batch) { b.Counts[0].Hour = noon.AddDate(1000, 0, 0) }),
		"many counts":    append([]byte{1, 1, 1, 0, 10}, 0xff, 0xff, 0xff, 0xff, 0x7f),
	}
	for n := range len(good) {
		rows[fmt.Sprintf("cut after %d", n)] = good[:n]
	}
	for name, raw := range rows {
		if b, err := clicks.ParseBatch(raw); !errors.Is(err, clicks.ErrBatch) {
			t.Errorf("%s: got %+v, %v", name, b, err)
		}
	}
}

// FuzzParseBatch: whatever the bytes are, what was read from them can be written and read again.
func FuzzParseBatch(f *testing.F) {
	for _, b := range batches() {
		f.Add(clicks.AppendBatch(nil, &b))
	}
	f.Add([]byte{1, 1, 1, 0, 12, 1, 1, 'a', 1, 0, 0, 1, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 'x', 1, 0, 0}) // with two dimensions more
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := clicks.ParseBatch(raw)
		if err != nil {
			if !errors.Is(err, clicks.ErrBatch) || !reflect.DeepEqual(b, clicks.Batch{}) {
				t.Fatalf("got %+v, %v", b, err)
			}
			return
		}
		again, err := clicks.ParseBatch(clicks.AppendBatch(nil, &b))
		if err != nil || !reflect.DeepEqual(again, b) {
			t.Fatalf("%+v became %+v, %v", b, again, err)
		}
	})
}
