-- Insert the events $1 to $2, of $3 keys in turn, as SENT rows, like commands and a relay; about 600 bytes each.
WITH fact AS (
    SELECT gen_random_uuid() AS id, number, 'key-' || number % $3::int AS key, 1 + number / $3::int AS version
    FROM generate_series($1::int, $2::int) AS number
), events AS (
    INSERT INTO domain_events (event_id, correlation_id, event_type, aggregate_type, aggregate_id, aggregate_version)
    SELECT id, id, 'Genesis.Session.Updated', 'GENESIS_SESSION', key, version FROM fact ORDER BY number
)
INSERT INTO event_outbox (topic, key, status, sent_at, payload)
SELECT 'domain-events', key, 'SENT', now(), jsonb_build_object(
    'event_id', id, 'event_type', 'Genesis.Session.Updated', 'event_version', 1, 'aggregate_type', 'GENESIS_SESSION',
    'aggregate_id', key, 'correlation_id', id, 'causation_id', NULL, 'timestamp', now(), 'version', version,
    'payload', jsonb_build_object('text', repeat('x', 200)), 'metadata', jsonb_build_object('source_service', 'bench'))
FROM fact ORDER BY number
