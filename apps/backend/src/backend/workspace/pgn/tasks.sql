-- name: lock_imports_of_user
-- Nobody else takes an import of $1 until the end of the transaction. In a statement of its own, so that the next one
-- sees what was taken meanwhile.
SELECT pg_advisory_xact_lock(hashtextextended('workspace.import-pgn ' || $1::text, 'async_tasks'::regclass::bigint))

-- name: count_open_imports
-- How many imports of $1 wait or run. By their commands: the task has the file, and would be read whole.
SELECT count(*) AS imports FROM async_tasks AS task
JOIN command_inbox AS command ON command.id = task.triggered_by_command_id
WHERE task.task_type = 'workspace.import-pgn' AND task.status IN ('PENDING', 'RUNNING')
    AND command.payload ->> 'asker' = $1

-- name: link_task_to_parent
-- A purge of the node $2 finds the task $1 by it, until its result names what it has made instead.
UPDATE async_tasks SET result_data = jsonb_build_object('nodes', jsonb_build_array($2::text)) WHERE id = $1

-- name: task
-- Where a task of a workspace stands; an error counts once it has FAILED.
-- An import that has FAILED names its parent.
SELECT id, task_type, aggregate_id, status::text AS status, progress, created_at, updated_at,
    input_data #>> '{asker,actor}' AS asker,
    CASE WHEN status = 'FAILED' THEN (result_data #>> '{nodes,0}')::uuid END AS refused_at,
    nullif(result_data - 'nodes', '{}')::text AS result,
    CASE WHEN status = 'FAILED' THEN error_data::text END AS error
FROM async_tasks
WHERE id = $1 AND task_type IN ('workspace.import-pgn', 'workspace.export')

-- name: lock_exports
-- No other transaction takes or ends an export of the person $1, or takes one of the node $2 (null: any), until this
-- one ends. In a statement of its own, so that the next one reads what was committed meanwhile.
SELECT pg_advisory_xact_lock(hashtextextended('workspace.export ' || $1::text, 'async_tasks'::regclass::bigint)),
    pg_advisory_xact_lock(hashtextextended('workspace.export of ' || $2::text, 'async_tasks'::regclass::bigint))

-- name: count_open_exports
-- How many exports of the person $1 and of the node $2 wait or run, the bytes of the files that are kept for the person,
-- and the seconds until the oldest of them is removed, which is after $3 hours.
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
-- The file $4 of the task $1, of the node $2, for the person $3. No row: with it the person's files would take more than
-- $5 bytes.
INSERT INTO workspace_archives (task_id, node_id, owner_id, file)
SELECT $1, $2, $3, $4
WHERE (SELECT coalesce(sum(size_bytes), 0) FROM workspace_archives WHERE owner_id = $3) + octet_length($4::bytea) <= $5
RETURNING task_id

-- name: delete_expired_archives
-- Remove at most $2 files that are older than $1 hours, the oldest first. A file that is being read stays for later.
DELETE FROM workspace_archives WHERE task_id = ANY(ARRAY(
    SELECT task_id FROM workspace_archives WHERE created_at < now() - make_interval(secs => $1 * 3600)
    ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED))
RETURNING task_id

-- name: archive_file
-- The file that a task has made.
SELECT file FROM workspace_archives WHERE task_id = $1
