-- name: create_task
-- Create the task of the command $2, and change the command from RECEIVED to PROCESSING. Return no row if the
-- command is not RECEIVED. Each further open task of the fairness key $5 is claimed as if it had been created
-- $6 s after the previous open task of this key. So many tasks of one key delay a task of another key by at
-- most one task, and each further task of the same key is delayed by at most $6 s more than the previous one
-- (weighted fair queueing with wall-clock time).
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
-- Claim at most $2 tasks that are PENDING or whose lease has expired; each gets a new fencing token. There
-- are two kinds of tasks, each with its own index: tasks that were suspended until a time that has passed
-- (not_before), and the others (claim_order_at or created_at). Both kinds are claimed in one order of these
-- times. If one kind always came first, a steady supply of it would delay the other kind without bound.
-- "share" counts how many of the first $2 tasks are of the first kind. If other transactions have locked
-- tasks of the second kind, "more" claims further tasks of the first kind. A constraint ensures that a task
-- with not_before is PENDING. There is no condition on its status, because the planner could then choose the
-- index of the status, which also has all suspended tasks. For the same reason "share" compares the status
-- with an array whose size the planner does not know. The UPDATE also finds its rows by an array. With a
-- join, the planner would read the whole table, because it does not know how small the limits are.
WITH timers AS MATERIALIZED (
    SELECT not_before FROM async_tasks WHERE task_type = ANY($1::text[]) AND not_before <= now() ORDER BY not_before LIMIT $2
), share AS MATERIALIZED (
    SELECT count(*) FILTER (WHERE has_waited) AS waited FROM (
        SELECT not_before AS due_at, true AS has_waited FROM timers
        UNION ALL
        (SELECT coalesce(claim_order_at, created_at), false FROM async_tasks
         WHERE EXISTS (SELECT FROM timers) AND task_type = ANY($1::text[])
           AND status IN ('PENDING', 'RUNNING') AND not_before IS NULL
           AND status = ANY(ARRAY(SELECT unnest('{PENDING,RUNNING}'::task_status[])))
           AND (status = 'PENDING' OR lease_until < now())
         ORDER BY coalesce(claim_order_at, created_at) LIMIT $2)
        ORDER BY due_at LIMIT $2
    ) AS due
), waited AS MATERIALIZED (
    SELECT id FROM async_tasks
    WHERE task_type = ANY($1::text[]) AND not_before <= now()
    ORDER BY not_before
    LIMIT (SELECT waited FROM share)
    FOR UPDATE SKIP LOCKED
), ready AS MATERIALIZED (
    SELECT id FROM async_tasks
    WHERE task_type = ANY($1::text[]) AND status IN ('PENDING', 'RUNNING') AND not_before IS NULL
      AND (status = 'PENDING' OR lease_until < now())
    ORDER BY coalesce(claim_order_at, created_at), created_at
    LIMIT $2 - (SELECT count(*) FROM waited)
    FOR UPDATE SKIP LOCKED
), more AS MATERIALIZED (
    SELECT id FROM async_tasks
    WHERE task_type = ANY($1::text[]) AND not_before <= now() AND id <> ALL(ARRAY(SELECT id FROM waited))
    ORDER BY not_before
    LIMIT $2 - (SELECT count(*) FROM waited) - (SELECT count(*) FROM ready)
    FOR UPDATE SKIP LOCKED
)
UPDATE async_tasks AS task
SET status = 'RUNNING', attempts = task.attempts + 1, lease_token = gen_random_uuid(),
    lease_until = now() + make_interval(secs => $3), not_before = NULL
WHERE task.id = ANY(ARRAY(SELECT id FROM waited UNION ALL SELECT id FROM ready UNION ALL SELECT id FROM more))
RETURNING task.id, task.task_type, task.triggered_by_command_id, task.aggregate_id, task.input_data::text AS input_data,
    task.progress, task.attempts, task.lease_token

-- name: measure_backlog
-- Count the open tasks of the types $1 by state, at most $2 of each state, and return for how long a runner
-- could have claimed the oldest PENDING one. This time begins at updated_at, because a PENDING task was last
-- updated when it was created, released, retried or woken. claim_order_at is not used, because a fairness key
-- changes it as well. PENDING tasks are read by the indexes by which they are claimed, and not by the index
-- of the status, which has all suspended tasks too. The comparison with an array, whose size the planner does
-- not know, makes the planner consider that index expensive, even if old statistics say that no task is
-- suspended.
WITH pending AS (
    (SELECT greatest(not_before, updated_at) AS since FROM async_tasks
     WHERE task_type = ANY($1::text[]) AND not_before <= now()
     ORDER BY not_before LIMIT $2::int)
    UNION ALL
    (SELECT updated_at FROM async_tasks
     WHERE task_type = ANY($1::text[]) AND status IN ('PENDING', 'RUNNING') AND not_before IS NULL
       AND status = ANY(ARRAY(SELECT 'PENDING'::task_status))
     ORDER BY coalesce(claim_order_at, created_at) LIMIT $2::int)
), running AS (
    SELECT lease_until < now() AS expired FROM async_tasks WHERE status = 'RUNNING' AND task_type = ANY($1::text[])
    LIMIT $2::int
)
SELECT least((SELECT count(*) FROM pending), $2::int)::int AS pending,
    (SELECT count(*) FROM running WHERE NOT expired)::int AS running,
    (SELECT count(*) FROM running WHERE expired)::int AS expired,
    greatest((SELECT extract(epoch FROM now() - min(since)) FROM pending), 0)::float8 AS oldest_pending_s

-- name: cancel_task
-- Cancel an open task, and clear its fencing token, so that its worker cannot write. No row: the task has ended already.
UPDATE async_tasks SET status = 'CANCELLED', lease_until = NULL, lease_token = NULL, not_before = NULL
WHERE id = $1 AND status IN ('PENDING', 'RUNNING')
RETURNING id

-- name: fetch_task
-- Return the task $1.
SELECT id, task_type, triggered_by_command_id, aggregate_id, status::text AS status, progress,
    input_data::text AS input_data, result_data::text AS result_data, error_data::text AS error_data,
    attempts, lease_until, lease_token, fairness_key, claim_order_at, not_before, created_at, updated_at
FROM async_tasks
WHERE id = $1

-- name: renew_leases
-- Renew the leases whose fencing token is valid, and return the tasks that were cancelled, set back to
-- PENDING or claimed by another runner. A task that its worker has just ended is not returned: the worker may
-- still be running. A task that another transaction has locked keeps its lease for now. No runner can claim
-- such a task, and the renewal of the other leases must not wait for the lock.
WITH held AS (
    SELECT id, lease_token FROM unnest($1::uuid[], $2::uuid[]) AS held (id, lease_token)
), renewable AS (
    SELECT task.id
    FROM held JOIN async_tasks AS task ON task.id = held.id
    WHERE task.lease_token = held.lease_token AND task.status = 'RUNNING'
    FOR NO KEY UPDATE OF task SKIP LOCKED
), renewed AS (
    UPDATE async_tasks AS task
    SET lease_until = now() + make_interval(secs => $3)
    FROM renewable
    WHERE task.id = renewable.id
)
SELECT task.id
FROM held JOIN async_tasks AS task ON task.id = held.id
WHERE task.status IN ('PENDING', 'RUNNING', 'CANCELLED') AND task.lease_token IS DISTINCT FROM held.lease_token

-- name: report_progress
-- Record progress, unless a higher value is recorded. No row: the fencing token is not valid any more.
UPDATE async_tasks SET progress = greatest(progress, $3)
WHERE id = $1 AND lease_token = $2 AND status = 'RUNNING'
RETURNING progress

-- name: complete_task
-- Complete a task that its worker still holds. No row: the task is lost and the result is rejected. $4 replaces the
-- input; null keeps it.
UPDATE async_tasks
SET status = 'COMPLETED', progress = 100, result_data = $3::text::jsonb, error_data = NULL,
    input_data = coalesce($4::text::jsonb, input_data), lease_until = NULL, lease_token = NULL
WHERE id = $1 AND lease_token = $2 AND status = 'RUNNING'
RETURNING id

-- name: fail_task
-- Mark a task FAILED that its worker still holds. No row: the task is lost. $4 replaces the input; null keeps it.
UPDATE async_tasks
SET status = 'FAILED', error_data = $3::text::jsonb, input_data = coalesce($4::text::jsonb, input_data),
    lease_until = NULL, lease_token = NULL
WHERE id = $1 AND lease_token = $2 AND status = 'RUNNING'
RETURNING id

-- name: release_task
-- Return an unfinished task to PENDING; the attempt is not counted.
UPDATE async_tasks
SET status = 'PENDING', attempts = attempts - 1, lease_until = NULL, lease_token = NULL
WHERE id = $1 AND lease_token = $2 AND status = 'RUNNING'
RETURNING id

-- name: postpone_task
-- Postpone a task whose attempt failed: its lease ends after the pause of $3 s, and then another runner claims it.
UPDATE async_tasks
SET lease_until = now() + make_interval(secs => $3), error_data = $4::text::jsonb
WHERE id = $1 AND lease_token = $2 AND status = 'RUNNING'
RETURNING id

-- name: suspend_task
-- Set a task back to PENDING, so that no runner claims it before $3. Its next claim counts as the first
-- attempt, and the error of an earlier attempt is removed. A time in the past is replaced by the present, so
-- that the task does not come before others that wait for a runner. No row: the task is lost.
UPDATE async_tasks
SET status = 'PENDING', attempts = 0, error_data = NULL, lease_until = NULL, lease_token = NULL,
    not_before = greatest($3::timestamptz, now())
WHERE id = $1 AND lease_token = $2 AND status = 'RUNNING'
RETURNING id

-- name: wake_tasks
-- Let the suspended tasks $1 be claimed at once, and return their types. They are claimed in the order in
-- which they are woken. In the order of their creation, a young task would have to wait as long as older
-- tasks are woken. RUNNING tasks are locked and updated too: under REPEATABLE READ a task that was suspended
-- after the snapshot looks RUNNING, and the lock then raises SQLSTATE 40001 instead of missing the task. The
-- tasks are locked in the order of their ids, so that two transactions that wake tasks cannot deadlock. A
-- PENDING task that is not suspended is not updated, because its updated_at shows since when it can be
-- claimed.
WITH open AS MATERIALIZED (
    SELECT id, status, not_before FROM async_tasks WHERE id = ANY($1::uuid[]) AND status IN ('PENDING', 'RUNNING')
    ORDER BY id FOR NO KEY UPDATE
)
UPDATE async_tasks AS task
SET claim_order_at = CASE WHEN not_before IS NULL THEN claim_order_at ELSE greatest(claim_order_at, clock_timestamp()) END,
    not_before = NULL
WHERE task.id = ANY(ARRAY(SELECT id FROM open WHERE not_before IS NOT NULL OR status = 'RUNNING'))
RETURNING task_type
