-- name: advance_tasks
-- Move these times of all tasks $1 seconds into the past: creation, place in the order of claims, end of the
-- lease, and the time before which no worker claims the task.
UPDATE async_tasks SET created_at = created_at - make_interval(secs => $1::float8),
       claim_order_at = claim_order_at - make_interval(secs => $1::float8),
       lease_until = lease_until - make_interval(secs => $1::float8),
       not_before = not_before - make_interval(secs => $1::float8)
RETURNING id

-- name: advance_handles
-- Let the pauses of flows that have not ended expire $1 seconds earlier.
UPDATE flow_resume_handles SET expires_at = expires_at - make_interval(secs => $1::float8)
WHERE status IN ('PENDING_PAUSE', 'PAUSED')

-- name: count_unpublished
-- The number of rows of the outbox that are not published, and how many of them the relay can publish: those whose key (for
-- a row without a key: the row itself) has no row that Kafka rejected. The relay retries a row with the fault 'link' itself.
WITH unpublished AS (
    SELECT coalesce(key, id::text) AS ordered_by,
           (status = 'FAILED' OR next_attempt_at IS NOT NULL) AND error_data ->> 'reason' IS DISTINCT FROM 'link' AS rejected
    FROM event_outbox
    WHERE status = 'PENDING' OR (status = 'FAILED' AND skipped_at IS NULL)
)
SELECT count(*) AS unpublished,
       count(*) FILTER (WHERE ordered_by NOT IN (SELECT u.ordered_by FROM unpublished AS u WHERE u.rejected)) AS publishable
FROM unpublished
