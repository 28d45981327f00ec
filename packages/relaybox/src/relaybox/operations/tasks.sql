-- name: all_tasks
-- Tasks without input and result, which may contain personal data. "refusal": why a FAILED task is not
-- retried; null if it is.
SELECT a.*, CASE WHEN a.erased THEN 'ERASED'
                 WHEN a.command_id IS NOT NULL AND coalesce(a.command_status, 'REMOVED') NOT IN ('RECEIVED', 'PROCESSING')
                 THEN 'COMMAND_SETTLED' END AS refusal
FROM (
    SELECT t.id, t.task_type, t.status::text AS status, t.progress, t.attempts, t.not_before, t.lease_until, t.aggregate_id,
           t.triggered_by_command_id AS command_id,
           (SELECT c.status::text FROM command_inbox AS c WHERE c.id = t.triggered_by_command_id) AS command_status,
           t.error_data ->> 'error_code' AS error_code, t.error_data ->> 'message' AS error,
           t.input_data IS NULL AS erased, t.created_at, t.updated_at
    FROM async_tasks AS t
) AS a

-- name: selected_tasks
-- Tasks that meet all conditions: id in $1, type in $2, status in $3. Every task meets a condition that is null.
SELECT r.* FROM (
    -- include: all_tasks
) AS r
WHERE ($1::uuid[] IS NULL OR r.id = ANY ($1::uuid[]))
  AND ($2::text[] IS NULL OR r.task_type = ANY ($2::text[]))
  AND ($3::text[] IS NULL OR r.status = ANY ($3::text[]))

-- name: list_tasks
-- The first $4 selected tasks by age; COMPLETED and CANCELLED ones only if $1 or $3 is given.
SELECT s.* FROM (
    -- include: selected_tasks
) AS s
WHERE $1::uuid[] IS NOT NULL OR $3::text[] IS NOT NULL OR s.status IN ('PENDING', 'RUNNING', 'FAILED')
ORDER BY s.created_at, s.id LIMIT $4::int

-- name: show_task
-- The task $1, with input and result if $2 is true, and the actions of operators on it.
SELECT r.*, CASE WHEN $2::boolean THEN t.input_data::text END AS input_data,
       CASE WHEN $2::boolean THEN t.result_data::text END AS result_data,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('at', o.at, 'by', o.actor, 'act', o.act, 'reason', o.reason)
                                  ORDER BY o.id), '[]')
        FROM operator_acts AS o WHERE o.target @> jsonb_build_object('tasks', jsonb_build_array(r.id))) AS acts
FROM (
    -- include: all_tasks
) AS r JOIN async_tasks AS t ON t.id = r.id
WHERE r.id = $1::uuid

-- name: preview_retry
-- The first $4 by id of the selected FAILED tasks that can be retried. "total": the number of all tasks that
-- can be retried. "total_refused": the number of selected FAILED tasks that cannot be retried. If no task is
-- listed, one row with a null id.
WITH failed AS MATERIALIZED (
    SELECT s.* FROM (
        -- include: selected_tasks
    ) AS s
    WHERE s.status = 'FAILED'
), shown AS (
    SELECT * FROM failed WHERE refusal IS NULL ORDER BY id LIMIT $4::int
)
SELECT shown.*, counted.* FROM (
    SELECT count(*) FILTER (WHERE refusal IS NULL) AS total, count(*) FILTER (WHERE refusal IS NOT NULL) AS total_refused
    FROM failed
) AS counted LEFT JOIN shown ON true
ORDER BY shown.id

-- name: retry_tasks
-- Set to PENDING the first $5 selected FAILED tasks after id $4 whose "refusal" is null, and return their
-- types. Record the action with operator $6, reason $7 and selection $8.
WITH chosen AS MATERIALIZED (
    SELECT s.id FROM (
        -- include: selected_tasks
    ) AS s
    WHERE s.status = 'FAILED' AND s.refusal IS NULL AND s.id > $4::uuid
    ORDER BY s.id LIMIT $5::int
    FOR UPDATE OF s
), changed AS (
    UPDATE async_tasks AS t SET status = 'PENDING', attempts = 0, not_before = NULL
    WHERE t.id = ANY (ARRAY(SELECT chosen.id FROM chosen))
    RETURNING t.id, t.task_type
), recorded AS (
    INSERT INTO operator_acts (actor, act, reason, target)
    SELECT $6, 'retry', $7::text, jsonb_build_object('selection', $8::text::jsonb, 'count', count(*),
                                                     'tasks', jsonb_agg(changed.id ORDER BY changed.id))
    FROM changed
    HAVING count(*) > 0
)
SELECT (SELECT chosen.id FROM chosen ORDER BY chosen.id DESC LIMIT 1) AS last_id, (SELECT count(*) FROM changed) AS tasks,
       ARRAY(SELECT DISTINCT changed.task_type FROM changed) AS task_types
