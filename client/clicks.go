package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// ClicksQuery says which clicks are asked for. The zero value is what people clicked of all links of
// this key name, in the last 30 days, by days. Top and Misses take only some of it.
type ClicksQuery struct {
	// Code is a link. If it is empty, Owner and Tag count.
	Code string
	// Owner is another key name, which takes the scope admin; "*" is everyone.
	Owner string
	// Tag is one that the links had when they were clicked.
	Tag string
	// From and To are when the clicks were: at From or later, and before To, to the hour.
	From, To time.Time
	// Zone is the time zone of days, weeks and months, such as "Europe/Berlin". Empty is UTC.
	Zone string
	// Unit is "hour", "day", "week", "month", or "whole" to have no parts of the time. If it is
	// empty, the service decides.
	Unit string
	// By divides the answer by up to three dimensions, such as "country" or "utm_source".
	By []string
	// Where has, by dimension, the values of which clicks must have one.
	Where map[string][]string
	// Bots is "include" for clicks of bots, too, and "only" for nothing else.
	Bots string
	// Limit is how many rows there are at most for each part of the time, up to 1,000. 0 is 100.
	Limit int
	// Compare asks for the time before, too.
	Compare bool
}

// Clicks is how many clicks there were.
type Clicks struct {
	ClicksOfTime
	Zone string `json:"time_zone"`
	Unit string `json:"unit"`
	// Since says since when clicks are kept.
	Since struct {
		Hours time.Time `json:"hours"` // by hours, and by several dimensions at once
		Days  time.Time `json:"days"`  // by days and one dimension; zero for ever
	} `json:"since"`
	// Previous is the time before. It is nil without ClicksQuery.Compare.
	Previous *ClicksOfTime `json:"previous"`
}

// ClicksOfTime is how many clicks there were in a time.
type ClicksOfTime struct {
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	Clicks int64     `json:"clicks"`
	// Visitors is how many people clicked, each counted once a day and link; nil if it is not known.
	Visitors *int64      `json:"visitors"`
	Rows     []ClicksRow `json:"rows"` // those without clicks are left out
}

// ClicksRow is the clicks of one part of the time with the same values.
type ClicksRow struct {
	Start    time.Time         // zero if the time is not divided
	Values   map[string]string // by dimension, of ClicksQuery.By
	Clicks   int64
	Visitors *int64 // nil if it is not known
}

// UnmarshalJSON reads a row, in which the dimensions stand beside the numbers.
func (r *ClicksRow) UnmarshalJSON(b []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return err
	}
	*r = ClicksRow{Values: make(map[string]string)}
	for name, value := range fields {
		var into any
		switch name {
		case "start":
			into = &r.Start
		case "clicks":
			into = &r.Clicks
		case "visitors":
			into = &r.Visitors
		default:
			var text string
			if json.Unmarshal(value, &text) == nil { // not something that a later version adds
				r.Values[name] = text
			}
			continue
		}
		if err := json.Unmarshal(value, into); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// LinkClicks is how often a code was clicked.
type LinkClicks struct {
	ShortURL string `json:"short_url"` // empty for a code without a link
	Code     string `json:"code"`
	Clicks   int64  `json:"clicks"`
}

// LiveClicks is what was clicked lately.
type LiveClicks struct {
	At     time.Time    `json:"at"`
	Clicks int64        `json:"clicks"` // of people
	Bots   int64        `json:"bots"`
	Links  []LinkClicks `json:"links"` // the most clicked first, bots with them
}

// Clicks returns how many clicks there were. If the service counts none, the Code of the error is
// "clicks_off".
func (c *Client) Clicks(ctx context.Context, q ClicksQuery) (Clicks, error) {
	path := "/clicks?"
	if q.Code != "" {
		path = clicksPath(q.Code) + "?"
	}
	var answer Clicks
	err := c.read(ctx, path+q.values(false).Encode(), &answer)
	return answer, err
}

// TopLinks returns the links that were clicked most, the most clicked first. It takes Owner, Tag, From,
// To, Zone, Bots and Limit.
func (c *Client) TopLinks(ctx context.Context, q ClicksQuery) ([]LinkClicks, error) {
	var answer struct{ Links []LinkClicks }
	err := c.read(ctx, "/clicks/top?"+q.values(false).Encode(), &answer)
	return answer.Links, err
}

// Misses returns the codes without a link that were asked for most. It takes From, To, Zone and Limit,
// and the scope admin.
func (c *Client) Misses(ctx context.Context, q ClicksQuery) ([]LinkClicks, error) {
	var answer struct{ Misses []LinkClicks }
	err := c.read(ctx, "/clicks/misses?"+q.values(false).Encode(), &answer)
	return answer.Misses, err
}

// ForgetClicks deletes what is kept of the clicks of a link.
func (c *Client) ForgetClicks(ctx context.Context, code string) error {
	resp, err := c.do(ctx, http.MethodDelete, clicksPath(code), nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// WatchClicks returns what is being clicked, once a second at most, until ctx ends or the service ends
// it, as it does after 15 minutes. Then the caller may watch again. It takes Code, Owner and Tag. An
// error comes last.
func (c *Client) WatchClicks(ctx context.Context, q ClicksQuery) iter.Seq2[LiveClicks, error] {
	return func(yield func(LiveClicks, error) bool) {
		resp, err := c.do(ctx, http.MethodGet, "/clicks/live?"+q.values(true).Encode(), nil)
		if err != nil {
			yield(LiveClicks{}, err)
			return
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
			if !ok {
				continue
			}
			var event LiveClicks
			if err := json.Unmarshal(data, &event); err != nil {
				yield(LiveClicks{}, fmt.Errorf("snowlink: read an event: %w", err))
				return
			}
			if !yield(event, nil) {
				return
			}
		}
		if err := lines.Err(); err != nil && ctx.Err() == nil {
			yield(LiveClicks{}, fmt.Errorf("snowlink: watch clicks: %w", err))
		}
	}
}

func clicksPath(code string) string { return "/links/" + url.PathEscape(code) + "/clicks" }

// values returns the parameters of a request. withCode says that the code is one of them.
func (q ClicksQuery) values(withCode bool) url.Values {
	v := make(url.Values)
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	if withCode {
		set("code", q.Code)
	}
	set("owner", q.Owner)
	set("tag", q.Tag)
	set("tz", q.Zone)
	set("unit", q.Unit)
	set("by", strings.Join(q.By, ","))
	set("bots", q.Bots)
	for dimension, values := range q.Where {
		v.Set(dimension, strings.Join(values, ","))
	}
	if !q.From.IsZero() {
		v.Set("from", q.From.Format(time.RFC3339))
	}
	if !q.To.IsZero() {
		v.Set("to", q.To.Format(time.RFC3339))
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Compare {
		v.Set("compare", "previous")
	}
	return v
}
