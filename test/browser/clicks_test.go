package browser_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	snow "snowlink/client"
	"snowlink/internal/clicks"
)

// figure is the number under a heading such as "Clicks", as the page writes it.
func (p *tab) figure(name string) string {
	p.t.Helper()
	return eval[string](p, fmt.Sprintf("[...document.querySelectorAll('dl > div')].find((d) => d.querySelector('dt').textContent === %q)?.querySelector('.figure').textContent ?? ''", name))
}

// counts waits until the page says so many clicks.
func (p *tab) counts(want string) {
	p.t.Helper()
	p.until("the page says "+want+" clicks", func() bool { return p.figure("Clicks") == want })
}

// panel waits until a panel has these rows: name, clicks and share.
func (p *tab) panel(name string, want ...string) {
	p.t.Helper()
	rows := fmt.Sprintf("[...document.querySelectorAll('section[aria-label=%q] tbody tr')].map((r) => r.innerText.trim().split(/\\s*[\\t\\n]\\s*/).join(' '))", name)
	p.until(fmt.Sprintf("the panel %s has %q", name, want), func() bool { return reflect.DeepEqual(eval[[]string](p, rows), want) })
}

// The numbers of a link's page are those that were counted, whatever one picks.
func TestNumbersAreTheLedgers(t *testing.T) {
	h := home(t)
	k := h.key(t, everything)
	link := h.make(t, k, snow.NewLink{URL: "https://example.com/", Code: "ledger-" + strings.ToLower(k.name), Title: "Of the ledger", Tags: []string{"books"}})
	l := h.ledger(t)
	add := func(days int, n, bots int64, f clicks.Facts) {
		hour := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -days)
		c := clicks.Count{Code: link.Code, Owner: k.name, Tags: []string{"books"}, Hour: hour, Clicks: n, Bots: bots, Facts: []clicks.FactCount{{Facts: f, Clicks: n + bots}}}
		for i := range n {
			c.Visitors = append(c.Visitors, uint64(days)<<32|uint64(i)<<20)
		}
		l.counts = append(l.counts, c)
	}
	add(1, 30, 0, clicks.Facts{clicks.Country: "DE", clicks.Browser: "Firefox", clicks.Referrer: "news.example", clicks.Via: "qr"})
	add(2, 1200, 0, clicks.Facts{clicks.Country: "AT", clicks.Browser: "Chrome", clicks.Source: `"><script>alert(1)</script>`})
	add(3, 10, 0, clicks.Facts{clicks.Country: "DE", clicks.Browser: "Chrome"})
	add(3, 0, 7, clicks.Facts{clicks.Bot: "crawler"})
	add(35, 620, 0, clicks.Facts{clicks.Country: "DE", clicks.Browser: "Firefox"})
	l.send(t)
	h.counted(t, k, link.Code, 1860)

	p := signedIn(t, h, k, desk)
	p.visit("/dashboard/links/" + link.Code + "?tz=UTC")
	p.counts("1,240")
	p.shows("Of the ledger", "+100%", "620 in the time before", "Time zone: UTC")
	p.panel("Countries", "Austria 1,200 97%", "Germany 40 3%")
	p.panel("Browsers", "Chrome 1,210 98%", "Firefox 30 2%")
	p.panel("QR or link", "Link 1,210 98%", "QR code 30 2%")
	p.panel("Campaigns", `"><script>alert(1)</script> 1,200 97%`, "None 40 3%")

	p.click("button", "Table")
	day := time.Now().UTC().AddDate(0, 0, -2).Format("2 Jan 2006")
	other := time.Now().UTC().AddDate(0, 0, -2).Format("Jan 2, 2006")
	p.until("the table has 1,200 of the day before yesterday", func() bool {
		text := p.text()
		return strings.Contains(text, day+"\t1,200\t0") || strings.Contains(text, other+"\t1,200\t0")
	})
	p.click("button", "Table")

	p.click("button", "Germany")
	p.counts("40")
	p.panel("Countries", "Austria 1,200 97%", "Germany 40 3%")
	p.panel("Browsers", "Firefox 30 75%", "Chrome 10 25%")
	p.click("button", "Firefox")
	p.counts("30")
	p.panel("Referrers", "news.example 30 100%")
	if path := p.path(); !strings.Contains(path, "country=DE") || !strings.Contains(path, "browser=Firefox") {
		t.Errorf("the address %s does not say what is filtered", path)
	}
	p.visit(p.path()) // as somebody who was sent the address
	p.counts("30")
	p.click("button", "Remove Country: Germany")
	p.click("button", "Remove Browser: Firefox")
	p.counts("1,240")

	p.choose("Bots", "With bots")
	p.counts("1,247")
	p.panel("Bots", "People 1,240 99%", "Crawlers 7 1%")
	p.choose("Bots", "Only bots")
	p.counts("7")
	p.choose("Bots", "Without bots")

	p.click("button", "90 days")
	p.counts("1,860")
	p.visit("/dashboard/overview?tag=books&tz=UTC")
	p.counts("1,240")
	p.panel("Top links", link.Code+" 1,240")
}

// A visit shows in the page by itself, and after somebody has forgotten all, none does.
func TestVisitsShowByThemselves(t *testing.T) {
	h := home(t)
	k := h.key(t, usual)
	link := h.make(t, k, snow.NewLink{URL: "https://example.com/", Code: "live-" + strings.ToLower(k.name)})
	p := signedIn(t, h, k, desk)
	p.visit("/dashboard/links/" + link.Code)
	p.shows("No clicks yet")
	h.click(t, link.Code, firefox, "CF-IPCountry: DE", "Referer: https://www.news.example/page")
	h.counted(t, k, link.Code, 1)
	p.counts("1")
	p.panel("Countries", "Germany 1 100%")
	p.panel("Referrers", "news.example 1 100%")

	p.click("button", "Forget clicks")
	p.write("Type "+link.Code+" to confirm", link.Code[1:])
	p.press("Enter")
	p.write("Type "+link.Code+" to confirm", link.Code)
	p.press("Enter")
	p.shows("No clicks yet")
	p.click("button", "Delete link")
	p.write("Type "+link.Code+" to confirm", link.Code)
	p.press("Enter")
	p.until("the list is shown", func() bool { return p.path() == "/dashboard/links" })
	if _, err := h.api(k).Get(t.Context(), link.Code); err == nil {
		t.Error("the link is there after it was deleted")
	}
}

// What the API tells by hours or days becomes the parts of a chart, with the time before beside them.
func TestTimeIsDivided(t *testing.T) {
	p := openTab(t, home(t).URL, desk)
	p.visit("/dashboard/")
	for _, tt := range []struct{ name, rng, answer, at, want string }{
		{
			"days, of which some are over",
			`{unit: 'day', from: '2026-11-03', to: '2026-11-07', days: 4, today: '2026-11-05'}`,
			`{rows: [{start: '2026-11-03T00:00:00+01:00', clicks: 5}, {start: '2026-11-05T00:00:00+01:00', clicks: 2}],
			  previous: {rows: [{start: '2026-10-30T00:00:00+01:00', clicks: 3}, {start: '2026-11-02T00:00:00+01:00', clicks: 4}]}}`,
			"2026-11-05T12:00:00Z",
			"2026-11-03 5/3, 2026-11-04 0/0, 2026-11-05 2/0 open, 2026-11-06 -/4 open; 5 against 3 in 2",
		},
		{
			"the time before begins an hour before its day, since clocks were changed in it",
			`{unit: 'day', from: '2026-11-01', to: '2026-11-15', days: 14, today: '2026-11-20'}`,
			`{rows: [], previous: {rows: [{start: '2026-10-17T00:00:00+02:00', clicks: 1}, {start: '2026-10-18T00:00:00+02:00', clicks: 2}]}}`,
			"2026-11-20T12:00:00Z",
			"2026-11-01 0/3, " + days("2026-11-02", 13, "0/0") + "; 0 against 3 in 14",
		},
		{
			"weeks, the first and the last of which are cut",
			`{unit: 'week', from: '2026-11-04', to: '2026-11-18', days: 14, today: '2026-11-25'}`,
			`{rows: [{start: '2026-11-04T00:00:00Z', clicks: 1}, {start: '2026-11-09T00:00:00Z', clicks: 2}, {start: '2026-11-15T00:00:00Z', clicks: 3}, {start: '2026-11-17T00:00:00Z', clicks: 4}],
			  previous: {rows: [{start: '2026-10-21T00:00:00Z', clicks: 5}, {start: '2026-11-03T00:00:00Z', clicks: 6}]}}`,
			"2026-11-25T12:00:00Z",
			"2026-11-02 1/5 open, 2026-11-09 5/0, 2026-11-16 4/6 open; 10 against 11 in 14",
		},
		{
			"whole months",
			`{unit: 'month', from: '2026-09-01', to: '2026-11-01', days: 61, today: '2026-11-25'}`,
			`{rows: [{start: '2026-09-30T00:00:00Z', clicks: 1}, {start: '2026-10-01T00:00:00Z', clicks: 2}]}`,
			"2026-11-25T12:00:00Z",
			"2026-09-01 1/-, 2026-10-01 2/-; 3 in 61",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := eval[string](p, fmt.Sprintf(`import('/dashboard/ui/range.js').then(({divide}) => {
				const {parts, over, overBefore, elapsed} = divide(%s, %s, new Date(%q));
				return parts.map((p) => p.at + ' ' + (p.now ?? '-') + '/' + (p.before ?? '-') + (p.open ? ' open' : '')).join(', ')
					+ '; ' + over + (overBefore === null ? '' : ' against ' + overBefore) + ' in ' + elapsed;
			})`, tt.rng, tt.answer, tt.at))
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
	// A day has 25 hours when clocks go back.
	got := eval[[]int](p, `import('/dashboard/ui/range.js').then(({divide}) => {
		const {parts} = divide({unit: 'hour', days: 1, from: '2026-10-25', to: '2026-10-26', today: '2026-10-30'},
			{from: '2026-10-25T00:00:00+02:00', to: '2026-10-26T00:00:00+01:00', rows: [{start: '2026-10-25T02:00:00+02:00', clicks: 1}, {start: '2026-10-25T02:00:00+01:00', clicks: 2}]}, new Date());
		return [parts.length, parts[2].now, parts[3].now];
	})`)
	if want := []int{25, 1, 2}; !reflect.DeepEqual(got, want) {
		t.Errorf("hours, and clicks of the two from two to three: %v, want %v", got, want)
	}
}

// days are so many days from one on, each followed by a text.
func days(from string, n int, text string) string {
	at, err := time.Parse(time.DateOnly, from)
	if err != nil {
		panic(err)
	}
	all := make([]string, n)
	for i := range all {
		all[i] = at.AddDate(0, 0, i).Format(time.DateOnly) + " " + text
	}
	return strings.Join(all, ", ")
}
