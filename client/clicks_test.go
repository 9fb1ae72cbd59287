package client_test

import (
	"context"
	"testing"
	"time"

	"snowlink/client"
	"snowlink/internal/fleet/fleettest"
)

func TestClicks(t *testing.T) {
	c, ctx := newClient(), t.Context()
	made, err := c.Create(ctx, client.NewLink{URL: "https://example.com/", Tags: []string{"clicked"}})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := c.Follow(ctx, made.Code); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	q := client.ClicksQuery{Code: made.Code, From: now.Add(-time.Hour), To: now.Add(time.Hour), Zone: "Europe/Berlin", Unit: "hour", By: []string{"bot", "via"},
		Where: map[string][]string{"via": {"", "qr"}}, Bots: "include", Limit: 10, Compare: true}
	var answer client.Clicks
	fleettest.Eventually(t, 10*time.Second, "the clicks are there", func() bool {
		if answer, err = c.Clicks(ctx, q); err != nil {
			t.Fatal(err)
		}
		return answer.Clicks == 3
	})
	if len(answer.Rows) == 0 || answer.Rows[0].Start.IsZero() || len(answer.Rows[0].Values) != 2 || answer.Zone != "Europe/Berlin" || answer.Unit != "hour" ||
		answer.Previous == nil || !answer.Previous.To.Equal(answer.From) || answer.Since.Hours.IsZero() {
		t.Errorf("Clicks = %+v", answer)
	}
	top, err := c.TopLinks(ctx, client.ClicksQuery{Tag: "clicked", Bots: "include"})
	if err != nil || len(top) != 1 || top[0] != (client.LinkClicks{ShortURL: made.ShortURL, Code: made.Code, Clicks: 3}) {
		t.Errorf("TopLinks = %+v, %v", top, err)
	}
	if _, err := c.Misses(ctx, client.ClicksQuery{}); err != nil {
		t.Error(err)
	}
	page, err := c.Page(ctx, client.Query{Tag: "clicked", WithClicks: true})
	if err != nil || len(page.Links) != 1 || page.Links[0].Clicks == nil {
		t.Errorf("Page = %+v, %v", page, err)
	}
	watching, stop := context.WithTimeout(ctx, 3*time.Second)
	defer stop()
	for _, err := range c.WatchClicks(watching, client.ClicksQuery{Code: made.Code}) {
		if err != nil {
			t.Error(err)
		}
	}
	if err := c.ForgetClicks(ctx, made.Code); err != nil {
		t.Error(err)
	}
	_, err = c.Clicks(ctx, client.ClicksQuery{Unit: "year"})
	wantError(t, err, 400, "invalid_field")
	err = c.ForgetClicks(ctx, "never-made-at-all")
	if err != nil { // an administrator's key
		t.Error(err)
	}
}
