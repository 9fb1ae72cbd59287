package snowflake_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"snowlink/snowflake"
)

func TestEncode(t *testing.T) {
	for _, tt := range []struct {
		id   snowflake.ID
		code string
	}{
		{0, "0"},
		{9, "9"},
		{10, "A"},
		{35, "Z"},
		{36, "a"},
		{61, "z"},
		{62, "10"},
		{62*62 - 1, "zz"},
		{839299365868340223, "zzzzzzzzzz"}, // 62^10 - 1
		{839299365868340224, "10000000000"},
		{math.MaxInt64, "AzL8n0Y58m7"},
	} {
		if got := snowflake.Encode(tt.id); got != tt.code {
			t.Errorf("Encode(%d) = %q, want %q", tt.id, got, tt.code)
		}
		if got, err := snowflake.Decode(tt.code); got != tt.id || err != nil {
			t.Errorf("Decode(%q) = %d, %v, want %d", tt.code, got, err, tt.id)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, code := range map[string]string{
		"empty":                    "",
		"leading zero":             "01",
		"zeros":                    "00",
		"plus sign":                "+1",
		"minus sign":               "-1",
		"underscore":               "1_0",
		"space before":             " 1",
		"space after":              "1 ",
		"line break after":         "1\n",
		"NUL":                      "1\x00",
		"not ASCII":                "é",
		"fullwidth digit":          "１",
		"invalid UTF-8":            "\xff",
		"one past 63 bits":         "AzL8n0Y58m8",
		"64 bits":                  "LygHa16AHYF", // 2^64 - 1
		"one past 64 bits":         "LygHa16AHYG", // wraps around to 0
		"wraps around to a 63-bit": "LygHa16AHZH",
		"highest of 11 characters": "zzzzzzzzzzz",
		"12 characters":            "100000000000",
		"very long":                strings.Repeat("1", 1<<20),
		"code of a negative ID":    snowflake.Encode(-1),
	} {
		t.Run(name, func(t *testing.T) {
			if id, err := snowflake.Decode(code); !errors.Is(err, snowflake.ErrInvalidCode) || id != 0 {
				t.Errorf("got %d, %v, want 0, ErrInvalidCode", id, err)
			}
		})
	}
}

func TestCodeLength(t *testing.T) {
	for _, tt := range []struct {
		name string
		id   snowflake.ID
		want int
	}{
		{"last before 10 characters", lastOf(parseTime(t, "2026-02-07T08:31:32.938Z")), 9},
		{"first of 10 characters", firstOf(parseTime(t, "2026-02-07T08:31:32.940Z")), 10},
		{"new year 2032", lastOf(parseTime(t, "2032-01-01T00:00:00Z")), 10},
		{"last of 10 characters", lastOf(parseTime(t, "2032-05-05T00:36:02.250Z")), 10},
		{"first of 11 characters", firstOf(parseTime(t, "2032-05-05T00:36:02.252Z")), 11},
		{"last ever", lastOf(parseTime(t, "2095-09-07T15:47:35.551Z")), 11},
	} {
		if code := snowflake.Encode(tt.id); len(code) != tt.want {
			t.Errorf("%s: %s has %d characters, want %d", tt.name, code, len(code), tt.want)
		}
	}
}

func TestCodesOfOneLengthSortAsIDs(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		a := snowflake.ID(rng.Int64() >> rng.IntN(63))
		b := snowflake.ID(rng.Int64() >> rng.IntN(63))
		if rng.IntN(2) == 0 { // neighbours, too, which differ in the last digits only
			b = max(a-snowflake.ID(rng.IntN(100)), 0)
		}
		x, y := snowflake.Encode(a), snowflake.Encode(b)
		if len(x) == len(y) && (x < y) != (a < b) {
			t.Fatalf("%d is %s and %d is %s", a, x, b, y)
		}
	}
}

func FuzzEncode(f *testing.F) {
	for _, id := range []int64{0, 1, 61, 62, 839299365868340223, 839299365868340224, math.MaxInt64, -1, math.MinInt64} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, n int64) {
		id := snowflake.ID(n)
		code := snowflake.Encode(id)
		got, err := snowflake.Decode(code)
		if id < 0 {
			if err == nil {
				t.Fatalf("Decode(Encode(%d)) = %d", id, got)
			}
			return
		}
		if got != id || err != nil {
			t.Fatalf("Decode(Encode(%d)) = %d, %v", id, got, err)
		}
		if strings.Trim(code, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") != "" || len(code) > 11 {
			t.Fatalf("Encode(%d) = %q", id, code)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, code := range []string{"", "0", "00", "zzzzzzzzzz", "AzL8n0Y58m7", "AzL8n0Y58m8", "LygHa16AHYG", "-1", "\xff"} {
		f.Add(code)
	}
	f.Fuzz(func(t *testing.T, code string) {
		id, err := snowflake.Decode(code)
		if err != nil {
			if !errors.Is(err, snowflake.ErrInvalidCode) {
				t.Fatalf("Decode(%q): %v", code, err)
			}
			return
		}
		if got := snowflake.Encode(id); id < 0 || got != code {
			t.Fatalf("Decode(%q) = %d, which encodes to %q", code, id, got)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	for b.Loop() {
		snowflake.Encode(115394839571988480)
	}
}

func BenchmarkDecode(b *testing.B) {
	code := snowflake.Encode(115394839571988480)
	for b.Loop() {
		if _, err := snowflake.Decode(code); err != nil {
			b.Fatal(err)
		}
	}
}
