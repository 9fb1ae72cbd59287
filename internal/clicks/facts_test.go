package clicks_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"snowlink/internal/clicks"
	"snowlink/internal/clicks/clickstest"
)

// factsOf returns the facts of one click.
func factsOf(t *testing.T, o clicks.Options, c clicks.Click) clicks.Facts {
	t.Helper()
	r := idle(o)
	c.Code, c.At = "abc", noon
	r.Record(c)
	return r.DrainAndTake(true)[0].Counts[0].Facts[0].Facts
}

// User agents as browsers and programs sent them.
func TestUserAgents(t *testing.T) {
	const webkit = "AppleWebKit/537.36 (KHTML, like Gecko) "
	for agent, want := range map[string]string{
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) " + webkit + "Chrome/142.0.0.0 Safari/537.36":                                "Chrome Windows desktop",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) " + webkit + "Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0":                  "Edge Windows desktop",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) " + webkit + "Chrome/142.0.0.0 Safari/537.36 OPR/121.0.0.0":                  "Opera Windows desktop",
		"Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko":                                                 "IE Windows desktop",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Safari/605.1.15": "Safari macOS desktop",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:144.0) Gecko/20100101 Firefox/144.0":                                  "Firefox macOS desktop",
		firefox: "Firefox Linux desktop",
		"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) " + webkit + "Chrome/142.0.0.0 Safari/537.36":                                                                                                          "Chrome ChromeOS desktop",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Mobile/15E148 Safari/604.1":                                                        "Safari iOS phone",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/142.0.7444.77 Mobile/15E148 Safari/604.1":                                                 "Chrome iOS phone",
		"Mozilla/5.0 (iPad; CPU OS 16_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.6 Mobile/15E148 Safari/604.1":                                                                 "Safari iOS tablet",
		"Mozilla/5.0 (Linux; Android 10; K) " + webkit + "Chrome/142.0.0.0 Mobile Safari/537.36":                                                                                                         "Chrome Android phone",
		"Mozilla/5.0 (Linux; Android 10; K) " + webkit + "SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36":                                                                                     "Samsung Browser Android phone",
		"Mozilla/5.0 (Android 15; Mobile; rv:144.0) Gecko/144.0 Firefox/144.0":                                                                                                                           "Firefox Android phone",
		"Mozilla/5.0 (Linux; Android 11; CUBOT X50) " + webkit + "Chrome/142.0.0.0 Mobile Safari/537.36":                                                                                                 "Chrome Android phone",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 Instagram 404.0.0.30.79 (iPhone15,2; iOS 18_6; de_DE; de; scale=3.00; 1179x2556)": "Safari iOS phone",
		"Mozilla/5.0 (SMART-TV; Linux; Tizen 8.0) AppleWebKit/538.1 (KHTML, like Gecko) Version/8.0 TV Safari/538.1":                                                                                     "Linux tv",

		"":           "crawler",
		"curl/8.5.0": "crawler", "Wget/1.24.5": "crawler", "python-requests/2.32.3": "crawler", "Go-http-client/2.0": "crawler", "okhttp/4.12.0": "crawler", "axios/1.7.9": "crawler",
		"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)":                                                                                                       "crawler",
		"Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) " + webkit + "Chrome/142.0.7444.59 Mobile Safari/537.36 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)": "crawler",
		"Mozilla/5.0 " + webkit + "Chrome/116.0.1938.76 Safari/537.36; compatible; GPTBot/1.2; +https://openai.com/gptbot":                                                               "crawler",
		"Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)":                                                                                                             "crawler",
		"Mozilla/5.0 (X11; Linux x86_64) " + webkit + "HeadlessChrome/142.0.0.0 Safari/537.36":                                                                                           "crawler",
		"facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)":                                                                                                      "preview",
		"WhatsApp/2.23.20.0 A": "preview", "TelegramBot (like TwitterBot)": "preview", "Twitterbot/1.0": "preview",
		"Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)":                                      "preview",
		"Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)":                               "preview",
		"LinkedInBot/1.0 (compatible; Mozilla/5.0; Apache-HttpClient +http://www.linkedin.com)":           "preview",
		"Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5 skype-url-preview@microsoft.com": "preview",
	} {
		f := factsOf(t, clicks.Options{}, clicks.Click{UserAgent: []byte(agent)})
		if got := strings.TrimSpace(strings.Join([]string{f[clicks.Browser], f[clicks.OS], f[clicks.Device], f[clicks.Bot]}, " ")); got != want {
			t.Errorf("%q is %q, want %q", agent, got, want)
		}
	}
}

func TestReferrers(t *testing.T) {
	for referrer, want := range map[string]string{
		"":                                    "",
		"https://www.google.com/":             "google.com",
		"https://t.co/abc?x=1":                "t.co",
		"http://News.Example.COM.:8080/a/b":   "news.example.com",
		"https://a:b@example.com/@other.test": "example.com",
		"https://example.com?next=https://other.test/":     "example.com",
		"https://example.com#https://other.test/":          "example.com",
		"android-app://com.google.android.gm/":             "com.google.android.gm",
		"https://xn--kln-sna.de/":                          "xn--kln-sna.de",
		"https://köln.de/":                                 "",
		"https://[2001:db8::1]:80/":                        "",
		"about:blank":                                      "",
		"example.com":                                      "",
		"javascript://%0aalert(1)":                         "",
		"https://" + strings.Repeat("a", 200) + ".test/":   strings.Repeat("a", clicks.MaxValue),
		"https://" + strings.Repeat("a.", 4000) + "test/x": "",
	} {
		if got := factsOf(t, clicks.Options{}, clicks.Click{Referrer: []byte(referrer)})[clicks.Referrer]; got != want {
			t.Errorf("%.60q is %q, want %q", referrer, got, want)
		}
	}
}

func TestQueries(t *testing.T) {
	for query, want := range map[string]string{
		"":           "|||",
		"qr":         "|||qr",
		"qr=1":       "|||",
		"a=b&qr":     "|||",
		"utm_source": "|||",
		"utm_source=news&utm_medium=email&utm_campaign=autumn+2026": "news|email|autumn 2026|",
		"fbclid=x&utm_campaign=K%C3%B6ln&utm_content=z":             "||Köln|",
		"utm_source=first&utm_source=second":                        "first|||",
		"xutm_source=a&utm_sourcex=b&UTM_SOURCE=c":                  "|||",
		"utm_source=a%ZZ":                                "a%ZZ|||",
		"utm_source=%FF%00%0A+x":                         "\ufffd   x|||",
		"utm_source=+%20":                                "|||",
		"utm_source=" + strings.Repeat("%C3%B6", 200):    strings.Repeat("ö", 50) + "|||",
		strings.Repeat("a=b&", 2000) + "utm_source=late": "|||", // only the first 2 KiB are searched
	} {
		f := factsOf(t, clicks.Options{}, clicks.Click{Query: []byte(query)})
		if got := strings.Join([]string{f[clicks.Source], f[clicks.Medium], f[clicks.Campaign], f[clicks.Via]}, "|"); got != want {
			t.Errorf("%.60q is %q, want %q", query, got, want)
		}
	}
}

func TestPurposes(t *testing.T) {
	for purpose, want := range map[string]string{
		"": "", "prefetch": "prefetch", "prefetch;prerender": "prefetch", "Preview": "prefetch", "prefetch;anonymous-client-ip": "prefetch", "fetch": "",
	} {
		r := idle(clicks.Options{})
		c := click("abc")
		c.Purpose = []byte(purpose)
		r.Record(c)
		got := r.DrainAndTake(true)[0].Counts[0]
		if got.Facts[0].Facts[clicks.Bot] != want || (got.Bots == 1) != (want != "") || (len(got.Visitors) == 0) != (want != "") {
			t.Errorf("%q: got %+v", purpose, got)
		}
		if got.Facts[0].Facts[clicks.Browser] != "Firefox" {
			t.Errorf("%q: what the browser is is lost: %+v", purpose, got)
		}
	}
}

func TestCountries(t *testing.T) {
	geo, err := clicks.OpenGeoIP(clickstest.GeoIP(t, map[string]string{"203.0.113.0/24": "DE", "2001:db8::/32": "FR"}))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ address, header, without, with string }{
		{"203.0.113.7", "", "", "DE"},
		{"2001:db8::1", "", "", "FR"},
		{"::ffff:203.0.113.7", "", "", "DE"},
		{"198.51.100.1", "", "", ""},
		{"no address", "", "", ""},
		{"", "", "", ""},
		{"203.0.113.7", "gb", "GB", "GB"},
		{"203.0.113.7", "XX", "", "DE"},
		{"203.0.113.7", "T1", "", "DE"},
		{"203.0.113.7", "DEU", "", "DE"},
	} {
		c := clicks.Click{Address: []byte(tt.address), Country: []byte(tt.header)}
		if got := factsOf(t, clicks.Options{}, c)[clicks.Country]; got != tt.without {
			t.Errorf("%+v: got %q without a database", tt, got)
		}
		if got := factsOf(t, clicks.Options{GeoIP: geo}, c)[clicks.Country]; got != tt.with {
			t.Errorf("%+v: got %q", tt, got)
		}
	}
}

func TestGeoIPReload(t *testing.T) {
	path := clickstest.GeoIP(t, map[string]string{"203.0.113.0/24": "DE"})
	geo, err := clicks.OpenGeoIP(path)
	if err != nil {
		t.Fatal(err)
	}
	r := idle(clicks.Options{GeoIP: geo})
	country := func() string {
		r.Record(click("abc"))
		return r.DrainAndTake(true)[0].Counts[0].Facts[0].Facts[clicks.Country]
	}
	if got := country(); got != "DE" {
		t.Fatalf("got %q", got)
	}
	if err := os.WriteFile(path, []byte("half a file"), 0o644); err != nil { // in place, as cp does
		t.Fatal(err)
	}
	if err := geo.Reload(); err == nil || country() != "DE" {
		t.Errorf("a broken file: %v", err)
	}
	clickstest.WriteGeoIP(t, path, map[string]string{"203.0.113.0/24": "AT"})
	if err := geo.Reload(); err != nil || country() != "AT" {
		t.Errorf("a new file is not used: %v", err)
	}
}

func TestGeoIPErrors(t *testing.T) {
	dir := t.TempDir()
	text, none := filepath.Join(dir, "text"), filepath.Join(dir, "none.mmdb")
	if err := os.WriteFile(text, []byte("country,network\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	clickstest.WriteGeoIP(t, none, map[string]string{"203.0.113.0/24": "??"})
	for _, path := range []string{text, none, dir} {
		if _, err := clicks.OpenGeoIP(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		} else {
			t.Log(err)
		}
	}
	if _, err := clicks.OpenGeoIP(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	geo, err := clicks.OpenGeoIP(clickstest.GeoIP(t, map[string]string{"203.0.113.0/24": "DE"}))
	if err != nil || geo.Country(netip.MustParseAddr("203.0.113.9")) != "DE" || geo.Country(netip.MustParseAddr("2001:db8::1")) != "" {
		t.Errorf("got %v", err)
	}
}

// Each dimension can be turned off.
func TestWithout(t *testing.T) {
	c := click("abc")
	c.Referrer, c.Country = referrers[1], []byte("DE")
	c.Query = []byte("utm_source=a&utm_medium=b&utm_campaign=c")
	c.Purpose = []byte("prefetch")
	all := factsOf(t, clicks.Options{}, c)
	for d := range clicks.Dimension(clicks.Dimensions) {
		want := all
		want[d] = ""
		if got := factsOf(t, clicks.Options{Without: []clicks.Dimension{d}}, c); got != want {
			t.Errorf("without %s: got %q, want %q", d, got, want)
		}
		if all[d] == "" && d != clicks.Via {
			t.Errorf("there is no %s to turn off", d)
		}
	}
	r := idle(clicks.Options{Without: []clicks.Dimension{clicks.Bot}})
	r.Record(c)
	if got := r.DrainAndTake(true)[0].Counts[0]; got.Clicks != 1 || got.Bots != 0 {
		t.Errorf("without bots: got %+v", got)
	}
}

// A flood of user agents that nobody has ever seen is not looked into further than there is time for.
// Bots are bots all the same.
func TestParsesAreBounded(t *testing.T) {
	const n = 4000
	r := idle(clicks.Options{})
	flood := func() (bots int64, facts map[string]int64) {
		for i := range n {
			c := click("abc")
			c.UserAgent = fmt.Appendf(nil, "%s %d", firefox, i)
			if i%2 == 1 {
				c.UserAgent = fmt.Appendf(nil, "curl/%d", i)
			}
			r.Record(c)
		}
		facts = make(map[string]int64)
		for _, c := range r.DrainAndTake(true)[0].Counts {
			bots += c.Bots
			for _, f := range c.Facts {
				facts[f.Facts[clicks.Browser]+f.Facts[clicks.Bot]] += f.Clicks
			}
		}
		return bots, facts
	}
	bots, facts := flood()
	if bots != n/2 || facts["Firefox"] == 0 || facts[clicks.Other] == 0 || facts["Firefox"]+facts[clicks.Other] != n/2 {
		t.Errorf("%d bots, %v", bots, facts)
	}
	if less := r.metric(t, "reduced_total", "facts"); less < n/4 {
		t.Errorf("%v clicks are said to have lost facts", less)
	}
	eventually(t, "all are known", func() bool { _, facts := flood(); return facts["Firefox"] == n/2 })
}

func BenchmarkUserAgent(b *testing.B) {
	r := idle(clicks.Options{})
	before := cpu()
	i := 0
	for b.Loop() {
		for range 1000 {
			c := click("abc")
			c.UserAgent = fmt.Appendf(nil, "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36 Edg/%d.0.0.0", i)
			r.Record(c)
			i++
		}
		r.DrainAndTake(true)
	}
	b.ReportMetric(float64(cpu()-before)/float64(i), "cpu-ns/click")
}
