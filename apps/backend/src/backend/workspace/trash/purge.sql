-- name: trashed_batch
-- Read the nodes of the batch whose topmost node is $1, and, marked as apart, the topmost nodes of batches below, which
-- were trashed earlier; each with the visibility in effect, which is $2 for the node $1. The caller has locked the tree.
WITH RECURSIVE below AS (
    SELECT id, false AS apart, $2::workspace_visibility AS visibility FROM workspace_nodes WHERE id = $1
    UNION ALL
    SELECT child.id, child.trashed_at IS NOT NULL, coalesce(child.visibility, below.visibility)
    FROM below JOIN workspace_nodes AS child ON child.parent_id = below.id
    WHERE NOT below.apart
)
SELECT id, apart, visibility::text FROM below ORDER BY id

-- name: lock_batch_nodes
-- Lock nodes FOR UPDATE until the end of the transaction.
SELECT id FROM workspace_nodes WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE

-- name: delete_batch_nodes
-- Delete all rows of the nodes $1, including the secrets of their links; return the number of rows for each table.
WITH deleted AS MATERIALIZED (SELECT unnest($1::uuid[]) AS node_id),
chapters AS (
    DELETE FROM workspace_chapters AS stored USING deleted WHERE stored.node_id = deleted.node_id RETURNING stored.id
),
versions AS (
    DELETE FROM workspace_versions AS stored USING deleted WHERE stored.node_id = deleted.node_id RETURNING stored.number
),
threads AS (
    DELETE FROM workspace_threads AS stored USING deleted WHERE stored.node_id = deleted.node_id RETURNING stored.id
),
replies AS (
    DELETE FROM workspace_replies AS stored USING deleted WHERE stored.node_id = deleted.node_id RETURNING stored.id
),
grants AS (
    DELETE FROM workspace_grants AS stored USING deleted WHERE stored.node_id = deleted.node_id RETURNING stored.node_id
),
links AS (
    DELETE FROM workspace_links AS stored USING deleted WHERE stored.node_id = deleted.node_id RETURNING stored.id
),
secrets AS (
    DELETE FROM workspace_link_secrets AS stored USING deleted WHERE stored.node_id = deleted.node_id
),
archives AS (
    DELETE FROM workspace_archives AS stored USING deleted WHERE stored.node_id = deleted.node_id
),
nodes AS (
    DELETE FROM workspace_nodes AS stored USING deleted WHERE stored.id = deleted.node_id RETURNING stored.id
)
SELECT (SELECT count(*) FROM nodes) AS nodes, (SELECT count(*) FROM chapters) AS chapters,
    (SELECT count(*) FROM versions) AS versions, (SELECT count(*) FROM threads) AS threads,
    (SELECT count(*) FROM replies) AS replies, (SELECT count(*) FROM grants) AS grants,
    (SELECT count(*) FROM links) AS links

-- name: find_tasks_of_nodes
-- Find the tasks whose results contain one of these nodes, and imports whose parent is one of them.
SELECT id FROM async_tasks
WHERE task_type IN ('workspace.export', 'workspace.import-pgn') AND result_data -> 'nodes' ?| $1::text[]

-- name: lock_tasks
-- Lock tasks in the order of their ids, because purges of different trees may lock the same export.
SELECT id FROM async_tasks WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE

-- name: end_imports
-- Erase input, result and error of the imports among these tasks that are not completed, and of their commands; cancel
-- those that are pending or running; return the number of imports.
WITH ended AS (
    UPDATE async_tasks SET input_data = NULL, result_data = NULL, error_data = NULL,
        status = CASE WHEN status IN ('PENDING', 'RUNNING') THEN 'CANCELLED' ELSE status END,
        lease_until = NULL, lease_token = NULL
    WHERE id = ANY ($1::uuid[]) AND task_type = 'workspace.import-pgn' AND status <> 'COMPLETED'
    RETURNING triggered_by_command_id
),
commands AS (
    UPDATE command_inbox AS inbox SET payload = NULL, error_data = NULL, idempotency_key = NULL,
        status = CASE WHEN inbox.status IN ('RECEIVED', 'PROCESSING') THEN 'FAILED' ELSE inbox.status END
    FROM ended WHERE inbox.id = ended.triggered_by_command_id
    RETURNING inbox.id
)
SELECT (SELECT count(*) FROM ended) AS tasks, (SELECT count(*) FROM commands) AS commands

-- name: drop_task_files
-- Delete the files of the exports among these tasks, and the details in the reports of imports; return the nodes of the
-- tasks.
WITH archives AS (
    DELETE FROM workspace_archives WHERE task_id = ANY ($1::uuid[]) RETURNING node_id
),
imports AS (
    UPDATE async_tasks SET result_data = result_data - '{studies,skipped,dropped,normalised}'::text[]
    WHERE id = ANY ($1::uuid[]) AND task_type = 'workspace.import-pgn' AND result_data ? 'skipped'
    RETURNING aggregate_id
)
SELECT node_id AS aggregate_id FROM archives UNION ALL SELECT aggregate_id FROM imports

-- name: lock_next_due
-- Find the oldest batch that has been in the bin for more than $1 days, except $2, and lock the root of its tree. Skip
-- locked trees, so that two purgers choose different batches.
WITH RECURSIVE due AS (
    SELECT id, parent_id, trashed_at FROM workspace_nodes
    WHERE trashed_at <= now() - make_interval(days => $1) AND id <> ALL ($2::uuid[])
    ORDER BY trashed_at, id
    LIMIT 100
),
up AS (
    SELECT id AS trashed_id, trashed_at, id, parent_id FROM due
    UNION ALL
    SELECT up.trashed_id, up.trashed_at, parent.id, parent.parent_id
    FROM up JOIN workspace_nodes AS parent ON parent.id = up.parent_id
)
SELECT up.trashed_id AS id FROM up JOIN workspace_nodes AS root ON root.id = up.id
WHERE up.parent_id IS NULL
ORDER BY up.trashed_at, up.trashed_id
LIMIT 1
FOR UPDATE OF root SKIP LOCKED

-- name: find_purge_event
-- Find the event that records the purge of a node by the user $4.
SELECT event.event_id FROM domain_events AS event
WHERE event.aggregate_type = $1 AND event.aggregate_id = $2 AND event.event_type = $3
    AND event.metadata ->> 'user_id' = $4
