-- name: advance_tasks
-- Make all tasks older by $1 seconds: their creation, their place in the order of claims, their leases and the time for
-- which they wait.
UPDATE async_tasks SET created_at = created_at - make_interval(secs => $1::float8),
       claim_order_at = claim_order_at - make_interval(secs => $1::float8),
       lease_until = lease_until - make_interval(secs => $1::float8),
       not_before = not_before - make_interval(secs => $1::float8)
RETURNING id

-- name: advance_handles
-- Let the waiting pauses of flows expire $1 seconds earlier.
UPDATE flow_resume_handles SET expires_at = expires_at - make_interval(secs => $1::float8)
WHERE status IN ('PENDING_PAUSE', 'PAUSED')
