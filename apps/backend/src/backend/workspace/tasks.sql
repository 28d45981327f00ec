-- name: task
-- Where a task of a workspace stands, without the file it may have made; an error counts once it has FAILED.
SELECT id, task_type, aggregate_id, status::text AS status, progress, created_at, updated_at,
    input_data #>> '{asker,actor}' AS asker,
    (result_data - '{zip,nodes}'::text[])::text AS result,
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
