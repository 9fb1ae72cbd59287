package httpapi

import (
	"bufio"
	"strings"
	"testing"
)

// BenchmarkCSVRow measures a row with as many columns as there may be.
func BenchmarkCSVRow(b *testing.B) {
	rows := strings.NewReader("longurl" + strings.Repeat(",shorturl", maxColumns-1) + "\n")
	c, err := newCSVRows(bufio.NewReader(rows))
	if err != nil {
		b.Fatal(err)
	}
	row := "a" + strings.Repeat(",abc", maxColumns-1) + "\n"
	b.ReportAllocs()
	for b.Loop() {
		rows.Reset(row)
		c.budget.r = rows
		var r importRequest
		if _, err := c.read(&r); err != nil {
			b.Fatal(err)
		}
	}
}
