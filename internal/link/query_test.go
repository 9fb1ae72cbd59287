package link_test

import (
	"slices"
	"testing"
	"time"

	"snowlink/internal/link"
)

func TestQueryTakes(t *testing.T) {
	now := time.Date(2026, 11, 25, 11, 0, 0, 0, time.UTC)
	at := now.Add(-time.Hour) // when the links were made
	links := []link.Coded{
		{Code: "plain", Link: link.Link{Target: "https://a.example/pricing-2026/EU_plan.html?utm=News%20letter"}},
		{Code: "A-code_7", Link: link.Link{Target: "http://b.example/?u=https://deep.example/x", Options: &link.Options{
			Title: "Plans, for You: Größe e\u0301te\u0301", Tags: []string{"summer sale", "news"}, Expires: now.Add(time.Millisecond)}}},
		{Code: "off", Link: link.Link{Target: "https://a.example/", Options: &link.Options{Disabled: true}}},
		{Code: "over", Link: link.Link{Target: "https://a.example/", Options: &link.Options{Expires: now, Disabled: true}}},
		{Code: "deleted", Link: link.Link{Options: &link.Options{Deleted: true}}},
		{Code: "forgotten", Link: link.Link{Target: "https://a.example/", Options: &link.Options{Expires: now.Add(-link.Grace)}}},
	}
	for name, tt := range map[string]struct {
		q    link.Query
		want []string
	}{
		"all":                {link.Query{}, []string{"plain", "A-code_7", "off"}},
		"active":             {link.Query{States: link.Active}, []string{"plain", "A-code_7"}},
		"disabled":           {link.Query{States: link.Disabled}, []string{"off"}},
		"gone":               {link.Query{States: link.Gone}, []string{"over", "deleted"}},
		"from then":          {link.Query{From: at, States: link.Disabled}, []string{"off"}},
		"from later":         {link.Query{From: at.Add(1)}, nil},
		"to then":            {link.Query{To: at}, nil},
		"to later":           {link.Query{To: at.Add(1), States: link.Disabled}, []string{"off"}},
		"tag":                {link.Query{Tag: "news"}, []string{"A-code_7"}},
		"part of a tag":      {link.Query{Tag: "summer"}, nil},
		"word of the path":   {link.Query{Words: "PRICING"}, []string{"plain"}},
		"number":             {link.Query{Words: "2026"}, []string{"plain"}},
		"file":               {link.Query{Words: "plan.html"}, []string{"plain"}},
		"parameter":          {link.Query{Words: "utm"}, []string{"plain"}},
		"nested URL":         {link.Query{Words: "deep.example"}, []string{"A-code_7"}},
		"title":              {link.Query{Words: "GRÖßE you"}, []string{"A-code_7"}},
		"letters with marks": {link.Query{Words: "e\u0301te"}, nil},
		"tags":               {link.Query{Words: "sale summer"}, []string{"A-code_7"}},
		"code":               {link.Query{Words: "a-code_7"}, []string{"A-code_7"}},
		"part of a word":     {link.Query{Words: "pric"}, nil},
		"end of a word":      {link.Query{Words: "ricing"}, nil},
		"part, alone":        {link.Query{Words: "ric", Parts: true}, []string{"plain"}},
		"parts":              {link.Query{Words: "PRIC lan html", Parts: true}, []string{"plain"}},
		"part and a number":  {link.Query{Words: "LAN 26", Parts: true}, nil},
		"part and two whole": {link.Query{Words: "RÖß x 7", Parts: true}, []string{"A-code_7"}},
		"part of two words":  {link.Query{Words: "sale news", Tag: "news", Parts: true}, []string{"A-code_7"}},
		"part over an end":   {link.Query{Words: "forgröße", Parts: true}, nil},
		"part of the scheme": {link.Query{Words: "http", Parts: true}, []string{"A-code_7"}},
		"part without runs":  {link.Query{Words: "te\u0301", Parts: true}, nil},
		"whole without runs": {link.Query{Words: "e\u0301te\u0301", Parts: true}, []string{"A-code_7"}},
		"part, no word":      {link.Query{Words: "%_\\", Parts: true}, nil},
		"the second time":    {link.Query{Words: "a"}, []string{"plain", "A-code_7", "off"}},
		"scheme":             {link.Query{Words: "https"}, []string{"A-code_7"}},
		"no word":            {link.Query{Words: "!? \x00\xff"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, l := range links {
				if tt.q.Takes(l, at, now) {
					got = append(got, l.Code)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("takes %q, want %q", got, tt.want)
			}
		})
	}
}

// Each position has one cursor, and a stranger's bytes are one or none.
func FuzzParsePosition(f *testing.F) {
	for _, p := range []link.Position{
		{Created: time.UnixMicro(0), Code: "a"}, {Created: time.UnixMicro(1_763_751_614_899_000), Code: "8h4LRT53E8"},
		{Created: time.UnixMicro(-1), Code: "-_9"}, {Created: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), Code: "z"},
	} {
		if got, err := link.ParsePosition(p.Cursor()); err != nil || got.Compare(p) != 0 {
			f.Errorf("%v comes back as %v, %v", p, got, err)
		}
		f.Add(p.Cursor())
	}
	for _, cursor := range []string{"", "!", "MTIzLg", "KzEuYQ", "MDAxLmE", "LTYyMTY3MjE5MjAwMDAwMDAxLmE", "OTk5OTk5OTk5OTk5OTk5OTk5LmE", "MS4nOyBEUk9Q", "MTc2Mzc1MTYxNDg5OS0wLjA"} {
		if p, err := link.ParsePosition(cursor); err == nil {
			f.Errorf("%q is %v", cursor, p)
		}
		f.Add(cursor)
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		p, err := link.ParsePosition(cursor)
		if err == nil && (p.Cursor() != cursor || !link.CouldBeCode(p.Code) || p.Created.Year() < 0 || p.Created.Year() > 9999) {
			t.Errorf("%q is %v with the cursor %q", cursor, p, p.Cursor())
		}
	})
}
