-- name: others
-- Of the rows written in the $2 seconds from $1 on whose keys are none of $3: how many were published in those seconds,
-- how many there are, and their longest time from insert to acknowledgement, so far for those that wait.
SELECT count(*) FILTER (WHERE sent_at < $1::timestamptz + make_interval(secs => $2::float8)) AS published,
       count(*) AS written,
       extract(epoch FROM max(coalesce(sent_at, clock_timestamp()) - created_at))::float8 AS wait_s_max
FROM event_outbox
WHERE created_at >= $1::timestamptz AND created_at < $1::timestamptz + make_interval(secs => $2::float8)
  AND key <> ALL ($3::text[])

-- name: now
-- Read the server's clock.
SELECT clock_timestamp() AS at

-- name: oldest
-- Return the age of the oldest PENDING row in seconds; null without one.
SELECT extract(epoch FROM clock_timestamp() - min(created_at))::float8 AS wait_s FROM event_outbox WHERE status = 'PENDING'
