package archived

import (
	"context"

	"snowlink/internal/postgres"
	"snowlink/internal/redisstore"
)

// Prepare makes Redis and the databases one archive, or finds that they are: it migrates the
// databases, has them know which shard they are, and has Redis remember that it is in front of them.
// Until it has succeeded once, nothing is archived. It may be called again, also by several at once.
//
// The error wraps redisstore.ErrPolicy or postgres.ErrShard if the configuration is wrong, and
// otherwise link.ErrUnavailable.
func Prepare(ctx context.Context, hot *redisstore.Store, shards *postgres.Shards) error {
	if err := hot.CheckPolicy(ctx); err != nil {
		return err
	}
	if err := shards.Migrate(ctx); err != nil {
		return err
	}
	if err := shards.Check(ctx); err != nil {
		return err
	}
	return hot.RememberArchive(ctx)
}
