package kafka

import (
	"testing"
	"time"

	"snowlink/internal/clicks"
)

// BenchmarkRecords is what a count costs the processor on its way through Kafka, without Kafka.
func BenchmarkRecords(b *testing.B) {
	batch := clicks.Batch{Producer: "5G6LGPNJ2FQSA4J5J2QV4TIXCB", Number: 17, Counts: []clicks.Count{{
		Hour: time.Date(2026, 11, 25, 16, 0, 0, 0, time.UTC), Code: "8h4LRT53E8", Owner: "shop", Tags: []string{"autumn"}, Clicks: 1, Visitors: []uint64{3184723904712389471},
		Facts: []clicks.FactCount{{Clicks: 1, Facts: clicks.Facts{
			clicks.Country: "DE", clicks.Browser: "Firefox", clicks.OS: "Linux", clicks.Device: "desktop", clicks.Referrer: "news.example",
		}}},
	}}}
	b.ReportAllocs()
	size := 0
	for b.Loop() {
		records, err := messages(&batch)
		if err != nil {
			b.Fatal(err)
		}
		var back clicks.Batch
		if err := addTo(&back, records[0].value, 1); err != nil {
			b.Fatal(err)
		}
		size = len(records[0].value)
	}
	b.ReportMetric(float64(size), "bytes")
}
