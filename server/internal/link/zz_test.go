package link_test

import (
	"strings"
	"testing"

	"snowlink/server/internal/link"
)

func BenchmarkZZ(b *testing.B) {
	own := newHosts(b, "https://sn.example")
	for _, bb := range []struct{ name, raw string }{
		{"8K slashes", "https://e.example:81/" + strings.Repeat("/", 8170)},
		{"2K slashes", "https://e.example:81/" + strings.Repeat("/", 2020)},
		{"1K a/", "https://e.example:81/" + strings.Repeat("a/", 1010)},
		{"2K flat", "https://e.example:81/" + strings.Repeat("a", 2020)},
		{"8K flat", "https://e.example:81/" + strings.Repeat("a", 8100)},
		{"8K dots", "https://e.example:81/" + strings.Repeat("a/../", 1600)},
		{"2K query", "https://e.example:81/?" + strings.Repeat("a", 2020)},
		{"2K frag", "https://e.example:81/#" + strings.Repeat("a", 2020)},
		{"8K frag", "https://e.example:81/#" + strings.Repeat("a", 8000)},
		{"2K é", "https://e.example:81/" + strings.Repeat("é", 330)},
		{"256 segs", "https://e.example:81/" + strings.Repeat("aaaaaa/", 256)},
		{"100 segs", "https://e.example:81/" + strings.Repeat("aaaaaaaaaaaaaaaaaaa/", 100)},
		{"quotes", "https://e.example:81/?" + strings.Repeat("\"", 600)},
		{"quotes", "https://e.example:81/?" + strings.Repeat("%", 2000)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				link.ParseTarget(bb.raw, own)
			}
			b.ReportMetric(float64(16<<20)/float64(len(bb.raw))*b.Elapsed().Seconds()/float64(b.N), "s/16MiB")
		})
	}
}
