-- +goose Up

-- A link as Redis had it when it was archived. Columns of eight bytes come first, so that no row has
-- gaps, and what most links have not is NULL, which takes no room. The target is in the record alone.
CREATE TABLE links (
	number   bigint      NOT NULL, -- of the record: each change of the link makes it one more
	created  timestamptz NOT NULL,
	expires  timestamptz,
	deleted  timestamptz,          -- when, and so how long the code is kept from others
	disabled boolean     NOT NULL,
	code     text        COLLATE "C" PRIMARY KEY,
	owner    text        COLLATE "C" NOT NULL,
	record   text        NOT NULL, -- exactly the value in Redis: the target, then a line of options
	title    text,
	tags     text[]
);

-- Lists, newest first: read backwards. Deleted links are in none of them, however many there are.
CREATE INDEX links_by_owner ON links (owner, created, code) WHERE deleted IS NULL;
CREATE INDEX links_by_time ON links (created, code) WHERE deleted IS NULL;

-- What is gone or disabled is rare among all.
CREATE INDEX links_closed ON links (created, code)
	WHERE disabled OR deleted IS NOT NULL OR expires IS NOT NULL;

CREATE INDEX links_by_tag ON links USING gin (tags) WHERE tags IS NOT NULL;

-- The words of a link. Punctuation separates words, in a URL too, which PostgreSQL's parser would keep
-- in one piece; a search does the same to what is looked for. The scheme of the target is left out: it
-- would be a word of every link.
-- array_to_string may depend on settings for other types than text, and so is not declared immutable.
-- It takes some 10 us, which PostgreSQL must know, or it would rather compute it than look it up.
-- +goose StatementBegin
CREATE FUNCTION links_words(code text, record text, title text, tags text[]) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 500 AS $$
	SELECT to_tsvector('simple'::regconfig, translate(
		code || ' ' || substr(split_part(record, E'\n', 1), position('://' IN record) + 3) || ' ' ||
			coalesce(title, '') || ' ' || coalesce(array_to_string(tags, ' '), ''),
		'!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~', '                                '))
$$;
-- +goose StatementEnd

CREATE INDEX links_by_word ON links USING gin (links_words(code, record, title, tags));

-- Which of how many databases this one is. It has one row, once a backend has met it.
CREATE TABLE shard (
	one    boolean PRIMARY KEY DEFAULT true CHECK (one),
	number integer NOT NULL, -- from 1
	total  integer NOT NULL,
	before integer           -- how many there were, while links that came home elsewhere are still here
);
