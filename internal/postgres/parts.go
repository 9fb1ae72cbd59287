package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/pressly/goose/v3/lock"

	"snowlink/internal/link"
)

// A Search is how a database finds the words of a search.
type Search string

const (
	// WholeWords is that of a database without pg_trgm, or whose locale knows no letters but those of
	// ASCII: pg_trgm would take all others for punctuation.
	WholeWords Search = "words"
	// Unindexed is that of one with pg_trgm, whose index for parts of words is still to be built.
	Unindexed Search = "unindexed"
	// Parts is that of one with this index.
	Parts Search = "parts"
)

// partsLock is the number of the advisory lock under which the index is built. It is not that of
// migrations: a start waits for those, and must not wait for this.
const partsLock = 6_130_994_254_087_116_194

// searchOf says what pg_trgm's schema is, quoted, or "" if there is none; whether there is an index,
// and whether that was built to its end.
const searchOf = `
SELECT coalesce((SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
		WHERE extname = 'pg_trgm' AND lower('Ä') = 'ä'), ''),
	indisvalid IS NOT NULL, coalesce(indisvalid, false)
FROM (SELECT) AS always LEFT JOIN pg_index ON indexrelid = to_regclass('links_by_part')`

// partsFunction is the text in which parts of words are looked for: what links_words has, as it is.
//
// The collation of the code, which knows no letters but those of ASCII, would otherwise be that of all.
// PL/pgSQL evaluates it in 2 us; a function in SQL takes 5 us, since it is not inlined
// (1,000,000 links, PostgreSQL 15, two busy cores, 2026-11-25). An index needs it to stay as it is:
// a text that differs takes a function and an index with other names.
const partsFunction = `
CREATE OR REPLACE FUNCTION links_text(code text, record text, title text, tags text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 500 AS $$
BEGIN
	RETURN lower((code || ' ' || substr(split_part(record, E'\n', 1), position('://' IN record) + 3) || ' ' ||
		coalesce(title, '') || ' ' || coalesce(array_to_string(tags, ' '), '')) COLLATE "default");
END
$$`

// Search says how the database finds words. The error wraps [link.ErrUnavailable].
func (db *DB) Search(ctx context.Context) (found Search, err error) {
	err = db.do(ctx, "search", readTime, func(ctx context.Context) error {
		var schema string
		var there, valid bool
		err := db.pool.QueryRow(ctx, searchOf).Scan(&schema, &there, &valid)
		found = search(schema, valid)
		return err
	})
	return found, err
}

func search(schema string, valid bool) Search {
	switch {
	case valid:
		return Parts
	case schema != "":
		return Unindexed
	}
	return WholeWords
}

// FindsParts reports whether all databases find parts of words. If only some did, the same link would
// be found or not, depending on its home. The error wraps [link.ErrUnavailable].
func (s *Shards) FindsParts(ctx context.Context) (bool, error) {
	parts := make([]bool, len(s.dbs))
	err := s.each(func(db *DB) error {
		found, err := db.Search(ctx)
		parts[db.shard] = found == Parts
		return err
	})
	for _, p := range parts {
		if !p {
			return false, err
		}
	}
	return true, err
}

// IndexParts builds the index for parts of words if the database has pg_trgm, and says how it finds
// words then. Links are read and written meanwhile. It takes minutes for millions of links, without a
// limit, and waits for others who build it. What is left of a build that was broken off is built anew.
// The error wraps [link.ErrUnavailable].
func (db *DB) IndexParts(ctx context.Context) (Search, error) {
	found, err := db.indexParts(ctx)
	if err != nil {
		return "", fmt.Errorf("archive shard %d: index parts of words: %w: %w", db.shard+1, link.ErrUnavailable, err)
	}
	return found, nil
}

func (db *DB) indexParts(ctx context.Context) (Search, error) {
	if found, err := db.Search(ctx); err != nil || found == WholeWords {
		return found, err
	}
	pool := db.unlimited()
	defer pool.Close()
	// One session has the lock and builds. So the lock lasts as long as the build, even if we die and
	// PostgreSQL does not notice.
	conn, err := pool.Conn(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(partsLock), lock.WithLockTimeout(1, 36000))
	if err != nil {
		return "", err
	}
	if err := locker.SessionLock(ctx, conn); err != nil { // the end of the session unlocks it
		return "", err
	}
	var schema string
	var there, valid bool
	if err := conn.QueryRowContext(ctx, searchOf).Scan(&schema, &there, &valid); err != nil {
		return "", err
	}
	var todo []string
	switch {
	case valid:
	case schema == "":
		return WholeWords, nil
	case there:
		todo = append(todo, "DROP INDEX CONCURRENTLY links_by_part")
		fallthrough
	default:
		todo = append(todo, partsFunction,
			"CREATE INDEX CONCURRENTLY links_by_part ON links USING gin (links_text(code, record, title, tags) "+schema+".gin_trgm_ops)")
	}
	// Without statistics of its own the index is taken for what it is not. Whoever built it may have
	// been broken off before.
	for _, sql := range append(todo, "ANALYZE links") {
		if _, err := conn.ExecContext(ctx, sql); err != nil {
			return "", err
		}
	}
	return Parts, nil
}

// wordConditions adds those of the words of a search.
func (c *conditions) wordConditions(q link.Query) {
	var whole []string
	for _, word := range link.Words(q.Words) {
		if q.Parts && link.IsPart(word) { // letters and digits: none of them means anything to LIKE
			c.add(&c.found, "links_text(code, record, title, tags) LIKE ?", "%"+word+"%")
		} else {
			whole = append(whole, word)
		}
	}
	if c.parts = len(whole) == 0 && len(c.found) > 0; !c.parts { // no word finds nothing
		c.add(&c.found, "links_words(code, record, title, tags) @@ plainto_tsquery('simple'::regconfig, ?)", strings.Join(whole, " "))
	}
}
