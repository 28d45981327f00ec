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
