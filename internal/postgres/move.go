package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"snowlink/internal/deadline"
	"snowlink/internal/link"
)

// moveMost is how many rows a move reads at a time.
const moveMost = 500

// examplesMost bounds Moved.Examples.
const examplesMost = 20

// Moved is what a Move has done so far.
type Moved struct {
	// Looked is how many rows it has looked at. Rows is about how many there are, by the
	// estimates of PostgreSQL.
	Looked, Rows int64
	// Moved is how many rows left their old homes.
	Moved int64
	// Stuck is how many stay there, since their home has another link under the same minted code.
	// Examples are the first of them.
	Stuck    int64
	Examples []string
}

// Move brings every row home that is still where it was before databases were added. When it
// succeeds, the databases remember that, and [Shards.Check] no longer asks for the number of before.
// It calls progress, unless that is nil, after each page.
//
// It may run while everything else does, also several at once, and be broken off and run again. It
// remembers no place to go on from: it moves 9,000 rows a second and looks at 195,000
// (BenchmarkMove, PostgreSQL 15 without fsync, two busy cores, 2026-11-25). It has one statement under
// way in the whole archive, and rests as long as that took: visitors keep most of each database.
//
// The error wraps [link.ErrUnavailable], or is that of ctx.
func (s *Shards) Move(ctx context.Context, progress func(Moved)) (m Moved, err error) {
	if progress == nil {
		progress = func(Moved) {}
	}
	old := s.dbs[:s.before]
	if err := s.grow(ctx); err != nil { // from here on no row comes to an old home
		return m, err
	}
	for _, db := range old {
		stat, err := db.Stat(ctx)
		if err != nil {
			return m, err
		}
		m.Rows += stat.Rows
	}
	for _, db := range old {
		if err := s.moveFrom(ctx, db, &m, progress); err != nil {
			return m, err
		}
	}
	if m.Stuck > 0 {
		return m, nil
	}
	return m, s.each(func(db *DB) error { return db.movedHome(ctx, s.before) })
}

// grow has all databases know that there are more.
func (s *Shards) grow(ctx context.Context) error {
	err := s.each(func(db *DB) error {
		if db.shard >= s.before {
			return nil
		}
		return db.grow(ctx, s.before, len(s.dbs))
	})
	if err == nil {
		s.writeTo.Store(int64(len(s.dbs)))
	}
	return err
}

// moveFrom moves what a database has of others.
func (s *Shards) moveFrom(ctx context.Context, db *DB, m *Moved, progress func(Moved)) error {
	for after := ""; ; {
		began := time.Now()
		rows, err := db.Scan(ctx, after, moveMost)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return nil
		}
		after = rows[len(rows)-1].Code
		if err := s.moveSome(ctx, db, rows, m); err != nil {
			return err
		}
		m.Looked += int64(len(rows))
		progress(*m)
		if !deadline.Sleep(ctx, time.Since(began)) {
			return ctx.Err()
		}
	}
}

// moveSome moves those rows of a database that have their home elsewhere. What is at home first, is
// deleted last: a reader finds each row in one of the two.
func (s *Shards) moveSome(ctx context.Context, db *DB, rows []Row, m *Moved) error {
	away := make(map[*DB][]Row)
	for _, r := range rows {
		if to := s.Home(r.Code); to != db {
			away[to] = append(away[to], r)
		}
	}
	for to, rows := range away {
		var home, refused []Row
		var codes []string
		for i, err := range to.Upsert(ctx, rows) {
			switch {
			case err == nil:
				home = append(home, rows[i])
			case errors.Is(err, ErrRefused):
				refused, codes = append(refused, rows[i]), append(codes, rows[i].Code)
			default:
				return err
			}
		}
		if len(refused) > 0 { // they were changed since, or a move was broken off
			there, err := to.Get(ctx, codes)
			if err != nil {
				return err
			}
			for _, r := range refused {
				is, ok := there[r.Code]
				switch {
				case !ok:
					return fmt.Errorf("move %s: %w: its home refused it and does not have it", r.Code, link.ErrUnavailable)
				case is.Number > r.Number || is.Record == r.Record || r.Number > 0:
					// Of two that are different under one number, Redis lost one and the one at home
					// was written since.
					home = append(home, r)
				default: // two links as they were created: neither may be lost
					m.Stuck++
					if len(m.Examples) < examplesMost {
						m.Examples = append(m.Examples, r.Code)
					}
				}
			}
		}
		if len(home) == 0 {
			continue
		}
		n, err := db.Drop(ctx, home)
		m.Moved += n
		if err != nil {
			return fmt.Errorf("delete what was moved: %w", err)
		}
	}
	return nil
}
