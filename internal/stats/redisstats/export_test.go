package redisstats

import (
	"context"
	"time"
)

// Settle does what Tend does with a day once it is long over.
func (s *Store) Settle(ctx context.Context, day time.Time) error { return s.settle(ctx, dayOf(day)) }
