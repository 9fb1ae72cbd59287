package postgres

import "context"

// URL is where the database is.
func (db *DB) URL() string { return db.pool.Config().ConnString() }

// Grow is the beginning of a Move.
func (s *Shards) Grow(ctx context.Context) error { return s.grow(ctx) }

// Exec executes a statement, for as long as it takes.
func (db *DB) Exec(ctx context.Context, sql string) error {
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, "SET statement_timeout = 0"); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return err
}

// CountBy is Count with as many rows a query.
func (db *DB) CountBy(ctx context.Context, most int64) (int64, error) { return db.count(ctx, most) }

// QueryRow scans the one row of a query.
func (db *DB) QueryRow(ctx context.Context, into any, sql string) error {
	return db.pool.QueryRow(ctx, sql).Scan(into)
}
