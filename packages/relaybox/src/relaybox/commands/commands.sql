-- name: load
-- Load snapshots, their pending commands, and the responses stored under clients' idempotency keys. The state is null if
-- a response is stored that has not expired, because that response is sent and the command is not decided.
WITH loaded AS (
-- include: load
)
SELECT asked.id, loaded.aggregate_type, loaded.owner, pending.commands::text AS commands,
    CASE WHEN kept.key IS NULL OR kept.expires_at <= clock_timestamp() THEN loaded.state::text END AS state,
    kept.key, kept.result::text AS result, kept.created_at, kept.expires_at,
    kept.expires_at <= clock_timestamp() AS expired,
    extract(epoch FROM clock_timestamp() - kept.created_at)::float8 AS age_s
FROM unnest($1::uuid[], $2::text[]) AS asked (id, key)
LEFT JOIN loaded ON loaded.id = asked.id
LEFT JOIN idempotency_cache AS kept ON kept.key = asked.key
LEFT JOIN LATERAL (
    SELECT jsonb_object_agg(inbox.command_type, inbox.id) AS commands
    FROM command_inbox AS inbox
    WHERE inbox.session_id = loaded.id AND inbox.status IN ('RECEIVED', 'PROCESSING')
) AS pending ON true

-- name: record
-- Write commands, their events, outbox rows, snapshots and responses: all or nothing, in one statement. The part
-- "advanced" checks the versions of the snapshots, and the other parts join the rows that it returns, so a command with
-- a stale version writes nothing. The inserts of commands, claims and events have no ON CONFLICT: a race fails the
-- statement, and the caller repeats it. ON CONFLICT would wait for the other transaction, and afterwards the statement
-- could not read the row of that transaction.
WITH advanced AS (
-- include: snapshot
),
inbox AS (
    INSERT INTO command_inbox (id, session_id, command_type, payload, status, idempotency_key)
    SELECT command.id, command.session_id, command.type, command.payload::jsonb, command.status, command.key
    FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::command_status[], $17::text[])
        AS command (id, session_id, type, payload, status, key)
    JOIN advanced ON advanced.id = command.session_id
),
response AS (
    SELECT response.key, response.result, response.ttl_s, response.body
    FROM unnest($18::uuid[], $19::text[], $20::text[], $21::float8[], $22::bytea[])
        AS response (aggregate_id, key, result, ttl_s, body)
    JOIN advanced ON advanced.id = response.aggregate_id
),
claim AS (
    -- Fails if another command has claimed the key: then nothing of this statement is written.
-- include: claim_keys
    RETURNING key, expires_at
),
body AS (
-- include: store_bodies
),
event AS (
    SELECT event_id, aggregate_id, topic, envelope::jsonb AS envelope, position
    FROM unnest($7::uuid[], $8::uuid[], $9::text[], $10::text[])
        WITH ORDINALITY AS event (event_id, aggregate_id, topic, envelope, position)
    JOIN advanced ON advanced.id = event.aggregate_id
),
events AS (
    INSERT INTO domain_events (event_id, correlation_id, causation_id, event_type, event_version,
        aggregate_type, aggregate_id, aggregate_version, payload, metadata)
    SELECT event_id, (envelope ->> 'correlation_id')::uuid, (envelope ->> 'causation_id')::uuid,
        envelope ->> 'event_type', (envelope ->> 'event_version')::int,
        envelope ->> 'aggregate_type', envelope ->> 'aggregate_id', (envelope ->> 'version')::int,
        envelope -> 'payload', envelope -> 'metadata'
    FROM event ORDER BY position
),
outbox AS (
    INSERT INTO event_outbox (topic, key, payload)
    SELECT topic, envelope ->> 'aggregate_id', envelope FROM event ORDER BY position
),
settlement AS (
    SELECT settlement.*
    FROM unnest($11::uuid[], $12::uuid[], $13::command_status[], $14::task_status[], $15::text[], $16::text[])
        AS settlement (aggregate_id, command_id, command_status, task_status, result, error)
    JOIN advanced ON advanced.id = settlement.aggregate_id
),
settled AS (
    UPDATE command_inbox AS inbox SET status = settlement.command_status, error_data = settlement.error::jsonb
    FROM settlement
    WHERE inbox.id = settlement.command_id AND inbox.status IN ('RECEIVED', 'PROCESSING')
),
tasks AS (
    UPDATE async_tasks AS task SET status = settlement.task_status, result_data = settlement.result::jsonb,
        error_data = settlement.error::jsonb, lease_until = NULL, lease_token = NULL, not_before = NULL,
        progress = CASE WHEN settlement.task_status = 'COMPLETED' THEN 100 ELSE task.progress END
    FROM settlement
    WHERE task.triggered_by_command_id = settlement.command_id AND task.status IN ('PENDING', 'RUNNING')
)
SELECT id FROM advanced
