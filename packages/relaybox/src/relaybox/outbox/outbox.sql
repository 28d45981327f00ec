-- name: append
-- Insert one event for Kafka, in the caller's transaction.
INSERT INTO event_outbox (topic, key, payload) VALUES ($1, $2, $3::text::jsonb) RETURNING id

-- name: retain
-- Do the next step of removing SENT rows older than $1 seconds; null if no step is due.
SELECT relaybox_retain_outbox(make_interval(secs => $1::float8)) AS step

-- name: notify
-- Notify relays and live streams of committed events, outside every command's transaction, on the channel of this schema
-- (channel_of).
SELECT pg_notify(left($1 || coalesce('_' || nullif(current_schema(), 'public'), ''), 63), $2)
