-- name: load
-- Sessions as the aggregate reads them.
SELECT id, 'GENESIS_SESSION' AS aggregate_type, user_id AS owner,
    jsonb_build_object('id', id, 'owner', user_id, 'novel_id', novel_id, 'status', status,
        'current_stage', current_stage, 'confirmed_data', confirmed_data, 'draft', draft,
        'version', version) AS state
FROM genesis_sessions WHERE id = ANY($1::uuid[])

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
    (id, user_id, novel_id, status, current_stage, confirmed_data, draft, version, created_at)
SELECT (doc ->> 'id')::uuid, doc ->> 'owner', (doc ->> 'novel_id')::uuid, (doc ->> 'status')::genesis_status,
    (doc ->> 'current_stage')::genesis_stage, nullif(doc -> 'confirmed_data', 'null'),
    nullif(doc -> 'draft', 'null'), (doc ->> 'version')::int,
    coalesce((doc ->> 'created_at')::timestamptz, now())
FROM jsonb_array_elements($1::text::jsonb) AS doc
RETURNING id

-- name: advance
-- The next snapshots, only where nobody else moved the version; locked in the order of ids.
UPDATE genesis_sessions AS session
SET user_id = next.doc ->> 'owner', novel_id = (next.doc ->> 'novel_id')::uuid,
    status = (next.doc ->> 'status')::genesis_status,
    current_stage = (next.doc ->> 'current_stage')::genesis_stage,
    confirmed_data = nullif(next.doc -> 'confirmed_data', 'null'),
    draft = nullif(next.doc -> 'draft', 'null'), version = (next.doc ->> 'version')::int
FROM (
    SELECT held.id, doc
    FROM jsonb_array_elements($1::text::jsonb) AS doc
    JOIN genesis_sessions AS held
        ON held.id = (doc ->> 'id')::uuid AND held.version = (doc ->> 'expected_version')::int
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
