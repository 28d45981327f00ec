-- name: make_sent
-- Rows that were published long ago, each event $2 times.
INSERT INTO event_outbox (topic, key, payload, status, sent_at)
SELECT $1, key, payload, 'SENT', now() FROM bench_events, generate_series(1, $2::int)

-- name: vacuum_outbox
-- What autovacuum has done long before a service has written so much.
VACUUM (ANALYZE) event_outbox

-- name: write_some
-- The events with numbers $2 to $3, as one transaction of a busy service.
INSERT INTO event_outbox (topic, key, payload)
SELECT $1, key, payload FROM bench_events WHERE number BETWEEN $2::int AND $3::int ORDER BY number

-- name: highest
-- The last row so far, and this server's clock.
SELECT coalesce(max(seq), 0) AS seq, clock_timestamp() AS at FROM event_outbox

-- name: sent_after
-- How many rows after $1 are SENT, and when the last of them was.
SELECT count(*) AS rows, max(sent_at) AS at FROM event_outbox WHERE seq > $1::bigint AND status = 'SENT'

-- name: hold_snapshot
-- From now on nobody may remove what this transaction could still see.
SELECT pg_current_snapshot()::text AS snapshot
