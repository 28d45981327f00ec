-- name: make_sent
-- Insert each stored event $2 times as an old SENT row.
INSERT INTO event_outbox (topic, key, payload, status, sent_at)
SELECT $1, key, payload, 'SENT', now() FROM bench_events, generate_series(1, $2::int)

-- name: vacuum_outbox
-- Vacuum the outbox, as autovacuum would have done during these writes.
VACUUM (ANALYZE) event_outbox

-- name: write_some
-- Insert the events with numbers $2 to $3, like one transaction of a busy service.
INSERT INTO event_outbox (topic, key, payload)
SELECT $1, key, payload FROM bench_events WHERE number BETWEEN $2::int AND $3::int ORDER BY number

-- name: highest
-- Read the number of the last row and the server's clock.
SELECT coalesce(max(seq), 0) AS seq, clock_timestamp() AS at FROM event_outbox

-- name: sent_after
-- Count the SENT rows with numbers above $1, and return the last time at which one was marked.
SELECT count(*) AS rows, max(sent_at) AS at FROM event_outbox WHERE seq > $1::bigint AND status = 'SENT'

-- name: hold_snapshot
-- Take a snapshot: until its end, vacuum cannot remove rows that are visible to this transaction.
SELECT pg_current_snapshot()::text AS snapshot
