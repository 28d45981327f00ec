-- name: create_effects
-- Create the table into which every handler inserts one row.
CREATE TABLE bench_effects (
    event_id UUID PRIMARY KEY,
    key TEXT NOT NULL,
    handled_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
)

-- name: grant_effects
-- Let the services' role use the table.
GRANT SELECT, INSERT ON bench_effects TO PUBLIC

-- name: empty_effects
-- Delete the effects of the previous contestant.
TRUNCATE bench_effects

-- name: insert_effect
-- The effect of one event: $1 is its id, $2 its key.
INSERT INTO bench_effects (event_id, key) VALUES ($1, $2)

-- name: count_effects
-- Count the effects on other keys than $1.
SELECT count(*) AS effects FROM bench_effects WHERE key <> $1

-- name: rate
-- Return the effects per second on other keys than $1, without the first tenth, during which contestants prepare
-- statements and open connections.
WITH effect AS MATERIALIZED (
    SELECT handled_at, row_number() OVER (ORDER BY handled_at) AS place, count(*) OVER () AS effects
    FROM bench_effects WHERE key <> $1
)
SELECT (count(*) - 1) / extract(epoch FROM max(handled_at) - min(handled_at))::float8 AS per_s
FROM effect WHERE place * 10 > effects
