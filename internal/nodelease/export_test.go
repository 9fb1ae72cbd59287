package nodelease

import (
	"time"

	"snowlink/snowflake"
)

// SetAhead lets the generators that are made from now on be ahead of the wall clock by d, as they
// are once that was set back under a running process.
func (l *Lease) SetAhead(d time.Duration) {
	newGenerator := l.newGenerator
	l.newGenerator = func(node int) (func() snowflake.ID, error) {
		next, err := newGenerator(node)
		return func() snowflake.ID { return next() + snowflake.ID(d.Milliseconds())<<22 }, err
	}
}
