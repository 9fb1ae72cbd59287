// Package browser holds the tests of the dashboard as a person uses it: a real Chromium, driven with
// chromedp, before a real fleet behind Nginx.
//
// Its decision: a test finds things as people and their screen readers do, by what they are and what
// they are called ("the button Sign in"). So it holds whatever the page is made of, and what has no
// name fails. Whatever test it is, the page fails it if it logs an error, breaks its own content
// security policy or asks another host for anything.
//
// Where to look:
//
//	signin_test.go      signing in; session_test.go: sessions that end
//	home_test.go        home, and keys that may do little
//	links_test.go       links that are made, changed, found, imported, deleted
//	clicks_test.go      numbers, which are the ledger's; link_test.go: what else a link's page has
//	service_test.go     the service
//	settings_test.go    settings, and the keyboard alone
//	away_test.go        outages, and the first minute with `make run`
//	axe_test.go         whom the page keeps out, and texts that are none of its own
//	bars_test.go        how much and how fast: figures in the log, assertions with -long
//	screenshots_test.go pictures of every section, for docs/screenshots
//	browser_test.go     the Chromium that all tests share, and its tabs; hands_test.go: mouse and keyboard
//	house_test.go       the fleet that most tests share, and its keys; past_test.go: clicks of the past
//
// With BROWSER_PICTURES=folder, a test that fails leaves a picture of its page there.
package browser
