-- name: load
-- Sessions as the aggregate reads them. With the ids from a sub-select the planner assumes as many as it does
-- for a parameter, and keeps its plan instead of making one for every call; JSON, not JSONB, is printed once.
SELECT id, 'GENESIS_SESSION' AS aggregate_type, user_id AS owner,
    json_build_object('id', id, 'owner', user_id, 'novel_id', novel_id, 'status', status,
        'current_stage', current_stage, 'confirmed_data', confirmed_data, 'draft', draft,
        'feedback', feedback, 'erased', erased, 'version', version) AS state
FROM genesis_sessions WHERE id = ANY(ARRAY(SELECT unnest($1::uuid[])))

-- name: read
-- Sessions for a rebuild, without the commands that are pending for them.
WITH loaded AS (
-- include: load
)
SELECT id, state::text AS state FROM loaded

-- name: create
-- The first snapshot of new sessions. A JSON null is no document: it becomes the column's NULL.
-- Only a rebuild knows an earlier created_at than now.
INSERT INTO genesis_sessions
    (id, user_id, novel_id, status, current_stage, confirmed_data, draft, feedback, erased, version, created_at)
SELECT (doc ->> 'id')::uuid, doc ->> 'owner', (doc ->> 'novel_id')::uuid, (doc ->> 'status')::genesis_status,
    (doc ->> 'current_stage')::genesis_stage, nullif(doc -> 'confirmed_data', 'null'),
    nullif(doc -> 'draft', 'null'), doc -> 'feedback', (doc ->> 'erased')::boolean, (doc ->> 'version')::int,
    coalesce((doc ->> 'created_at')::timestamptz, now())
FROM jsonb_array_elements($1::text::jsonb) AS doc
RETURNING id

-- name: advance
-- The next snapshots, only where nobody else moved the version; locked in the order of ids. What a
-- document leaves out stays: a column set to itself keeps its TOAST rows, so a proposal is written once.
-- A command never writes `erased`, so one that was decided before an erasure committed finds no row; a rebuild does.
-- The ids as an array keep the planner, which takes every function for 100 rows, from reading all sessions.
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
    version = (doc ->> 'version')::int
FROM (
    SELECT held.id, doc
    FROM given JOIN genesis_sessions AS held ON held.id = given.id
    WHERE held.id = ANY(ARRAY(SELECT id FROM given)) AND held.version = (doc ->> 'expected_version')::int
        AND (NOT held.erased OR doc ? 'erased')
    ORDER BY held.id
    FOR NO KEY UPDATE OF held
) AS next
WHERE session.id = next.id
RETURNING session.id

-- name: list_first
-- A writer's newest sessions: the first page.
SELECT id, novel_id, user_id, status, current_stage, version, created_at, updated_at
FROM genesis_sessions WHERE user_id = $1
ORDER BY created_at DESC, id DESC
LIMIT $2

-- name: list_after
-- A writer's sessions older than the last one of the page before.
SELECT id, novel_id, user_id, status, current_stage, version, created_at, updated_at
FROM genesis_sessions WHERE user_id = $1 AND (created_at, id) < ($2, $3)
ORDER BY created_at DESC, id DESC
LIMIT $4

-- name: without_events_page
-- Snapshots that no event speaks of, in the order of their ids; a page after an id.
SELECT session.id, session.version
FROM genesis_sessions AS session
WHERE session.id > $1 AND NOT EXISTS (
    SELECT FROM domain_events AS event
    WHERE event.aggregate_type = 'GENESIS_SESSION' AND event.aggregate_id = session.id::text
)
ORDER BY session.id
LIMIT $2

-- name: discard
-- Remove a snapshot that no event speaks of, unless it moved meanwhile.
DELETE FROM genesis_sessions WHERE id = $1 AND version = $2
RETURNING id
