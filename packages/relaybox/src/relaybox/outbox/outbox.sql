-- name: append
-- Insert the row of one event or record, in the caller's transaction.
INSERT INTO event_outbox (topic, key, payload) VALUES ($1, $2, $3::text::jsonb) RETURNING id

-- name: retain
-- Execute the next retention step for SENT rows older than $1 seconds, and return its name; null if no step is due.
SELECT relaybox_retain_outbox(make_interval(secs => $1::float8)) AS step

-- name: notify
-- Notify relays and live streams of events that earlier transactions committed: send the keys $2 on the channel $1. The name
-- of the channel is computed as by the Python function channel_of.
SELECT pg_notify(left($1 || coalesce('_' || nullif(current_schema(), 'public'), ''), 63), $2)
