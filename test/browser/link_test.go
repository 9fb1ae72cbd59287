package browser_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	snow "snowlink/client"
)

// Clicks are forgotten, and a link is deleted, by whoever types its code and by nobody else.
func TestDangerZone(t *testing.T) {
	h := home(t)
	k := h.key(t, usual)
	link := h.make(t, k, snow.NewLink{URL: "https://example.com/"})
	h.click(t, link.Code, firefox)
	h.counted(t, k, link.Code, 1)
	p := signedIn(t, h, k, desk)
	p.visit("/dashboard/links/" + link.Code)
	p.until("the click is there", func() bool { return p.figure("Clicks") == "1" })

	label := "Type " + link.Code + " to confirm"
	p.click("button", "Forget clicks")
	p.write(label, link.Code[1:])
	p.press("Enter")
	p.shows("That is not the code of this link.")
	p.write(label, link.Code)
	p.press("Enter")
	p.shows("The clicks of this link are forgotten.", "No clicks yet")

	p.click("button", "Delete link")
	p.accessible("asked for the code")
	p.press("Escape")
	p.gone("dialog", "Delete link")
	if _, err := h.api(k).Get(t.Context(), link.Code); err != nil {
		t.Errorf("the link is gone without its code having been typed: %v", err)
	}
	p.click("button", "Delete link")
	p.write(label, link.Code)
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
