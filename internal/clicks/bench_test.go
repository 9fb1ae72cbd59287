package clicks_test

import (
	"fmt"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"snowlink/internal/clicks"
	"snowlink/internal/clicks/clickstest"
	"snowlink/internal/link"
)

// userAgents are of people, in about the shares of 2026.
var userAgents = func() (all [][]byte) {
	for v := range 12 {
		for _, form := range []string{
			"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/%d.0.0.0 Safari/537.36",
			"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/%d.0.0.0 Mobile Safari/537.36",
			"Mozilla/5.0 (iPhone; CPU iPhone OS 18_%d like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
			"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:%[1]d.0) Gecko/20100101 Firefox/%[1]d.0",
			"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36 Edg/%d.0.0.0",
		} {
			all = append(all, fmt.Appendf(nil, form, 130+v))
		}
	}
	return all
}()

var referrers = [][]byte{
	nil, []byte("https://www.google.com/"), []byte("https://t.co/"), []byte("https://www.linkedin.com/"), []byte("https://news.example.com/2026/11/25/some-article-about-links.html?page=2"),
	nil, []byte("android-app://com.google.android.gm/"), []byte("https://l.facebook.com/"),
}

// visits are n clicks by as many people.
func visits(n, links int, query bool) []clicks.Click {
	all := make([]clicks.Click, n)
	for i := range all {
		all[i] = clicks.Click{
			Code: fmt.Sprintf("8h4L%06d", i%links), Link: link.Link{Owner: "shop", Options: &link.Options{Tags: []string{"autumn"}}}, At: time.Now(),
			Address: fmt.Appendf(nil, "203.%d.%d.%d", i>>16&255, i>>8&255, i&255), UserAgent: userAgents[i%len(userAgents)], Referrer: referrers[i/7%len(referrers)],
			Country: []byte([]string{"DE", "FR", "US", "GB"}[i/3%4]),
		}
		if query && i%3 == 0 {
			all[i].Query = []byte("utm_source=newsletter&utm_medium=email&utm_campaign=autumn+2026")
		}
	}
	return all
}

// BenchmarkClick is the whole cost of a click in the process that answers it, but for the sending:
// recorded, added up 2,500 at a time, and put into batches 50,000 at a time.
func BenchmarkClick(b *testing.B) {
	for _, bb := range []struct {
		name          string
		people, links int
	}{{"one link", 20_000, 1}, {"20,000 links", 20_000, 20_000}} {
		b.Run(bb.name, func(b *testing.B) {
			all := visits(bb.people, bb.links, true)
			r := clicks.New(clicks.Options{Salts: clickstest.Salts{}, Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()})
			b.ReportAllocs()
			i, before := 0, cpu()
			for b.Loop() {
				all[i%len(all)].At = noon
				r.Record(all[i%len(all)])
				if i++; i%2500 == 0 {
					r.DrainAndTake(i%50_000 == 0)
				}
			}
			b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

func BenchmarkRecord(b *testing.B) {
	all := visits(20_000, 1, true)
	r := clicks.New(clicks.Options{Salts: clickstest.Salts{}, Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()})
	b.ReportAllocs()
	i := 0
	var took time.Duration
	for b.Loop() {
		before := cpu()
		for range 2500 {
			r.Record(all[i%len(all)])
			i++
		}
		took += cpu() - before
		b.StopTimer()
		r.DrainAndTake(i%50_000 == 0)
		b.StartTimer()
	}
	b.ReportMetric(float64(took)/float64(i), "cpu-ns/click")
}

// cpu is the processor time that the process has taken: machines that are busy with other things
// make the time on the clock longer, and this less so.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
