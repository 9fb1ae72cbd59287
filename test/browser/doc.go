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
//	browser_test.go     the Chromium that all tests share, and its tabs
//	house_test.go       the fleet that most tests share, and its keys
package browser
