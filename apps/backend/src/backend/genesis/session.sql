-- name: load
-- Read the states of sessions by id. With the ids in a sub-select, the planner estimates the same number of rows
-- for a generic plan as for a custom plan, and so reuses the generic plan instead of planning every call.
-- The state is JSON, because PostgreSQL would parse the result again to return JSONB.
SELECT id, 'GENESIS_SESSION' AS aggregate_type, user_id AS owner,
    json_build_object('id', id, 'owner', user_id, 'novel_id', novel_id, 'status', status,
        'current_stage', current_stage, 'confirmed_data', confirmed_data, 'draft', draft,
        'feedback', feedback, 'erased', erased, 'guided_run', guided_run, 'version', version) AS state
FROM genesis_sessions WHERE id = ANY(ARRAY(SELECT unnest($1::uuid[])))

-- name: read
-- Read the states of sessions for a rebuild, as text.
WITH loaded AS (
-- include: load
)
SELECT id, state::text AS state FROM loaded

-- name: create
-- Insert the first snapshots of sessions. A JSON null becomes NULL. Only a rebuild passes created_at; else it is now().
INSERT INTO genesis_sessions
    (id, user_id, novel_id, status, current_stage, confirmed_data, draft, feedback, erased, guided_run, version, created_at)
SELECT (doc ->> 'id')::uuid, doc ->> 'owner', (doc ->> 'novel_id')::uuid, (doc ->> 'status')::genesis_status,
    (doc ->> 'current_stage')::genesis_stage, nullif(doc -> 'confirmed_data', 'null'),
    nullif(doc -> 'draft', 'null'), doc -> 'feedback', (doc ->> 'erased')::boolean,
    nullif(doc -> 'guided_run', 'null'), (doc ->> 'version')::int,
    coalesce((doc ->> 'created_at')::timestamptz, now())
FROM jsonb_array_elements($1::text::jsonb) AS doc
RETURNING id

-- name: advance
-- Update the snapshots that still have the expected version; lock the rows in the order of ids. A column that a
-- document omits is set to itself, which keeps its TOAST rows: a proposal is written only once. The documents of
-- commands omit `erased`, and therefore do not update an erased session; those of a rebuild contain `erased`.
-- The ids are an array, because the planner expects 100 rows of a function and would scan the whole table.
WITH given AS MATERIALIZED (SELECT doc, (doc ->> 'id')::uuid AS id FROM jsonb_array_elements($1::text::jsonb) AS doc)
UPDATE genesis_sessions AS session
SET user_id = coalesce(doc ->> 'owner', user_id),
    novel_id = CASE WHEN doc ? 'novel_id' THEN (doc ->> 'novel_id')::uuid ELSE novel_id END,
    status = coalesce((doc ->> 'status')::genesis_status, status),
    current_stage = coalesce((doc ->> 'current_stage')::genesis_stage, current_stage),
    confirmed_data = CASE WHEN doc ? 'confirmed_data' THEN nullif(doc -> 'confirmed_data', 'null')
        ELSE confirmed_data END,
    draft = CASE WHEN doc ? 'draft' THEN nullif(doc -> 'draft', 'null') ELSE draft END,
    feedback = coalesce(doc -> 'feedback', feedback), erased = coalesce((doc ->> 'erased')::boolean, erased),
    guided_run = CASE WHEN doc ? 'guided_run' THEN nullif(doc -> 'guided_run', 'null') ELSE guided_run END,
    version = (doc ->> 'version')::int
FROM (
    SELECT locked.id, doc
    FROM given JOIN genesis_sessions AS locked ON locked.id = given.id
    WHERE locked.id = ANY(ARRAY(SELECT id FROM given)) AND locked.version = (doc ->> 'expected_version')::int
        AND (NOT locked.erased OR doc ? 'erased')
    ORDER BY locked.id
    FOR NO KEY UPDATE OF locked
) AS next
WHERE session.id = next.id
RETURNING session.id

-- name: list_first
-- Read the first page of a writer's sessions, newest first.
SELECT id, novel_id, user_id, status, current_stage, version, created_at, updated_at
FROM genesis_sessions WHERE user_id = $1
ORDER BY created_at DESC, id DESC
LIMIT $2

-- name: list_after
-- Read the next page: the writer's sessions that are older than the last session of the previous page.
SELECT id, novel_id, user_id, status, current_stage, version, created_at, updated_at
FROM genesis_sessions WHERE user_id = $1 AND (created_at, id) < ($2, $3)
ORDER BY created_at DESC, id DESC
LIMIT $4

-- name: without_events_page
-- Read the next snapshots without events whose id is above $1, in the order of ids.
SELECT session.id, session.version
FROM genesis_sessions AS session
WHERE session.id > $1 AND NOT EXISTS (
    SELECT FROM domain_events AS event
    WHERE event.aggregate_type = 'GENESIS_SESSION' AND event.aggregate_id = session.id::text
)
ORDER BY session.id
LIMIT $2

-- name: discard
-- Delete a snapshot that has no events, if it still has the expected version.
DELETE FROM genesis_sessions WHERE id = $1 AND version = $2
RETURNING id
