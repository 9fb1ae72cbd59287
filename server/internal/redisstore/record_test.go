package redisstore

import (
	"strings"
	"testing"

	"snowlink/server/internal/link"
)

// FuzzRecord: a target comes back as it was, and whatever stands in Redis, no
// line feed reaches a Location header.
func FuzzRecord(f *testing.F) {
	f.Add("https://example.com/")
	f.Add("https://example.com/\n{\"title\":\"x\"}")
	f.Fuzz(func(t *testing.T, record string) {
		l := decodeRecord(record)
		if strings.Contains(l.Target, "\n") || !strings.HasPrefix(record, l.Target) {
			t.Errorf("decodeRecord(%q) = %q", record, l.Target)
		}
		if again := decodeRecord(encodeRecord(link.Link{Target: l.Target})); again != l {
			t.Errorf("%+v came back as %+v", l, again)
		}
	})
}
