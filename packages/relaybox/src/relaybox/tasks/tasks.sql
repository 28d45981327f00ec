-- name: create_task
-- The task of a command that still waits: RECEIVED becomes PROCESSING and the task exists, or neither. Each further
-- open task of the key $5 is claimed as if it had come an hour ($6 s) after the one before, so that a backlog of one key
-- delays another key by one task, and is itself delayed by no more than $6 s for each task (WFQ with wall-clock time).
WITH command AS (
    UPDATE command_inbox SET status = 'PROCESSING' WHERE id = $2 AND status = 'RECEIVED' RETURNING id
)
INSERT INTO async_tasks
    (task_type, triggered_by_command_id, aggregate_id, input_data, fairness_key, claim_order_at)
SELECT $1, command.id, $3, $4::text::jsonb, $5::text, greatest(now(), (
    SELECT max(coalesce(open.claim_order_at, open.created_at)) + make_interval(secs => $6) FROM async_tasks AS open
    WHERE open.fairness_key = $5::text AND open.status IN ('PENDING', 'RUNNING')))
FROM command
RETURNING id

-- name: claim_tasks
-- Take what waits and what its worker has left, in the order of claims; each gets a new fencing token.
WITH due AS (
    SELECT id FROM async_tasks
    WHERE task_type = ANY($1::text[]) AND status IN ('PENDING', 'RUNNING')
      AND (status = 'PENDING' OR lease_until < now())
    ORDER BY coalesce(claim_order_at, created_at), created_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
)
UPDATE async_tasks AS task
SET status = 'RUNNING', attempts = task.attempts + 1, lease_token = gen_random_uuid(),
    lease_until = now() + make_interval(secs => $3)
FROM due
WHERE task.id = due.id
RETURNING task.id, task.task_type, task.triggered_by_command_id, task.aggregate_id, task.input_data::text AS input_data,
    task.progress, task.attempts, task.lease_token

-- name: cancel_task
-- Nobody wants the result any more: whoever holds the task loses it. No row: it has ended already.
UPDATE async_tasks SET status = 'CANCELLED', lease_until = NULL, lease_token = NULL
WHERE id = $1 AND status IN ('PENDING', 'RUNNING')
RETURNING id

-- name: fetch_task
-- One task as it stands.
SELECT id, task_type, triggered_by_command_id, aggregate_id, status::text AS status, progress,
    input_data::text AS input_data, result_data::text AS result_data, error_data::text AS error_data,
    attempts, lease_until, lease_token, fairness_key, claim_order_at, created_at, updated_at
FROM async_tasks
WHERE id = $1

-- name: renew_leases
-- Prolong the leases still held; what comes back is lost to somebody else, or cancelled. A task that its
-- worker has just ended is neither: the worker may still have something to tell.
WITH held AS (
    SELECT id, lease_token FROM unnest($1::uuid[], $2::uuid[]) AS held (id, lease_token)
), renewed AS (
    UPDATE async_tasks AS task
    SET lease_until = now() + make_interval(secs => $3)
    FROM held
    WHERE task.id = held.id AND task.lease_token = held.lease_token AND task.status = 'RUNNING'
)
SELECT task.id
FROM held JOIN async_tasks AS task ON task.id = held.id
WHERE task.status IN ('PENDING', 'RUNNING', 'CANCELLED') AND task.lease_token IS DISTINCT FROM held.lease_token

-- name: report_progress
-- Forward only: a late or smaller report leaves the higher figure. No row: the task is lost.
UPDATE async_tasks SET progress = greatest(progress, $3)
WHERE id = $1 AND lease_token = $2 AND status = 'RUNNING'
RETURNING progress

-- name: complete_task
-- The end of a task that its worker still holds. No row: the task is lost, the result is refused. $4: what stays of
-- the input; null leaves it.
UPDATE async_tasks
SET status = 'COMPLETED', progress = 100, result_data = $3::text::jsonb, error_data = NULL,
    input_data = coalesce($4::text::jsonb, input_data), lease_until = NULL, lease_token = NULL
WHERE id = $1 AND lease_token = $2 AND status = 'RUNNING'
RETURNING id

-- name: fail_task
-- The end of a task that its worker still holds, without a result. No row: the task is lost. $4: what stays of the
-- input; null leaves it.
UPDATE async_tasks
SET status = 'FAILED', error_data = $3::text::jsonb, input_data = coalesce($4::text::jsonb, input_data),
    lease_until = NULL, lease_token = NULL
WHERE id = $1 AND lease_token = $2 AND status = 'RUNNING'
RETURNING id

-- name: release_task
-- Hand an unfinished task to whoever comes next, at once; the attempt is not charged to it.
UPDATE async_tasks
SET status = 'PENDING', attempts = attempts - 1, lease_until = NULL, lease_token = NULL
WHERE id = $1 AND lease_token = $2 AND status = 'RUNNING'
RETURNING id

-- name: postpone_task
-- The attempt failed: keep the lease as the pause, so that whoever comes after it takes the task over.
UPDATE async_tasks
SET lease_until = now() + make_interval(secs => $3), error_data = $4::text::jsonb
WHERE id = $1 AND lease_token = $2 AND status = 'RUNNING'
RETURNING id
