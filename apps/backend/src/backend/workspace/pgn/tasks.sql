-- name: lock_imports_of_user
-- Take an advisory lock on the imports of the user $1 until the end of the transaction. A separate statement, so that
-- the snapshot of the next statement includes what other holders of the lock have committed.
SELECT pg_advisory_xact_lock(hashtextextended('workspace.import-pgn ' || $1::text, 'async_tasks'::regclass::bigint))

-- name: count_open_imports
-- Count the pending or running imports of the user $1, by their commands: tasks are large, because they contain files.
SELECT count(*) AS imports FROM async_tasks AS task
JOIN command_inbox AS command ON command.id = task.triggered_by_command_id
WHERE task.task_type = 'workspace.import-pgn' AND task.status IN ('PENDING', 'RUNNING')
    AND command.payload ->> 'asker' = $1

-- name: link_task_to_parent
-- Store the parent node $2 in the result of the task $1, so that a purge of the parent finds the task.
UPDATE async_tasks SET result_data = jsonb_build_object('nodes', jsonb_build_array($2::text)) WHERE id = $1

-- name: task
-- Read the state of a task; its error only if it has FAILED. refused_at: the parent of a FAILED import, else NULL.
SELECT id, task_type, aggregate_id, status::text AS status, progress, created_at, updated_at,
    input_data #>> '{asker,actor}' AS asker,
    CASE WHEN status = 'FAILED' THEN (result_data #>> '{nodes,0}')::uuid END AS refused_at,
    nullif(result_data - 'nodes', '{}')::text AS result,
    CASE WHEN status = 'FAILED' THEN error_data::text END AS error
FROM async_tasks
WHERE id = $1 AND task_type IN ('workspace.import-pgn', 'workspace.export')

-- name: lock_exports
-- Take advisory locks on the exports of the user $1 and of the node $2 (NULL: none) until the end of the transaction. A
-- separate statement, so that the snapshot of the next statement includes what other holders have committed.
SELECT pg_advisory_xact_lock(hashtextextended('workspace.export ' || $1::text, 'async_tasks'::regclass::bigint)),
    pg_advisory_xact_lock(hashtextextended('workspace.export of ' || $2::text, 'async_tasks'::regclass::bigint))

-- name: count_open_exports
-- Count the pending or running exports of the user $1 and of the node $2, and the bytes of the user's files; compute
-- the seconds until the user's oldest file is deleted, $3 hours after its creation.
SELECT (SELECT count(*) FROM async_tasks
        WHERE task_type = 'workspace.export' AND status IN ('PENDING', 'RUNNING') AND fairness_key = $1) AS of_person,
    (SELECT count(*) FROM async_tasks
        WHERE task_type = 'workspace.export' AND status IN ('PENDING', 'RUNNING') AND aggregate_id = $2) AS of_node,
    kept.bytes AS kept_bytes, kept.free_in_s
FROM (
    SELECT coalesce(sum(size_bytes), 0)::bigint AS bytes,
        greatest(0, extract(epoch FROM min(created_at) + make_interval(secs => $3 * 3600) - now()))::float8 AS free_in_s
    FROM workspace_archives WHERE owner_id = $1
) AS kept

-- name: insert_archive
-- Store the file $4 of the task $1, of the node $2, for the user $3; insert no row if the user's files would take more
-- than $5 bytes.
INSERT INTO workspace_archives (task_id, node_id, owner_id, file)
SELECT $1, $2, $3, $4
WHERE (SELECT coalesce(sum(size_bytes), 0) FROM workspace_archives WHERE owner_id = $3) + octet_length($4::bytea) <= $5
RETURNING task_id

-- name: delete_expired_archives
-- Delete at most $2 files that are older than $1 hours, the oldest first; skip rows that are locked.
DELETE FROM workspace_archives WHERE task_id = ANY(ARRAY(
    SELECT task_id FROM workspace_archives WHERE created_at < now() - make_interval(secs => $1 * 3600)
    ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED))
RETURNING task_id

-- name: archive_file
-- Read the file of a task.
SELECT file FROM workspace_archives WHERE task_id = $1
