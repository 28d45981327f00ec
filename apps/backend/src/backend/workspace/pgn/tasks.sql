-- name: imports_one_at_a_time
-- Nobody else takes an import of $1 until the end of the transaction. In a statement of its own, so that the next one
-- sees what was taken meanwhile.
SELECT pg_advisory_xact_lock(hashtextextended('workspace.import-pgn ' || $1::text, 0))

-- name: imports_waiting
-- How many imports of $1 wait or run. By their commands: the task has the file, and would be read whole.
SELECT count(*) AS imports FROM async_tasks AS task
JOIN command_inbox AS command ON command.id = task.triggered_by_command_id
WHERE task.task_type = 'workspace.import-pgn' AND task.status IN ('PENDING', 'RUNNING')
    AND command.payload ->> 'asker' = $1

-- name: place_below
-- A purge of the node $2 finds the task $1 by it, until its result names what it has made instead.
UPDATE async_tasks SET result_data = jsonb_build_object('nodes', jsonb_build_array($2::text)) WHERE id = $1

-- name: task
-- Where a task of a workspace stands, without the file it may have made; an error counts once it has FAILED.
-- An import that has FAILED names its parent.
SELECT id, task_type, aggregate_id, status::text AS status, progress, created_at, updated_at,
    input_data #>> '{asker,actor}' AS asker,
    CASE WHEN status = 'FAILED' THEN (result_data #>> '{nodes,0}')::uuid END AS refused_at,
    nullif(result_data - '{zip,nodes}'::text[], '{}')::text AS result,
    CASE WHEN status = 'FAILED' THEN error_data::text END AS error
FROM async_tasks
WHERE id = $1 AND task_type IN ('workspace.import-pgn', 'workspace.export')

-- name: drop_old_files
-- Exports that ended more than $1 hours ago lose their file. The time is looked at first: files are large.
UPDATE async_tasks SET result_data = result_data - 'zip'
WHERE task_type = 'workspace.export' AND updated_at < now() - make_interval(secs => $1 * 3600)
    AND result_data ? 'zip'
RETURNING id

-- name: result
-- The file that a task has made.
SELECT decode(result_data ->> 'zip', 'base64') AS file FROM async_tasks WHERE id = $1
