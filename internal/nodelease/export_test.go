package nodelease

import (
	"time"

	"snowlink/snowflake"
)

// SetAhead sets the clocks of generators that are made from now on ahead of the wall clock by d. A
// generator's is ahead after the wall clock was set back under a running process.
func (l *Lease) SetAhead(d time.Duration) {
	newGenerator := l.newGenerator
	l.newGenerator = func(node int) (func() snowflake.ID, error) {
		next, err := newGenerator(node)
		return func() snowflake.ID { return next() + snowflake.ID(d.Milliseconds())<<22 }, err
	}
}
