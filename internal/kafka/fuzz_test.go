package kafka

import (
	"errors"
	"reflect"
	"testing"

	"snowlink/internal/clicks"
	"snowlink/internal/link"
)

// Whatever a record is, it is unreadable or says the same when it is written anew.
func FuzzRecord(f *testing.F) {
	for _, record := range []string{
		`{"v":1,"type":"clicks","producer":"p","batch":7,"part":0,"hour":"2026-11-25T16:00:00Z","code":"pA7","owner":"shop",` +
			`"tags":["autumn","ü"],"clicks":8,"bots":1,"facts":[{"clicks":7,"country":"DE","browser":"Firefox"},{"clicks":1,"bot":"crawler"}],"visitors":["1","18446744073709551615"]}`,
		`{"v":1,"type":"miss","hour":"2026-11-25T16:30:00+02:00","code":"pM7","clicks":2}`,
		`{"v":2}`, `{"v":1,"type":"clicks","hour":"0000-01-01T00:00:00Z","code":"a","clicks":9223372036854775807}`, ``,
	} {
		f.Add([]byte(record))
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		var first clicks.Batch
		if err := addTo(&first, record, 5); err != nil {
			if !errors.Is(err, link.ErrUnreadable) || len(first.Counts)+len(first.Misses) > 0 {
				t.Fatalf("it is added as %+v, with %v", first, err)
			}
			return
		}
		records, err := messages(&first)
		if err != nil {
			t.Fatal(err)
		}
		var again clicks.Batch
		for _, r := range records {
			if err := addTo(&again, r.value, 5); err != nil {
				t.Fatal(err)
			}
		}
		if len(records) == 1 && !reflect.DeepEqual(first, again) {
			t.Fatalf("%+v comes back as %+v", first, again)
		}
	})
}
