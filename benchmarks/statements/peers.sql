-- name: create_debezium_outbox
-- Create the table for Debezium's outbox event router.
CREATE TABLE bench_debezium (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    aggregatetype TEXT NOT NULL,
    aggregateid TEXT NOT NULL,
    type TEXT NOT NULL,
    payload JSONB
)

-- name: fill_debezium
-- Insert the backlog; $1 determines the topic.
INSERT INTO bench_debezium (aggregatetype, aggregateid, type, payload)
SELECT $1, key, payload ->> 'event_type', payload FROM bench_events ORDER BY number

-- name: empty_debezium
-- Delete the rows that Debezium has published.
TRUNCATE bench_debezium

-- name: append_debezium
-- Insert one event of key $2.
INSERT INTO bench_debezium (aggregatetype, aggregateid, type, payload) VALUES ($1, $2, 'Single', $3::text::jsonb)

-- name: fill_faststream
-- Insert the backlog in the form of faststream-outbox: bytes, and the key as a header.
INSERT INTO bench_faststream (queue, payload, headers)
SELECT 'events', convert_to(payload::text, 'UTF8'), jsonb_build_object('key', key, 'correlation_id', payload ->> 'correlation_id')
FROM bench_events ORDER BY number

-- name: wake_faststream
-- Notify the relay of faststream-outbox as its publish() does, once per transaction.
SELECT pg_notify('outbox_bench_faststream', 'events')

-- name: listens_faststream
-- Return whether the relay of faststream-outbox listens: then its table exists, and it is connected to Kafka.
SELECT EXISTS (
    SELECT FROM pg_stat_activity WHERE query ILIKE 'LISTEN%outbox_bench_faststream%'
) AS listens

-- name: empty_faststream
-- Truncate the table, whose published rows faststream-outbox has deleted, to reset its statistics.
TRUNCATE bench_faststream

-- name: decode_in_memory
-- Raise the memory for logical decoding: a backlog in one commit would be written to disk, unlike many small commits.
ALTER SYSTEM SET logical_decoding_work_mem = '1GB'

-- name: reload
-- Reload the configuration, which applies the setting.
SELECT pg_reload_conf()
