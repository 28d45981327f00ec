-- name: create_debezium_outbox
-- The table that Debezium's outbox event router expects.
CREATE TABLE bench_debezium (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    aggregatetype TEXT NOT NULL,
    aggregateid TEXT NOT NULL,
    type TEXT NOT NULL,
    payload JSONB
)

-- name: fill_debezium
-- The backlog, for the topic that $1 becomes.
INSERT INTO bench_debezium (aggregatetype, aggregateid, type, payload)
SELECT $1, key, payload ->> 'event_type', payload FROM bench_events ORDER BY number

-- name: empty_debezium
-- What was routed is of no more use.
TRUNCATE bench_debezium

-- name: append_debezium
-- One event of key $2.
INSERT INTO bench_debezium (aggregatetype, aggregateid, type, payload) VALUES ($1, $2, 'Single', $3::text::jsonb)

-- name: fill_faststream
-- The backlog as faststream-outbox writes it: bytes, and the key among the headers.
INSERT INTO bench_faststream (queue, payload, headers)
SELECT 'events', convert_to(payload::text, 'UTF8'), jsonb_build_object('key', key, 'correlation_id', payload ->> 'correlation_id')
FROM bench_events ORDER BY number

-- name: wake_faststream
-- What its publish() would say once per transaction.
SELECT pg_notify('outbox_bench_faststream', 'events')

-- name: listens_faststream
-- Whether its relay listens, which it does once its table exists and Kafka is connected.
SELECT EXISTS (
    SELECT FROM pg_stat_activity WHERE query ILIKE 'LISTEN%outbox_bench_faststream%'
) AS listens

-- name: empty_faststream
-- It deletes what it has passed on; this is for the statistics.
TRUNCATE bench_faststream

-- name: decode_in_memory
-- A backlog committed at once shall not be spilt to disk by the decoder: a backlog grown slowly would not be.
ALTER SYSTEM SET logical_decoding_work_mem = '1GB'

-- name: reload
-- Put that into effect.
SELECT pg_reload_conf()
