package progress

import (
	"bytes"
	"fmt"
	"testing"
)

func TestBar(t *testing.T) {
	var out bytes.Buffer
	p := New(&out)
	p.Begin("counting")
	p.Tell(1234, 4321)
	p.Tell(1235, 4321) // too soon
	p.End()
	if got, want := out.String(), "counting: 29 %  1,234 of about 4,321\n"; got != want {
		t.Errorf("elsewhere it tells %q, want %q", got, want)
	}
	out.Reset()
	p = New(&out)
	p.terminal = true
	p.Begin("counting")
	p.Tell(3, 4)
	fmt.Fprintln(p, "a line of the log")
	p.End()
	bar := "[##################......]  75 %  3 of about 4"
	if got, want := out.String(), "counting:\n"+eraseLine+bar+eraseLine+"a line of the log\n"+bar+eraseLine; got != want {
		t.Errorf("on a terminal it tells %q, want %q", got, want)
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234", -123: "-123"} {
		if got := Grouped(n); got != want {
			t.Errorf("Grouped(%d) = %s", n, got)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 3 << 40: "3.0 TiB", 2048 << 40: "2048.0 TiB"} {
		if got := Sized(n); got != want {
			t.Errorf("Sized(%d) = %s", n, got)
		}
	}
}
