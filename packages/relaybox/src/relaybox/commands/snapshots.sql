-- name: load
-- Load snapshots of aggregates that have no table of their own.
SELECT id, owner, state, aggregate_type FROM aggregate_snapshots WHERE id = ANY($1::uuid[])

-- name: create
-- Insert the first snapshots of new aggregates.
INSERT INTO aggregate_snapshots (id, aggregate_type, owner, state, version)
SELECT next.id, next.aggregate_type, next.owner, next.state, next.version
FROM (
    SELECT (doc ->> 'id')::uuid AS id, doc ->> 'aggregate_type' AS aggregate_type, doc ->> 'owner' AS owner,
        doc - 'expected_version' - 'aggregate_type' AS state, (doc ->> 'version')::int AS version
    FROM jsonb_array_elements($1::text::jsonb) AS doc
) AS next
RETURNING id

-- name: advance
-- Update snapshots whose version is expected_version; lock them in the order of ids. Fields that are not in the
-- document keep their values. The ids are also given as an array: for the join alone the planner, which estimates 100
-- rows for jsonb_array_elements(), would read the whole table.
WITH given AS MATERIALIZED (SELECT doc, (doc ->> 'id')::uuid AS id FROM jsonb_array_elements($1::text::jsonb) AS doc)
UPDATE aggregate_snapshots AS snapshot SET state = next.state, version = next.version
FROM (
    SELECT held.id, held.state || (doc - 'expected_version' - 'aggregate_type') AS state,
        (doc ->> 'version')::int AS version
    FROM given JOIN aggregate_snapshots AS held ON held.id = given.id
    WHERE held.id = ANY(ARRAY(SELECT id FROM given)) AND held.version = (doc ->> 'expected_version')::int
    ORDER BY held.id
    FOR NO KEY UPDATE OF held
) AS next
WHERE snapshot.id = next.id
RETURNING snapshot.id
