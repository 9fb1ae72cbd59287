package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"snowlink/internal/link"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrationLock is the number of the advisory lock under which a database is migrated. It was drawn at
// random and must not change: versions of us that use different ones migrate at the same time.
const migrationLock = 6_130_994_254_087_116_193

// Migrate brings the schema up to date. Whoever else does so at that time is waited for, until ctx
// ends. Each migration is a transaction of its own and is remembered in goose_db_version: one that was
// broken off is done again. A schema that is newer than we know stays as it is. There is no limit on
// the time of a statement. The error wraps [link.ErrUnavailable].
func (db *DB) Migrate(ctx context.Context) error {
	if err := db.migrate(ctx); err != nil {
		return fmt.Errorf("archive shard %d: migrate: %w: %w", db.shard+1, link.ErrUnavailable, err)
	}
	return nil
}

func (db *DB) migrate(ctx context.Context) error {
	pool, provider, err := db.provider()
	if err != nil {
		return err
	}
	defer pool.Close()
	_, err = provider.Up(ctx)
	return err
}

// Version returns the version of the schema, 0 being none, and the newest that we know. The error wraps
// [link.ErrUnavailable].
func (db *DB) Version(ctx context.Context) (version, newest int64, err error) {
	pool, provider, err := db.provider()
	if err == nil {
		defer pool.Close()
		version, newest, err = provider.GetVersions(ctx)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("archive shard %d: version: %w: %w", db.shard+1, link.ErrUnavailable, err)
	}
	return version, newest, nil
}

// unlimited opens connections without a limit on the time of a statement: an index on many links takes
// its time.
func (db *DB) unlimited() *sql.DB {
	config := db.pool.Config().ConnConfig
	config.RuntimeParams["statement_timeout"] = "0"
	return stdlib.OpenDB(*config)
}

func (db *DB) provider() (*sql.DB, *goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, nil, err
	}
	// It asks for the lock every second, as long as the context lasts: ten hours stand for that.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(migrationLock), lock.WithLockTimeout(1, 36000))
	if err != nil {
		return nil, nil, err
	}
	pool := db.unlimited()
	provider, err := goose.NewProvider(goose.DialectPostgres, pool, files,
		goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true), goose.WithSlog(slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, nil, errors.Join(err, pool.Close())
	}
	return pool, provider, nil
}

// ErrShard says that a database is another shard than ARCHIVE_URL makes it: the order or the number of
// the addresses changed, a database was replaced by an empty one, or rows still move and
// ARCHIVE_SHARDS_BEFORE does not say so. Its text has both.
var ErrShard = errors.New("the archive is not what ARCHIVE_URL says")

// identity is which of how many databases one says that it is, from 1. The zero value is none yet.
type identity struct{ number, total int }

// said is what a database says of itself.
type said struct {
	identity
	before int  // how many there were when rows began to move from it; 0 if none move
	used   bool // it has links
}

func (db *DB) said(ctx context.Context) (is said, err error) {
	err = db.do(ctx, "identity", readTime, func(ctx context.Context) error {
		err := db.pool.QueryRow(ctx, "SELECT number, total, coalesce(before, 0) FROM shard").Scan(&is.number, &is.total, &is.before)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		return db.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM links)").Scan(&is.used)
	})
	return is, err
}

// become makes the database a shard, unless another backend made it one.
func (db *DB) become(ctx context.Context, id identity) error {
	return db.do(ctx, "identity", readTime, func(ctx context.Context) error {
		_, err := db.pool.Exec(ctx, "INSERT INTO shard (number, total) VALUES ($1, $2) ON CONFLICT (one) DO NOTHING", id.number, id.total)
		return err // whether it was us shows when it is read again
	})
}

// grow has the database know that there are more, if it does not yet: rows begin to move. The lock lets
// all upserts that were begun end first. No other one comes to an old home then.
func (db *DB) grow(ctx context.Context, before, total int) error {
	return db.do(ctx, "identity", writeTime, func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, db.pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "LOCK TABLE links IN SHARE MODE"); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "UPDATE shard SET total = $1, before = total WHERE total = $2", total, before)
			return err
		})
	})
}

// movedHome has the database remember that all rows it has are at home, which began to move when there
// were before databases.
func (db *DB) movedHome(ctx context.Context, before int) error {
	return db.do(ctx, "identity", readTime, func(ctx context.Context) error {
		_, err := db.pool.Exec(ctx, "UPDATE shard SET before = NULL WHERE before = $1", before)
		return err
	})
}
