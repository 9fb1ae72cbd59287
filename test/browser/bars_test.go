package browser_test

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	snow "snowlink/client"
	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/postgres"
	"snowlink/internal/stats/pgstats"
)

var long = flag.Bool("long", false, "fail if the page is slower than its bars")

// bar logs how long something took, in the middle of several times. With -long the test fails if that is
// longer than the bar. Other things run beside `make test`, so that a speed there is no test.
func bar(t *testing.T, what string, most time.Duration, times []time.Duration) {
	t.Helper()
	slices.Sort(times)
	median := times[len(times)/2]
	t.Logf("%s: %s (%s to %s, of %d), bar %s", what, median.Round(time.Millisecond), times[0].Round(time.Millisecond),
		times[len(times)-1].Round(time.Millisecond), len(times), most)
	if *long && median > most {
		t.Errorf("%s took %s, longer than %s", what, median, most)
	}
}

// times is how often something is measured with -long. Otherwise it is done once, to see that it works.
func times(n int) int {
	if *long {
		return n
	}
	return 1
}

// The first view after signing in takes few requests and few bytes, and is soon of use.
func TestFirstView(t *testing.T) {
	const bytesMost, requestsMost = 120 << 10, 14
	h := home(t)
	k := h.key(t, everything)
	var links []old
	for n := range 12 {
		links = append(links, old{code: fmt.Sprintf("%s-view%d", k.name, n), url: fmt.Sprintf("https://example.com/%d", n), title: "A link", age: time.Duration(n) * time.Minute})
	}
	h.importOld(t, k, links)
	var useful []time.Duration
	for range times(7) {
		p := openTab(t, h.URL, desk)
		p.visit("/dashboard/")
		p.enter(k)
		p.settled()
		call(p, network.ClearBrowserCache, cdp.Empty{})
		p.count()
		p.visit("/dashboard/")
		p.field("Shorten a long address")
		p.shows(k.name + "-view0")
		p.settled()
		// Of use is the page once its field can be written into and the newest links are there: the last change
		// of what is seen, as the page's own clock has it.
		useful = append(useful, time.Duration(eval[float64](p, `Math.max(...performance.getEntriesByType("resource").map((e) => e.responseEnd))`)*float64(time.Millisecond)))
		bytes, requests := p.counted()
		if len(useful) == 1 {
			t.Logf("the first view: %d requests, %d bytes", requests, bytes)
		}
		if bytes > bytesMost || requests > requestsMost {
			t.Errorf("the first view takes %d requests and %d bytes, at most %d and %d are meant: %s", requests, bytes, requestsMost, bytesMost, p.asked)
		}
	}
	bar(t, "the first view, until the last answer", 300*time.Millisecond, useful)
}

// count begins to count what goes over the wire.
func (p *tab) count() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wire, p.asked = map[network.RequestID]float64{}, nil
}

// counted is how many bytes and requests went over the wire since count, headers of answers with them. Data URLs
// are none.
func (p *tab) counted() (bytes, requests int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.wire {
		bytes += int(n)
	}
	return bytes, len(p.wire)
}

// 100,000 links are found as one types, and scrolled through.
func TestManyLinks(t *testing.T) {
	const links = 100_000
	h := home(t)
	k := h.key(t, usual)
	all := make([]snow.NewLink, links)
	for n := range all {
		all[n] = snow.NewLink{URL: fmt.Sprintf("https://example.com/%d", n), Title: fmt.Sprintf("Link %d of many", n), Tags: []string{fmt.Sprintf("t%d", n%50)}}
	}
	made, err := h.api(k).CreateAll(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	number := make(map[string]int, links) // by code
	for n, r := range made {
		number[r.Link.Code] = n
	}
	fleettest.Eventually(t, time.Minute, "all links are archived", func() bool {
		page, err := h.api(k).Page(t.Context(), snow.Query{Limit: 1})
		return err == nil && !page.Incomplete && fleettest.Metric(t, h.Backends[0], "snowlink_archive_pending_marks") == 0
	})
	// PostgreSQL does this by itself within a minute.
	db, err := pgx.Connect(t.Context(), h.Archive[0].URL)
	if err == nil {
		_, err = db.Exec(t.Context(), "VACUUM ANALYZE links")
		err = errors.Join(err, db.Close(t.Context()))
	}
	if err != nil {
		t.Fatal(err)
	}
	p := signedIn(t, h, k, desk)
	p.visit("/dashboard/links")
	p.until("the list begins with the newest", func() bool {
		rows := p.rows()
		return len(rows) > 5 && number[rows[0]] == links-1
	})
	if n := eval[int](p, `document.querySelectorAll(".link-row").length`); n > 100 {
		t.Errorf("the page has %d rows: it should draw those only that are seen", n)
	}

	var found []time.Duration
	for n := range times(7) {
		want := 41_000 + n*977
		p.write("Search code, target, title, tags", "")
		p.until("all are listed again", func() bool { return len(p.rows()) > 5 })
		// From the last key until the row is drawn, by the page's own clock.
		eval[bool](p, fmt.Sprintf(`(() => {
			const input = document.querySelector("#links-q");
			window.took = 0;
			input.addEventListener("input", () => {
				const begin = performance.now();
				const look = () => {
					const rows = document.querySelectorAll(".rows .link-row .row-link");
					if (rows.length === 1 && rows[0].title === %q) window.took = performance.now() - begin;
					else requestAnimationFrame(look);
				};
				look();
			}, {once: true});
			return true;
		})()`, made[want].Link.Code))
		p.write("Search code, target, title, tags", strconv.Itoa(want))
		p.until("the link is found", func() bool { return eval[float64](p, "window.took") > 0 })
		found = append(found, time.Duration(eval[float64](p, "window.took")*float64(time.Millisecond)))
	}
	bar(t, "typing to rows, of 100,000 links", 150*time.Millisecond, found)

	// Scrolling shows ever older ones, in their order and without gaps.
	p.write("Search code, target, title, tags", "")
	p.until("all are listed again", func() bool { return len(p.rows()) > 5 })
	for _, y := range []int{5_000, 40_000, 64_000} {
		p.until(fmt.Sprintf("rows are there %d px down", y), func() bool {
			eval[bool](p, fmt.Sprintf("(scrollTo(0, %d), true)", y))
			return eval[bool](p, fmt.Sprintf(`scrollY > %d - 2000 && !document.querySelector(".row-waits")`, y))
		})
		// A bulk has 10,000 links of one moment.
		rows := p.rows()
		for i, code := range rows {
			if n, ok := number[code]; !ok || i > 0 && n/10_000 > number[rows[i-1]]/10_000 || slices.Index(rows, code) != i {
				t.Fatalf("%d px down, row %d is link %d: %v", y, i, n, rows)
			}
		}
		if n, want := number[rows[0]], links-1-y/64; n/10_000-want/10_000 > 1 || want/10_000-n/10_000 > 1 {
			t.Errorf("%d px down is link %d, not one near %d", y, n, want)
		}
	}
	frames := eval[[]float64](p, `new Promise((done) => {
		const times = [];
		let last = performance.now();
		const step = () => {
			const now = performance.now();
			times.push(now - last);
			last = now;
			scrollBy(0, 300);
			if (times.length < 60) requestAnimationFrame(step); else done(times);
		};
		requestAnimationFrame(step);
	})`)
	var each []time.Duration
	for _, ms := range frames {
		each = append(each, time.Duration(ms*float64(time.Millisecond)))
	}
	bar(t, "a frame while scrolling", 34*time.Millisecond, each)
}

// A year of a link with ten million clicks is soon drawn.
func TestYearOfClicks(t *testing.T) {
	if !*long {
		t.Skip("it makes ten million clicks: -long does")
	}
	h := ownHouse(t, fleet.Options{Archive: 1})
	shards, err := postgres.Open(h.ArchiveURL(), 0, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer shards.Close()
	// As Tend leaves them: a day has a row.
	year := pgstats.Generation{Clicks: 10_000_000, Links: 1, Days: 366, Until: time.Now().UTC(), Seed: 1}
	if err := pgstats.New(shards, pgstats.Options{}).Generate(t.Context(), year, nil); err != nil {
		t.Fatal(err)
	}
	k := h.key(t, everything)
	code := pgstats.GeneratedCode(0)
	h.importOld(t, k, []old{{code: code, url: "https://example.com/", age: 366 * 24 * time.Hour}})
	p := signedIn(t, h, k, desk)
	p.visit("/dashboard/links/" + code)
	p.settled()
	var drawn []time.Duration
	for range times(7) {
		p.click("button", "30 days")
		p.settled()
		month := p.figure("Clicks")
		eval[bool](p, `(() => {
			window.took = 0;
			addEventListener("click", () => {
				const begin = performance.now(), before = document.querySelector(".figure").textContent;
				const look = () => {
					if (document.querySelector(".figure").textContent !== before) window.took = performance.now() - begin;
					else requestAnimationFrame(look);
				};
				look();
			}, {once: true, capture: true});
			return true;
		})()`)
		p.click("button", "12 months")
		p.until("a year is drawn", func() bool { return p.figure("Clicks") != month && eval[float64](p, "window.took") > 0 })
		drawn = append(drawn, time.Duration(eval[float64](p, "window.took")*float64(time.Millisecond)))
	}
	t.Logf("a year has %s clicks", p.figure("Clicks"))
	bar(t, "a year of a link with 10 million clicks", 300*time.Millisecond, drawn)
}
