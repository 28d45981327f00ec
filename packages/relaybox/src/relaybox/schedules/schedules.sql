-- name: current_time
-- Return the time of the database, by which ticks are due.
SELECT now() AS now

-- name: declare
-- Record the schedule $1 with its definition $2 to $5, and with $6 as its next tick if its expression or zone is new.
INSERT INTO work_schedules AS known (name, cron, timezone, each_missed, may_overlap, next_tick_at)
VALUES ($1, $2, $3, $4::boolean, $5::boolean, $6::timestamptz)
ON CONFLICT (name) DO UPDATE
SET cron = excluded.cron, timezone = excluded.timezone, each_missed = excluded.each_missed,
    may_overlap = excluded.may_overlap, interval_s = NULL,
    next_tick_at = CASE WHEN (known.cron, known.timezone) = (excluded.cron, excluded.timezone) THEN known.next_tick_at
                        ELSE excluded.next_tick_at END
WHERE (known.cron, known.timezone, known.each_missed, known.may_overlap)
    IS DISTINCT FROM (excluded.cron, excluded.timezone, excluded.each_missed, excluded.may_overlap)

-- name: lock_ended
-- Lock those of the schedules $1 whose last task has ended, if this end is not recorded yet. A task that an
-- operator retried ends again, which has to be recorded too.
SELECT s.name FROM work_schedules AS s
WHERE s.name = ANY($1::text[]) AND s.cron IS NOT NULL
  AND (s.task_open AND NOT EXISTS (SELECT FROM async_tasks AS t
                                   WHERE t.id = s.last_task_id AND t.status IN ('PENDING', 'RUNNING'))
       OR EXISTS (SELECT FROM async_tasks AS t
                  WHERE t.id = s.last_task_id AND t.status NOT IN ('PENDING', 'RUNNING') AND t.updated_at > s.last_ended_at))
FOR UPDATE SKIP LOCKED

-- name: record_ended
-- Record for the locked schedules $1 how their last tasks ended. The outcome is null if retention has removed
-- the task.
UPDATE work_schedules AS schedule
SET task_open = false, last_outcome = ended.outcome, last_ended_at = ended.ended_at, last_duration_s = ended.duration_s,
    last_error = ended.error
FROM (
    SELECT s.name, t.status::text AS outcome, t.updated_at AS ended_at,
        extract(epoch FROM t.updated_at - t.created_at)::float8 AS duration_s,
        CASE WHEN t.status = 'FAILED' THEN t.error_data END AS error
    FROM work_schedules AS s LEFT JOIN async_tasks AS t ON t.id = s.last_task_id
    WHERE s.name = ANY($1::text[]) AND (t.id IS NULL OR t.status NOT IN ('PENDING', 'RUNNING'))
) AS ended
WHERE schedule.name = ended.name

-- name: lock_due
-- Lock those of the schedules $1 that have a tick due at $2 (null: now), and whose last task has ended or may
-- overlap the next.
SELECT name, cron, timezone, each_missed, next_tick_at, last_tick_at, coalesce($2::timestamptz, now()) AS now
FROM work_schedules
WHERE name = ANY($1::text[]) AND cron IS NOT NULL AND next_tick_at <= coalesce($2::timestamptz, now())
  AND (may_overlap OR NOT task_open)
ORDER BY next_tick_at
FOR UPDATE SKIP LOCKED

-- name: tick
-- Create the task $2 with the input $3 for the tick $4 of the locked schedule $1, and set its next tick to $5. A tick has one
-- id: if its task exists, only the schedule is changed.
WITH created AS (
    INSERT INTO async_tasks (id, task_type, input_data) VALUES ($2, $1, $3::text::jsonb)
    ON CONFLICT (id) DO NOTHING
)
UPDATE work_schedules
SET last_task_id = $2, last_tick_at = $4::timestamptz, next_tick_at = $5::timestamptz, task_open = true
WHERE name = $1

-- name: record_unusable
-- Record the error $2 of the schedule $1, whose expression or zone cannot be used. No row: it is recorded already.
UPDATE work_schedules SET last_error = $2::text::jsonb
WHERE name = $1 AND last_error IS DISTINCT FROM $2::text::jsonb
RETURNING name
