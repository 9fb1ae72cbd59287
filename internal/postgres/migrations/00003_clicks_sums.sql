-- +goose Up

-- What many questions need no more of than this, and so need not read counts: how many people clicked, the
-- clicks by hour without facts, and those of the whole day by each dimension alone, and by facts. They are
-- null where counts are about as short, and in older rows.
ALTER TABLE clicks_hours
	ADD COLUMN visited integer,
	ADD COLUMN hours   bytea,
	ADD COLUMN singles bytea,
	ADD COLUMN whole   bytea;
