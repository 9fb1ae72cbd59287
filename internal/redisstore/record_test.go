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

func TestRecordThatCannotBeReadIsNoLink(t *testing.T) {
	for _, record := range []string{"", "\n{}", "\n{\"s\":301}", "https://example.com/\n", "https://example.com/\n{", "https://example.com/\n{\"m\":\"3\"}", "https://example.com/\n[]"} {
		if l, err := decodeRecord(record); err == nil || l != (link.Link{}) {
			t.Errorf("decodeRecord(%q) = %+v, %v", record, l, err)
		}
	}
}
