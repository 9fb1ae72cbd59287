package redisstore

import (
	"reflect"
	"strings"
	"testing"

	"snowlink/internal/link"
)

// FuzzRecord checks that whatever is in Redis, no line feed reaches a Location header, and that a
// link which can be read is the same after it was written and read again.
func FuzzRecord(f *testing.F) {
	for _, seed := range []string{
		"https://example.com/", "https://example.com/\n{\"title\":\"x\"}", "a\n{}", "\n{\"d\":true}", "a\n", "a\n{\"t\":\"\xff\"}", "a\nnull",
		"a\n{\"s\":301,\"e\":1800000000000,\"m\":9,\"q\":true,\"x\":true,\"c\":1,\"t\":\"a\\nb\",\"g\":[\"\"]}\nof a later version", "a\n{\"e\":-9223372036854775808,\"g\":[]}",
		"a\n{\"o\":\"shop\"}", "a\n{\"x\":true,\"o\":\"\\u0000\"}",
		"a\n{\"v\":1}", "a\n{\"d\":true,\"v\":-7}", "a\n{\"g\":[],\"v\":1}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, record string) {
		l, err := decodeRecord(record)
		if err != nil {
			return
		}
		if strings.Contains(l.Target, "\n") || !strings.HasPrefix(record, l.Target) {
			t.Errorf("decodeRecord(%q) = %q", record, l.Target)
		}
		if l.Options != nil && len(l.Tags) == 0 {
			l.Tags = nil // the two are one
		}
		numbered := encodeNumbered(l, numberOf(record))
		again, err := decodeRecord(numbered)
		if l.Options != nil && reflect.DeepEqual(*l.Options, link.Options{}) {
			l.Options = nil // and so are these
		}
		if err != nil || !reflect.DeepEqual(again, l) {
			t.Errorf("%+v came back as %+v, %v", l, again, err)
		}
		if numberOf(numbered) != numberOf(record) || !equalLinks(numbered, encodeRecord(l)) {
			t.Errorf("%q of number %d became %q", record, numberOf(record), numbered)
		}
	})
}

// What is in Redis stays readable, in both directions.
func TestRecordOfAnOwnedLink(t *testing.T) {
	for record, l := range map[string]link.Link{
		"https://example.com/":                             {Target: "https://example.com/"},
		"https://example.com/\n{\"o\":\"shop\"}":           {Target: "https://example.com/", Owner: "shop"},
		"https://example.com/\n{\"s\":301,\"o\":\"shop\"}": {Target: "https://example.com/", Owner: "shop", Options: &link.Options{Status: 301}},
		"\n{\"d\":true,\"o\":\"shop\"}":                    {Owner: "shop", Options: &link.Options{Deleted: true}},
	} {
		if got := encodeRecord(l); got != record {
			t.Errorf("encodeRecord(%+v) = %q, want %q", l, got, record)
		}
		if got, err := decodeRecord(record); err != nil || !reflect.DeepEqual(got, l) {
			t.Errorf("decodeRecord(%q) = %+v, %v, want %+v", record, got, err, l)
		}
	}
}

// Neither the number of a record nor its absence makes a link other than it is.
func TestNumberIsNoOption(t *testing.T) {
	plain := link.Link{Target: "https://example.com/"}
	titled := link.Link{Target: plain.Target, Options: &link.Options{Title: "x"}}
	for _, l := range []link.Link{plain, titled} {
		if encodeNumbered(l, 0) != encodeRecord(l) {
			t.Errorf("number 0 is written: %q", encodeNumbered(l, 0))
		}
		numbered := encodeNumbered(l, 7)
		if got, err := decodeRecord(numbered); err != nil || !reflect.DeepEqual(got, l) || numberOf(numbered) != 7 {
			t.Errorf("%q is %+v of number %d, %v", numbered, got, numberOf(numbered), err)
		}
		if !equalLinks(numbered, encodeRecord(l)) || equalLinks(numbered, encodeNumbered(link.Link{}, 6)) {
			t.Error("a number makes links differ, or other links equal")
		}
	}
}

func TestRecordThatCannotBeReadIsNoLink(t *testing.T) {
	for _, record := range []string{"", "\n{}", "\n{\"s\":301}", "https://example.com/\n", "https://example.com/\n{", "https://example.com/\n{\"m\":\"3\"}", "https://example.com/\n[]"} {
		if l, err := decodeRecord(record); err == nil || l != (link.Link{}) {
			t.Errorf("decodeRecord(%q) = %+v, %v", record, l, err)
		}
	}
}
