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
		again, err := decodeRecord(encodeRecord(l))
		if l.Options != nil && reflect.DeepEqual(*l.Options, link.Options{}) {
			l.Options = nil // and so are these
		}
		if err != nil || !reflect.DeepEqual(again, l) {
			t.Errorf("%+v came back as %+v, %v", l, again, err)
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

func TestRecordThatCannotBeReadIsNoLink(t *testing.T) {
	for _, record := range []string{"", "\n{}", "\n{\"s\":301}", "https://example.com/\n", "https://example.com/\n{", "https://example.com/\n{\"m\":\"3\"}", "https://example.com/\n[]"} {
		if l, err := decodeRecord(record); err == nil || l != (link.Link{}) {
			t.Errorf("decodeRecord(%q) = %+v, %v", record, l, err)
		}
	}
}
