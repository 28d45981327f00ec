-- name: create_events
-- Store the events of all contestants outside the outbox, so that each publishes the same.
CREATE UNLOGGED TABLE bench_events (number INT NOT NULL, key TEXT NOT NULL, payload JSONB NOT NULL)

-- name: make_events
-- Insert $1 events of $2 keys in turn, with envelopes of $3 published bytes. The text is hex digits of hashes, which
-- compress about as well as real texts.
INSERT INTO bench_events
SELECT number, key,
       jsonb_set(bare, '{payload,text}', to_jsonb(left(filler, $3::int - length(bare::text))))
FROM generate_series(1, $1::int) AS number,
     LATERAL (SELECT md5((number % $2::int)::text)::uuid::text AS key) AS keys,
     LATERAL (SELECT string_agg(md5(number || '-' || part), '') AS filler FROM generate_series(1, 12) AS part) AS filler,
     LATERAL (SELECT jsonb_build_object(
         'event_id', gen_random_uuid(), 'event_type', 'Genesis.Session.FeedbackSubmitted', 'event_version', 1,
         'aggregate_type', 'GENESIS_SESSION', 'aggregate_id', key, 'correlation_id', gen_random_uuid(),
         'causation_id', NULL, 'timestamp', '2026-01-01T00:00:00.000000Z', 'version', number / $2::int + 1,
         'payload', jsonb_build_object('text', ''),
         'metadata', jsonb_build_object('source_service', 'api-gateway')) AS bare) AS envelope

-- name: count_wrong_sizes
-- Count the envelopes whose size is not $1 bytes.
SELECT count(*) AS rows FROM bench_events WHERE length(payload::text) <> $1::int

-- name: empty_outbox
-- Empty the outbox for the next contestant.
TRUNCATE event_outbox

-- name: fill_outbox
-- Insert the backlog into the outbox in the order of its numbers.
INSERT INTO event_outbox (topic, key, payload) SELECT $1, key, payload FROM bench_events ORDER BY number

-- name: analyze_outbox
-- Analyze before the backlog is committed, so that no contestant uses a plan for an empty table.
ANALYZE event_outbox

-- name: checkpoint
-- Checkpoint before the backlog is written, so that the WAL has full images of its pages already when rows are marked.
CHECKPOINT

-- name: now_and_wal
-- Read the server's clock and WAL position.
SELECT clock_timestamp() AS at, pg_current_wal_lsn() - '0/0'::pg_lsn AS wal_bytes

-- name: pending
-- Return whether a row is PENDING; mostly reads only the last row. Not used for the loop and the producer.
SELECT (SELECT status = 'PENDING' FROM event_outbox WHERE seq = (SELECT max(seq) FROM event_outbox))
    OR EXISTS (SELECT FROM event_outbox WHERE status = 'PENDING') AS pending

-- name: last_sent
-- Return the number of SENT rows, and the last time at which a row was marked as SENT.
SELECT max(sent_at) AS at, count(*) FILTER (WHERE status = 'SENT') AS rows FROM event_outbox

-- name: dead_tuples
-- Count the row versions that updates and deletes have made dead so far, including those removed by vacuum, and the
-- backends of relays that may not have reported their statistics yet.
SELECT (SELECT coalesce(sum(n_tup_upd + n_tup_del), 0)::bigint FROM pg_stat_user_tables) AS dead,
       (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'message-relay') AS backends

-- name: lanes_by_owner
-- Count the lanes of each relay.
SELECT count(*) AS lanes FROM relay_lanes WHERE owner IS NOT NULL AND lease_until > clock_timestamp() GROUP BY owner

-- name: create_plain_outbox
-- Create the table of the loop and the producer: the simplest table for a select in order and an update by id. The ids
-- are integers, because these are fastest.
CREATE TABLE bench_outbox (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic TEXT NOT NULL,
    key TEXT NOT NULL,
    payload JSONB NOT NULL,
    status outbox_status NOT NULL DEFAULT 'PENDING',
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    sent_at TIMESTAMPTZ
);
CREATE INDEX idx_bench_outbox_pending ON bench_outbox (id) WHERE status = 'PENDING';
GRANT SELECT, UPDATE ON bench_outbox TO PUBLIC

-- name: empty_plain_outbox
-- Empty the table for the next round.
TRUNCATE bench_outbox

-- name: fill_plain_outbox
-- Insert the same backlog in the same order as fill_outbox.
INSERT INTO bench_outbox (topic, key, payload) SELECT $1, key, payload FROM bench_events ORDER BY number

-- name: analyze_plain_outbox
-- Analyze the table, as analyze_outbox does.
ANALYZE bench_outbox

-- name: select_batch
-- Read the next batch of the loop, with the columns for the headers.
SELECT id, topic, key, payload::text AS value,
       payload ->> 'event_id' AS event_id,
       payload ->> 'event_type' AS event_type,
       payload ->> 'timestamp' AS time,
       payload ->> 'aggregate_id' AS subject,
       payload ->> 'correlation_id' AS correlation_id,
       payload -> 'metadata' ->> 'source_service' AS source
FROM bench_outbox WHERE status = 'PENDING' ORDER BY id LIMIT $1::int

-- name: mark_batch
-- Mark the batch of the loop as published.
UPDATE bench_outbox SET status = 'SENT', sent_at = now() WHERE id = ANY ($1::bigint[])

-- name: drop_events
-- Drop the stored events, because another backlog may follow.
DROP TABLE bench_events, bench_outbox

-- name: wake_relays
-- Notify the relays like the notifier of a service.
SELECT pg_notify($1, '')
