-- name: stream
-- Return one aggregate's events after a version, oldest first; versions have no gaps, so no event is skipped.
SELECT event_id, correlation_id, causation_id, event_type, event_version, aggregate_type, aggregate_id,
    aggregate_version, payload::text, metadata::text, created_at
FROM domain_events
WHERE aggregate_type = $1 AND aggregate_id = $2 AND aggregate_version > $3
ORDER BY aggregate_version
LIMIT $4

-- name: recent
-- Return one aggregate's events before a version, newest first; the latest without a version.
SELECT event_id, correlation_id, causation_id, event_type, event_version, aggregate_type, aggregate_id,
    aggregate_version, payload::text, metadata::text, created_at
FROM domain_events
WHERE aggregate_type = $1 AND aggregate_id = $2 AND ($3::int IS NULL OR aggregate_version < $3)
ORDER BY aggregate_version DESC
LIMIT $4

-- name: chain
-- Return all events of one chain, in the order of insertion.
SELECT event_id, correlation_id, causation_id, event_type, event_version, aggregate_type, aggregate_id,
    aggregate_version, payload::text, metadata::text, created_at
FROM domain_events
WHERE correlation_id = $1
ORDER BY id
LIMIT $2

-- name: streams_page
-- Return the events of all aggregates of a type after a position, stream by stream, for rebuilding snapshots.
SELECT event_id, correlation_id, causation_id, event_type, event_version, aggregate_type, aggregate_id,
    aggregate_version, payload::text, metadata::text, created_at
FROM domain_events
WHERE aggregate_type = $1 AND (aggregate_id, aggregate_version) > ($2, $3)
ORDER BY aggregate_id, aggregate_version
LIMIT $4

-- name: publish
-- Insert an event and its outbox row, or neither: nothing if the id or the version is recorded, or the version before it
-- is missing. ON CONFLICT names no index: with one named, two transactions that publish the same event could conflict
-- on the other index and abort. It waits for the other transaction and may not see its row, which the next statement
-- then reads. The outbox row is inserted last: relays publish in the order of its number, which must be higher than
-- that of the preceding event.
WITH given AS MATERIALIZED (
    SELECT doc, (doc ->> 'event_id')::uuid AS event_id, doc ->> 'aggregate_type' AS aggregate_type,
        doc ->> 'aggregate_id' AS aggregate_id, (doc ->> 'version')::int AS version
    FROM (SELECT $3::text::jsonb AS doc) AS one
),
recorded AS (
    INSERT INTO domain_events (event_id, correlation_id, causation_id, event_type, event_version,
        aggregate_type, aggregate_id, aggregate_version, payload, metadata)
    SELECT event_id, (doc ->> 'correlation_id')::uuid, (doc ->> 'causation_id')::uuid, doc ->> 'event_type',
        (doc ->> 'event_version')::int, aggregate_type, aggregate_id, version, doc -> 'payload', doc -> 'metadata'
    FROM given
    -- Without this condition a repeated event would use up a number and a transaction id.
    WHERE NOT EXISTS (SELECT FROM domain_events AS same WHERE same.event_id = given.event_id)
        AND (version = 1 OR EXISTS (
            SELECT FROM domain_events AS last
            WHERE last.aggregate_type = given.aggregate_type AND last.aggregate_id = given.aggregate_id
                AND last.aggregate_version = given.version - 1
        ))
    ON CONFLICT DO NOTHING
    RETURNING event_id, correlation_id, causation_id, event_type, event_version, aggregate_type, aggregate_id,
        aggregate_version, payload, metadata, created_at
),
outbox AS (
    INSERT INTO event_outbox (topic, key, payload) SELECT $1, $2, given.doc FROM given, recorded
)
SELECT event_id, correlation_id, causation_id, event_type, event_version, aggregate_type, aggregate_id,
    aggregate_version, payload::text, metadata::text, created_at
FROM recorded

-- name: published
-- Return the event of an id, and whether its payload equals that of the envelope $2 as JSONB: by value, in any order.
SELECT event_id, correlation_id, causation_id, event_type, event_version, aggregate_type, aggregate_id,
    aggregate_version, payload::text, metadata::text, created_at,
    coalesce(payload, '{}') = $2::text::jsonb -> 'payload' AS same_payload
FROM domain_events
WHERE event_id = $1

-- name: erase
-- Erase the content about aggregates in all tables but the outbox; see the function.
SELECT events, commands, tasks, answers, snapshots FROM relaybox_erase($1, $2, $3, $4)

-- name: rows_to_erase
-- Return the outbox rows of erased aggregates.
SELECT DISTINCT slot, seq FROM relaybox_rows_to_erase($1, $2)

-- name: erase_rows
-- Erase the payloads of these outbox rows, sorted in the order in which relays mark them.
SELECT relaybox_erase_rows($1::bigint[]) AS outbox_rows
