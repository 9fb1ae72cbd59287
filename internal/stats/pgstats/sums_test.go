package pgstats

import (
	"maps"
	"syscall"
	"testing"

	"snowlink/internal/clicks"
	"snowlink/internal/stats"
)

// FuzzBytes: bytes are read without a panic, and what they say is the same once it is written again.
func FuzzBytes(f *testing.F) {
	s := newSums(newWords())
	s.at(3).add(s.facts(&clicks.Facts{clicks.Country: "DE", clicks.Bot: "crawler"}), 7)
	s.at(3).add(s.facts(&clicks.Facts{clicks.Country: clicks.Other}), -2)
	s.at(23).fold(s.facts(&clicks.Facts{clicks.Browser: "Firefox"}), 1000)
	f.Add(new(encoder).encode(s))
	f.Add([]byte{version, 1, 2, 'D', 'E', 0, 1, 1, 2, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = readLinks(b, func(int) links { return links{} })
		_ = new(numbers).read(b)
		w := newWords()
		first, again := newSums(w), newSums(w)
		d := decoder{words: w}
		if d.read(b, &adder{to: first}) != nil {
			return
		}
		if err := d.read(new(encoder).encode(first), &adder{to: again}); err != nil {
			t.Fatal(err)
		}
		for i, slot := range first.slots {
			if slot == nil || len(slot.joint)+len(slot.folded) == 0 {
				continue
			}
			if !maps.Equal(slot.joint, again.at(i).joint) || !maps.Equal(slot.folded, again.at(i).folded) || !maps.Equal(slot.parts, again.at(i).parts) {
				t.Errorf("slot %d: %+v became %+v", i, slot, again.at(i))
			}
		}
	})
}

// BenchmarkRead reads what is kept of everything over 90 days, with as much in each hour as is kept at
// most of visitors who differ as much as they do.
func BenchmarkRead(b *testing.B) {
	m := newMaker(Generation{Clicks: 1, Links: 1, Days: 1, Seed: 1})
	s := newSums(m.words)
	for hour := range 24 {
		for range 40_000 {
			s.at(hour).add(m.pool[m.fact(m.IntN(3000))], 1)
		}
	}
	s.bound(jointMost, valuesMost)
	row := new(encoder).encode(s)
	to := timeOf(20_000, 0)
	for name, q := range map[string]stats.Question{
		"whole": {}, "by hour": {Unit: stats.Hour}, "by country": {By: []clicks.Dimension{clicks.Country}},
		"by two":               {By: []clicks.Dimension{clicks.Country, clicks.Browser}},
		"by referrer and week": {By: []clicks.Dimension{clicks.Referrer}, Unit: stats.Week},
	} {
		q.From, q.To = to.AddDate(0, 0, -90), to
		b.Run(name, func(b *testing.B) {
			var before, after syscall.Rusage
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
			for b.Loop() {
				a := newAsking(q, 0)
				for day := range int32(90) {
					if err := a.row(&askedRow{table: inHours, at: 20_000 - 90 + day, counts: row}); err != nil {
						b.Fatal(err)
					}
				}
				a.answer()
			}
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
			b.ReportMetric(float64(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano())/1e6/float64(b.N), "processor-ms")
			b.ReportMetric(float64(90*len(row)), "bytes")
		})
	}
}
