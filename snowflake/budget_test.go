//go:build !race

package snowflake_test

import (
	"strings"
	"testing"

	"snowlink/snowflake"
)

// The redirect path decodes every code it is asked for.
func TestDecodeBudget(t *testing.T) {
	for name, code := range map[string]string{
		"a code":     snowflake.Encode(115394839571988480),
		"too long":   strings.Repeat("1", 100),
		"not a code": "favicon.ico",
	} {
		if n := testing.AllocsPerRun(1000, func() { snowflake.Decode(code) }); n != 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
}
