package archived

import (
	"context"
	"time"

	"snowlink/internal/link"
	"snowlink/internal/postgres"
	"snowlink/internal/redisstore"
	"snowlink/snowflake"
)

// archived is a record as the archive has it.
type archived struct {
	redisstore.Record
	// forget is when a link that is gone for good is forgotten, and its code free; zero for never.
	forget time.Time
}

func (a archived) forgotten(now time.Time) bool { return !a.forget.IsZero() && !now.Before(a.forget) }

// answer is what the archive says of a code. The error wraps link.ErrNotFound, link.ErrUnreadable or
// link.ErrUnavailable.
type answer struct {
	archived
	err error
}

// archive is the rows of the archive as records.
type archive struct {
	hot    *redisstore.Store // which reads records
	shards *postgres.Shards
}

// get asks for the codes, in order.
func (a *archive) get(ctx context.Context, codes []string) []answer {
	if len(codes) == 0 {
		return nil
	}
	answers := make([]answer, len(codes))
	rows, errs := a.shards.Get(ctx, codes)
	for i, row := range rows {
		if answers[i].err = errs[i]; errs[i] == nil {
			answers[i].Record, answers[i].err = a.hot.Record(codes[i], row.Record)
			answers[i].forget = forget(row)
		}
	}
	return answers
}

// forget is when the code of a row is free again; zero for never.
func forget(row postgres.Row) time.Time {
	switch {
	case !row.Deleted.IsZero():
		return row.Deleted.Add(link.Grace)
	case !row.Expires.IsZero():
		return row.Expires.Add(link.Grace)
	}
	return time.Time{}
}

// rowOf is the row of a record that is archived now.
func rowOf(r redisstore.Record, now time.Time) postgres.Row {
	row := postgres.Row{Code: r.Code, Number: r.Number, Record: r.Text, Owner: r.Owner, Created: redisstore.CreatedAt(r.Code, r.Link)}
	if row.Created.IsZero() {
		row.Created = time.Unix(0, 0)
	}
	if r.Options != nil {
		row.Expires, row.Disabled, row.Title, row.Tags = r.Expires, r.Disabled, r.Title, r.Tags
		if r.Deleted {
			row.Deleted = now
		}
	}
	return row
}

// mintedAt is the time in a code that looks minted.
func mintedAt(code string) (at time.Time, ok bool) {
	if !link.MintedShape(code) {
		return time.Time{}, false
	}
	id, err := snowflake.Decode(code)
	return id.Time(), err == nil
}

// mayBeMinted reports whether the code was not minted but may be yet. Redis must not forget it before
// that: no create of a minted code asks the archive.
func mayBeMinted(r redisstore.Record, now time.Time) bool {
	at, ok := mintedAt(r.Code)
	if !ok || r.Options == nil {
		return false
	}
	// Clocks differ, and a tombstone does not say whether the code was chosen.
	return r.Chosen() && at.After(now.Add(-link.MintedLately)) || r.Deleted && at.After(now)
}
