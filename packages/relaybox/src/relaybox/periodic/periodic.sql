-- name: claim_run
-- Begin a run of the job $1 with the interval $2 in seconds, unless a run began less than an interval ago. Return whether this
-- call began a run, and the seconds until the next run is due. A run that began in the future, by the clock of a former
-- primary, does not count.
WITH known AS (
    SELECT extract(epoch FROM last_tick_at - now())::float8 + $2::float8 AS due_in_s FROM work_schedules
    WHERE name = $1 AND last_tick_at < now() + interval '1 minute'
), claimed AS (
    INSERT INTO work_schedules AS job (name, interval_s, last_tick_at, next_tick_at)
    SELECT $1, $2::float8, now(), now() + make_interval(secs => $2::float8)
    WHERE NOT EXISTS (SELECT FROM known WHERE due_in_s > 0)
    ON CONFLICT (name) DO UPDATE SET interval_s = excluded.interval_s, cron = NULL, timezone = NULL,
        last_tick_at = excluded.last_tick_at, next_tick_at = excluded.next_tick_at
    WHERE job.last_tick_at IS NULL OR job.last_tick_at NOT BETWEEN now() - make_interval(secs => $2::float8)
        AND now() + interval '1 minute'
    RETURNING 1
)
SELECT EXISTS (SELECT FROM claimed) AS claimed,
    coalesce((SELECT least(due_in_s, $2::float8) FROM known WHERE due_in_s > 0), $2::float8) AS due_in_s

-- name: record_run
-- Record that a run of the job $1 ended after $4 seconds with the outcome $2, and with the error $3 if it failed.
UPDATE work_schedules
SET last_outcome = $2, last_error = $3::text::jsonb, last_duration_s = $4::float8, last_ended_at = now()
WHERE name = $1 AND interval_s IS NOT NULL

-- name: measure
-- Return for at most $1 schedules the seconds for which a tick has been due (0 if none is due), whether the last task or run
-- that ended has failed, and its duration in seconds (null if none has ended).
SELECT name, greatest(0, extract(epoch FROM now() - next_tick_at))::float8 AS overdue_s,
    coalesce(last_outcome = 'FAILED', false) AS failed, last_duration_s
FROM work_schedules ORDER BY name LIMIT $1::int
