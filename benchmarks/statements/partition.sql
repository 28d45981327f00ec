-- name: others
-- Of the rows with other keys than $3 that were written in the $2 seconds after $1: count the rows published in these
-- seconds, count all, and compute the longest time from insert to acknowledgement; until now for PENDING rows.
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
