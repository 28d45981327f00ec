-- name: stream
-- Return one aggregate's events after version $3, oldest first. Versions have no gaps, so no event is skipped.
SELECT event_id, correlation_id, causation_id, event_type, event_version, aggregate_type, aggregate_id,
    aggregate_version, payload::text, metadata::text, created_at
FROM domain_events
WHERE aggregate_type = $1 AND aggregate_id = $2 AND aggregate_version > $3
ORDER BY aggregate_version
LIMIT $4

-- name: recent
-- Return one aggregate's events before version $3, or all if $3 is null, at most $4, newest first.
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
-- Return the events of all aggregates of a type after aggregate $2, version $3, one aggregate after the other.
SELECT event_id, correlation_id, causation_id, event_type, event_version, aggregate_type, aggregate_id,
    aggregate_version, payload::text, metadata::text, created_at
FROM domain_events
WHERE aggregate_type = $1 AND (aggregate_id, aggregate_version) > ($2, $3)
ORDER BY aggregate_id, aggregate_version
LIMIT $4

-- name: publish
-- Insert an event and its outbox row. Insert nothing if the event's id or version is already recorded, or if
-- the preceding version is missing. ON CONFLICT names no index: if it named one, two transactions that
-- publish the same event could conflict on the other index and abort. Instead, the INSERT waits until the
-- other transaction has ended, and returns no row if that transaction has recorded the event; the caller then
-- reads the event by "published". The outbox row is inserted last, so that its seq, which determines the
-- order of publication, is higher than the seq of the preceding event.
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
    -- Without this condition a repeated event would use up a value of the id's sequence and a transaction id.
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
-- Return the event with id $1, and whether its payload equals that of the envelope $2 as JSONB (by value, in any order).
SELECT event_id, correlation_id, causation_id, event_type, event_version, aggregate_type, aggregate_id,
    aggregate_version, payload::text, metadata::text, created_at,
    coalesce(payload, '{}') = $2::text::jsonb -> 'payload' AS same_payload
FROM domain_events
WHERE event_id = $1

-- name: erase
-- Erase the content about aggregates $2 of type $1 in all tables except the outbox; $3: actor, $4: reason.
SELECT events, commands, tasks, answers, snapshots FROM relaybox_erase($1, $2, $3, $4)

-- name: letters_to_erase
-- Lock and return the next $4 dead letters of aggregates $2 of type $1 after letter $3, without those that
-- are erased already: their error is $5.
SELECT id, value FROM dead_letters
WHERE aggregate_type = $1 AND aggregate_id = ANY ($2::text[]) AND id > $3 AND error <> $5
ORDER BY id LIMIT $4 FOR NO KEY UPDATE

-- name: erase_letters
-- Replace the values of the dead letters $1 by $2, and their errors by $3. Delete their headers, which may
-- have content, except those of a CloudEvent.
UPDATE dead_letters AS letter SET value = erased.value, error = $3,
    headers = (SELECT coalesce(jsonb_agg(header ORDER BY place), '[]')
               FROM jsonb_array_elements(letter.headers) WITH ORDINALITY AS header (header, place)
               WHERE header ->> 0 = 'content-type' OR header ->> 0 LIKE 'ce\_%')
FROM unnest($1::bigint[], $2::bytea[]) AS erased (id, value)
WHERE letter.id = erased.id
RETURNING letter.id

-- name: erase_flow_events
-- Erase the events of aggregates $2 of type $1 in all tables of flows: the events that are kept for flows
-- (flow_events), those that flows have received (flow_waits), and their copies in results of steps
-- (flow_steps). Return the number of rows of flow_events.
WITH kept AS (
    UPDATE flow_events SET envelope = relaybox_erased_payload(envelope)
    WHERE key = ANY($2::text[]) AND envelope ->> 'aggregate_type' = $1
    RETURNING id
), got AS (
    UPDATE flow_waits SET event = relaybox_erased_payload(event)
    WHERE key = ANY($2::text[]) AND event ->> 'aggregate_type' = $1
    RETURNING task_id, correlation_id
), steps AS (
    UPDATE flow_steps AS step
    SET result = jsonb_set(step.result, '{value}', relaybox_erased_payload(step.result -> 'value'))
    FROM got
    WHERE step.task_id = got.task_id AND got.correlation_id = got.task_id || '/' || step.name AND step.result ? 'value'
)
SELECT count(*)::int AS flow_events FROM kept

-- name: rows_to_erase
-- Return slot and seq of the outbox rows of aggregates $2 of type $1.
SELECT DISTINCT slot, seq FROM relaybox_rows_to_erase($1, $2)

-- name: erase_rows
-- Erase the payloads of the outbox rows $1. The caller sorts them in the order in which relays mark rows, so
-- that no deadlock with a relay occurs.
SELECT relaybox_erase_rows($1::bigint[]) AS outbox_rows
