package pgstats_test

import (
	"context"
	"testing"

	"snowlink/internal/clicks"
	"snowlink/internal/stats"
	"snowlink/internal/stats/pgstats"
)

// tending is a store that is tended after each Apply.
type tending struct {
	*pgstats.Store
	t *testing.T
}

func (s tending) Apply(ctx context.Context, batches []clicks.Batch) (stats.Applied, error) {
	a, err := s.Store.Apply(ctx, batches)
	if err == nil {
		if err := s.TendOnce(s.t.Context()); err != nil {
			s.t.Error(err)
		}
	}
	return a, err
}
