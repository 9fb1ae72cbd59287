-- +goose Up

-- Clicks, added up by scope and day. A scope is a link, an owner, a tag, an owner's tag, or everything:
-- internal/stats/pgstats says how it is written, and what the bytes of counts, visitors and links are.
-- A day is one of UTC, as days since 1970-01-01. people and bots are the clicks of the whole row.

-- What was applied and not yet merged into a row of its scope and day: one row for each scope and day
-- of an Apply.
CREATE TABLE clicks_new (
	id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	people   bigint  NOT NULL,
	bots     bigint  NOT NULL,
	day      integer NOT NULL,
	scope    bytea   NOT NULL,
	counts   bytea   NOT NULL, -- by hour and facts
	visitors bytea,
	links    bytea             -- of scopes with several links: the most clicked ones
);
CREATE INDEX clicks_new_by_scope ON clicks_new (scope, day);
CREATE INDEX clicks_new_by_day ON clicks_new (day, id);

-- The same, with one row for a scope and day.
CREATE TABLE clicks_hours (
	people   bigint  NOT NULL,
	bots     bigint  NOT NULL,
	day      integer NOT NULL,
	scope    bytea   NOT NULL,
	counts   bytea   NOT NULL,
	visitors bytea,
	links    bytea,
	PRIMARY KEY (scope, day) INCLUDE (people, bots) -- totals of many links are read from the index alone
);
CREATE INDEX clicks_hours_by_day ON clicks_hours (day);

-- What is older than CLICKS_KEEP: by day and single dimensions. A row has a month, which is
-- 12 * year + month - 1.
CREATE TABLE clicks_days (
	people   bigint  NOT NULL,
	bots     bigint  NOT NULL,
	month    integer NOT NULL,
	scope    bytea   NOT NULL,
	counts   bytea   NOT NULL, -- by day and value
	visitors bytea,            -- how many, by day
	links    bytea,
	PRIMARY KEY (scope, month) INCLUDE (people, bots)
);

-- What was applied of each producer: the number last, and of the 64 before it those whose bit is set.
CREATE TABLE clicks_producers (
	last     bigint      NOT NULL,
	mask     bigint      NOT NULL,
	seen     timestamptz NOT NULL,
	ordered  boolean     NOT NULL, -- all below last were applied
	producer bytea       PRIMARY KEY
) WITH (fillfactor = 50); -- each Apply updates its rows in place

-- Its only row is locked by whoever merges, rolls up or forgets.
CREATE TABLE clicks_tending (
	one boolean PRIMARY KEY DEFAULT true CHECK (one)
);
INSERT INTO clicks_tending DEFAULT VALUES;
