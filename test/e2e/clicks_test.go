package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	snow "snowlink/client"
	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

const firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

// visit follows a link as a browser does.
func visit(t *testing.T, c *http.Client, url string, headers ...string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		request.Header.Set(name, value)
	}
	resp, err := c.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusFound {
		t.Fatalf("GET %s: %s", url, resp.Status)
	}
}

// soon waits for clicks as long as a visitor's click may take to be in the numbers.
func soon(t *testing.T, c *snow.Client, q snow.ClicksQuery, want int64) (answer snow.Clicks) {
	t.Helper()
	fleettest.Eventually(t, 2*time.Second, fmt.Sprintf("%d clicks of %+v", want, q), func() bool {
		var err error
		answer, err = c.Clicks(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return answer.Clicks == want
	})
	return answer
}

// values are the rows of an answer as text: values and clicks.
func values(answer snow.Clicks, by ...string) map[string]int64 {
	rows := make(map[string]int64)
	for _, r := range answer.Rows {
		var cells []string
		for _, name := range by {
			cells = append(cells, r.Values[name])
		}
		rows[strings.Join(cells, "|")] += r.Clicks
	}
	return rows
}

// Visits through Nginx are in the numbers within two seconds, with what is known of them.
func TestClicksOfAFleet(t *testing.T) {
	for name, archive := range map[string]int{"over Redis": 0, "over an archive": 2} {
		t.Run(name, func(t *testing.T) {
			f := fleettest.Start(t, fleet.Options{Archive: archive, Env: []string{"COUNTRY_HEADER=CF-IPCountry"}})
			api, c := &snow.Client{BaseURL: f.URL, APIKey: f.APIKey}, client(t, "127.0.0.1")
			made, err := api.Create(t.Context(), clientLink("https://example.com/", "a", "b"))
			if err != nil {
				t.Fatal(err)
			}
			visit(t, c, f.URL+"/"+made.Code+"?utm_source=mail&utm_medium=email&utm_campaign=spring", "User-Agent: "+firefox, "Referer: https://www.example.org/page", "CF-IPCountry: DE")
			visit(t, c, f.URL+"/"+made.Code+"?qr", "User-Agent: "+firefox, "CF-IPCountry: AT")
			visit(t, c, f.URL+"/"+made.Code, "User-Agent: Googlebot/2.1 (+http://www.google.com/bot.html)")
			visit(t, c, f.URL+"/"+made.Code, "User-Agent: "+firefox, "Sec-Purpose: prefetch")

			link := snow.ClicksQuery{Code: made.Code}
			soon(t, api, link, 2)
			for by, want := range map[string]map[string]int64{
				"country": {"DE": 1, "AT": 1}, "referrer": {"example.org": 1, "": 1}, "browser": {"Firefox": 2}, "os": {"Linux": 2}, "device": {"desktop": 2},
				"utm_source": {"mail": 1, "": 1}, "utm_medium": {"email": 1, "": 1}, "utm_campaign": {"spring": 1, "": 1}, "via": {"qr": 1, "": 1},
				"bot": {"": 2, "crawler": 1, "prefetch": 1},
			} {
				q := link
				q.By = []string{by}
				answer, err := api.Clicks(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				if got := values(answer, by); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("by %s: %v, want %v", by, got, want)
				}
			}
			for _, q := range []snow.ClicksQuery{{}, {Tag: "a"}, {Owner: "*"}, {Owner: "*", Tag: "b"}} {
				soon(t, api, q, 2)
			}
			top, err := api.TopLinks(t.Context(), snow.ClicksQuery{})
			if err != nil || len(top) != 1 || top[0].Code != made.Code || top[0].Clicks != 2 {
				t.Errorf("the top links are %+v, %v", top, err)
			}
			page, err := api.Page(t.Context(), snow.Query{WithClicks: true})
			if err != nil || len(page.Links) != 1 || *page.Links[0].Clicks != 2 {
				t.Errorf("the list is %+v, %v", page, err)
			}
			for range 3 {
				do(t, c, "GET", f.URL+"/never-made", "", "")
			}
			fleettest.Eventually(t, 2*time.Second, "the misses", func() bool {
				misses, err := api.Misses(t.Context(), snow.ClicksQuery{})
				if err != nil {
					t.Fatal(err)
				}
				return len(misses) == 1 && misses[0].Code == "never-made" && misses[0].Clicks >= 1
			})
			if err := api.ForgetClicks(t.Context(), made.Code); err != nil {
				t.Error(err)
			}
			soon(t, api, link, 0)
			soon(t, api, snow.ClicksQuery{}, 2)
		})
	}
}

func clientLink(url string, tags ...string) snow.NewLink { return snow.NewLink{URL: url, Tags: tags} }

// What is clicked is told to those who watch, through Nginx, as it happens.
func TestLiveClicksThroughNginx(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{})
	api, c := &snow.Client{BaseURL: f.URL, APIKey: f.APIKey}, client(t, "127.0.0.1")
	made, err := api.Create(t.Context(), clientLink("https://example.com/"))
	if err != nil {
		t.Fatal(err)
	}
	var seen atomic.Int64
	watching := fleettest.Background(t, func(ctx context.Context) error {
		for event, err := range api.WatchClicks(ctx, snow.ClicksQuery{Code: made.Code}) {
			if err != nil {
				return err
			}
			seen.Add(event.Clicks)
		}
		return nil
	})
	visits := int64(0)
	fleettest.Eventually(t, 20*time.Second, "a click is seen", func() bool { // the subscription may take a moment
		visit(t, c, f.URL+"/"+made.Code, "User-Agent: "+firefox)
		visits++
		return seen.Load() > 0
	})
	// The answer outlasts the time that Nginx gives others.
	time.Sleep(3 * time.Second)
	before := seen.Load()
	visit(t, c, f.URL+"/"+made.Code, "User-Agent: "+firefox)
	fleettest.Eventually(t, 5*time.Second, "a click after a pause is seen", func() bool { return seen.Load() > before })
	if err := watching(); err != nil {
		t.Error(err)
	}
}

// Visits that Nginx answers itself are counted as well.
func TestClicksOfTheEdgeCache(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{Env: []string{"COUNTRY_HEADER=X-Country-Code"}})
	cacheAtEdge(t, f)
	api := &snow.Client{BaseURL: f.URL, APIKey: f.APIKey}
	made, err := api.Create(t.Context(), clientLink("https://example.com/", "a"))
	if err != nil {
		t.Fatal(err)
	}
	const visitors, each = 8, 2500
	var all sync.WaitGroup
	began := time.Now()
	for i := range visitors {
		all.Go(func() {
			c := client(t, "127.0.0.1")
			for range each {
				visit(t, c, f.URL+"/"+made.Code+"?utm_source="+url.QueryEscape(fmt.Sprint("s", i)), "User-Agent: "+firefox, "Referer: https://example.org/", "X-Country-Code: DE")
			}
		})
	}
	all.Wait()
	took := time.Since(began)
	asked := int64(sum(answered(t, f, "redirect", "3xx")))
	var answer snow.Clicks
	fleettest.Eventually(t, 5*time.Second, "nearly all visits are counted", func() bool {
		answer, err = api.Clicks(t.Context(), snow.ClicksQuery{Code: made.Code, By: []string{"utm_source"}})
		if err != nil {
			t.Fatal(err)
		}
		return float64(answer.Clicks) >= 0.999*visitors*each
	})
	t.Logf("%d visits in %s, %d of them answered by backends: %d counted, %.5f", visitors*each, took, asked, answer.Clicks, float64(answer.Clicks)/(visitors*each))
	if answer.Clicks > visitors*each {
		t.Errorf("%d clicks of %d visits", answer.Clicks, visitors*each)
	}
	if asked > visitors*each/2 {
		t.Errorf("the backends answered %d of %d visits: the edge cache is not on", asked, visitors*each)
	}
	facts, err := api.Clicks(t.Context(), snow.ClicksQuery{Tag: "a", By: []string{"country", "browser", "referrer"}})
	if err != nil || len(facts.Rows) != 1 || facts.Rows[0].Values["country"] != "DE" || facts.Rows[0].Values["browser"] != "Firefox" || facts.Rows[0].Values["referrer"] != "example.org" {
		t.Errorf("facts %+v, %v", facts.Rows, err)
	}
}

// A backend gets no more of a long user agent and referrer than it can count by, so that the rest of its
// 8 KiB is for the request.
func TestLongHeadersOfVisitorsAreCut(t *testing.T) {
	seen := make(chan http.Header, 1)
	f := upstream(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header })
	long := strings.Repeat("é", 3500)
	exchange(t, f.URL, "GET /abc HTTP/1.1\r\nHost: a\r\nUser-Agent: "+long+"\r\nReferer: "+long+"\r\nPurpose: prefetch\r\n\r\n")
	header := <-seen
	for _, name := range []string{"User-Agent", "Referer"} {
		if got := header.Get(name); got != long[:512] {
			t.Errorf("%s has %d bytes, want the first 512", name, len(got))
		}
	}
	if got := header.Get("Sec-Purpose"); got != "prefetch" {
		t.Errorf("Sec-Purpose: %q", got)
	}
}

// What a stopped backend has counted is in the numbers.
func TestStopSendsWhatWasCounted(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{})
	api, c := &snow.Client{BaseURL: f.URL, APIKey: f.APIKey}, client(t, "127.0.0.1")
	made, err := api.Create(t.Context(), clientLink("https://example.com/"))
	if err != nil {
		t.Fatal(err)
	}
	const visits = 300
	for i := range visits {
		visit(t, c, f.Backends[0].URL+"/"+made.Code, "User-Agent: "+firefox)
		if i == visits/2 {
			if err := f.Backends[1].Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.Backends[0].Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	soon(t, api, snow.ClicksQuery{Code: made.Code}, visits)
}
