-- name: append_events
-- Write a command (none if $1 is null), its events and their outbox rows in one statement. The statement writes nothing
-- and returns the reason if a command of the same type is pending, or if an aggregate has no event with the version
-- before its first event given here. If an event with a given version exists already, a unique constraint fails the
-- statement. The version before is read by a scalar subquery: for a join the planner, which estimates 100 rows for each
-- unnest(), would read all events.
WITH event AS (
    SELECT event_id, topic, envelope::jsonb AS envelope, position
    FROM unnest($7::uuid[], $8::text[], $9::text[]) WITH ORDINALITY AS event (event_id, topic, envelope, position)
),
pending AS (
    SELECT inbox.id FROM command_inbox AS inbox
    WHERE inbox.session_id = $2::uuid AND inbox.command_type = $3::text AND inbox.status IN ('RECEIVED', 'PROCESSING')
        AND $5::command_status IN ('RECEIVED', 'PROCESSING')
),
gap AS (
    SELECT aggregate_type, aggregate_id, version
    FROM unnest($10::text[], $11::text[], $12::int[]) AS first (aggregate_type, aggregate_id, version)
    WHERE version > 1 AND (
        SELECT last.id FROM domain_events AS last
        WHERE last.aggregate_type = first.aggregate_type AND last.aggregate_id = first.aggregate_id
            AND last.aggregate_version = first.version - 1
    ) IS NULL
    LIMIT 1
),
free AS (
    SELECT WHERE NOT EXISTS (SELECT FROM pending) AND NOT EXISTS (SELECT FROM gap)
),
inbox AS (
    INSERT INTO command_inbox (id, session_id, command_type, payload, status, idempotency_key)
    SELECT $1::uuid, $2::uuid, $3::text, $4::text::jsonb, $5::command_status, $6::text FROM free WHERE $1 IS NOT NULL
),
events AS (
    INSERT INTO domain_events (event_id, correlation_id, causation_id, event_type, event_version,
        aggregate_type, aggregate_id, aggregate_version, payload, metadata)
    SELECT event_id, (envelope ->> 'correlation_id')::uuid, (envelope ->> 'causation_id')::uuid,
        envelope ->> 'event_type', (envelope ->> 'event_version')::int,
        envelope ->> 'aggregate_type', envelope ->> 'aggregate_id', (envelope ->> 'version')::int,
        envelope -> 'payload', envelope -> 'metadata'
    FROM event, free ORDER BY position
),
outbox AS (
    INSERT INTO event_outbox (topic, key, payload)
    SELECT topic, envelope ->> 'aggregate_id', envelope FROM event, free ORDER BY position
)
SELECT id AS duplicate_id, NULL AS aggregate_type, NULL AS aggregate_id, NULL AS version FROM pending
UNION ALL
SELECT NULL, aggregate_type, aggregate_id, version FROM gap

-- name: settle_command
-- End the pending command $1 with status $2 and the error $3; return no row if the command is not pending.
UPDATE command_inbox SET status = $2, error_data = $3::text::jsonb
WHERE id = $1 AND status IN ('RECEIVED', 'PROCESSING')
RETURNING id
