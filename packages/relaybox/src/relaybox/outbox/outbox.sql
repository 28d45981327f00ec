-- name: append
-- Record one event for Kafka in the caller's transaction.
INSERT INTO event_outbox (topic, key, payload) VALUES ($1, $2, $3::text::jsonb) RETURNING id

-- name: retain
-- The next step towards an outbox without SENT rows that are older than $1 seconds; null when nothing is due.
SELECT relaybox_retain_outbox(make_interval(secs => $1::float8)) AS step

-- name: notify
-- Tell relays and live streams that something was committed; outside every command's transaction. The channel of
-- this schema, as channel_of() names it.
SELECT pg_notify(left($1 || coalesce('_' || nullif(current_schema(), 'public'), ''), 63), $2)
