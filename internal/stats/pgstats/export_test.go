package pgstats

import (
	"context"
	"time"

	"snowlink/internal/postgres"
)

// At is Options with another clock.
func (o Options) At(now func() time.Time) Options {
	o.now = now
	return o
}

// TendOnce does all that is to be done now.
func (s *Store) TendOnce(ctx context.Context) error {
	for _, db := range s.shards.DBs() {
		s.mergeHeaps(ctx, db)
		for _, step := range []func(context.Context, *postgres.DB) (bool, error){s.mergeOver, s.rollUp, s.forgetProducers} {
			for more := true; more; {
				var err error
				if more, err = step(ctx, db); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
