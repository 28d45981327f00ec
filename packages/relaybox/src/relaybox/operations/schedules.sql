-- name: list_schedules
-- Return the first $1 schedules by name. "task_status": status of the last task if it has not ended.
-- "last_outcome": status of the last task that has ended. "error_code" and "error": error of the last task,
-- or else the error recorded in the schedule.
SELECT s.name, s.cron, s.timezone, s.interval_s, s.each_missed, s.may_overlap, s.next_tick_at, s.last_tick_at, s.last_task_id,
    greatest(0, extract(epoch FROM now() - s.next_tick_at))::float8 AS overdue_s,
    CASE WHEN t.status IN ('PENDING', 'RUNNING') THEN t.status::text END AS task_status,
    CASE WHEN t.status NOT IN ('PENDING', 'RUNNING') THEN t.status::text ELSE s.last_outcome END AS last_outcome,
    coalesce(t.error_data, s.last_error) ->> 'error_code' AS error_code, coalesce(t.error_data, s.last_error) ->> 'message' AS error,
    s.last_ended_at, s.last_duration_s
FROM work_schedules AS s LEFT JOIN async_tasks AS t ON t.id = s.last_task_id
ORDER BY s.name LIMIT $1::int

-- name: show_schedule
-- Return the name of the schedule $1, if it exists.
SELECT name FROM work_schedules WHERE name = $1

-- name: remove_schedule
-- Remove the schedule $1; its tasks stay.
DELETE FROM work_schedules WHERE name = $1 RETURNING name
