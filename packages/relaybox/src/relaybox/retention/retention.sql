-- name: remove_commands
-- Remove at most $2 ended commands that were received over $1 hours ago, oldest first: first commands without a client's
-- idempotency key, then commands with one. One session at a time.
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock('command_inbox'::regclass::int, hashtext('remove_commands')) AS mine
),
-- Each group has its own index; few commands of that age still have a client's key.
keyless AS MATERIALIZED (
    SELECT ctid FROM command_inbox
    WHERE status IN ('COMPLETED', 'FAILED') AND idempotency_key IS NULL
        AND created_at < statement_timestamp() - make_interval(secs => $1 * 3600)
    ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED
),
keyed AS MATERIALIZED (
    SELECT ctid FROM command_inbox
    WHERE status IN ('COMPLETED', 'FAILED') AND idempotency_key IS NOT NULL
        AND created_at < statement_timestamp() - make_interval(secs => $1 * 3600)
    ORDER BY created_at LIMIT $2 - (SELECT count(*) FROM keyless) FOR UPDATE SKIP LOCKED
),
gone AS (
    DELETE FROM command_inbox
    WHERE (SELECT mine FROM turn) AND ctid = ANY(ARRAY(SELECT ctid FROM keyless UNION ALL SELECT ctid FROM keyed))
    RETURNING 1
)
SELECT count(*) AS removed FROM gone

-- name: remove_tasks
-- Remove at most $2 tasks that ended over $1 hours ago, oldest first. One session at a time.
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock('async_tasks'::regclass::int, hashtext('remove_tasks')) AS mine
),
gone AS (
    DELETE FROM async_tasks
    WHERE (SELECT mine FROM turn) AND ctid = ANY(ARRAY(
        SELECT ctid FROM async_tasks
        WHERE status IN ('COMPLETED', 'FAILED', 'CANCELLED') AND updated_at < statement_timestamp() - make_interval(secs => $1 * 3600)
        ORDER BY updated_at LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) AS removed FROM gone

-- name: remove_consumed_events
-- Remove at most $2 records of events consumed over $1 hours ago, oldest first. One session at a time.
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock('consumed_events'::regclass::int, hashtext('remove_consumed_events')) AS mine
),
gone AS (
    DELETE FROM consumed_events
    WHERE (SELECT mine FROM turn) AND ctid = ANY(ARRAY(
        SELECT ctid FROM consumed_events
        WHERE consumed_at < statement_timestamp() - make_interval(secs => $1 * 3600)
        ORDER BY consumed_at LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) AS removed FROM gone

-- name: remove_dead_letters
-- Remove at most $2 dead letters that were replayed or discarded over $1 hours ago, oldest first. One session at a time.
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock('dead_letters'::regclass::int, hashtext('remove_dead_letters')) AS mine
),
gone AS (
    DELETE FROM dead_letters
    WHERE (SELECT mine FROM turn) AND ctid = ANY(ARRAY(
        SELECT ctid FROM dead_letters
        WHERE status IN ('REPLAYED', 'DISCARDED') AND resolved_at < statement_timestamp() - make_interval(secs => $1 * 3600)
        ORDER BY resolved_at LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) AS removed FROM gone

-- name: remove_flow_handles
-- Remove at most $2 resume handles of flows whose pause ended over $1 hours ago, oldest first. One session at a time.
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock('flow_resume_handles'::regclass::int, hashtext('remove_flow_handles')) AS mine
),
gone AS (
    DELETE FROM flow_resume_handles
    WHERE (SELECT mine FROM turn) AND ctid = ANY(ARRAY(
        SELECT ctid FROM flow_resume_handles
        WHERE status IN ('RESUMED', 'EXPIRED') AND updated_at < statement_timestamp() - make_interval(secs => $1 * 3600)
        ORDER BY updated_at LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) AS removed FROM gone

-- name: remove_flow_events
-- Remove at most $2 events that arrived over $1 hours ago and are kept for flows, oldest first. One session at a time.
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock('flow_events'::regclass::int, hashtext('remove_flow_events')) AS mine
),
gone AS (
    DELETE FROM flow_events
    WHERE (SELECT mine FROM turn) AND ctid = ANY(ARRAY(
        SELECT ctid FROM flow_events
        WHERE received_at < statement_timestamp() - make_interval(secs => $1 * 3600)
        ORDER BY received_at LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) AS removed FROM gone

-- name: remove_flow_event_keys
-- Remove at most $2 rows of flow_event_keys, by which flows and events are serialized, that were last changed over $1 hours
-- ago, oldest first. One session at a time.
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock('flow_event_keys'::regclass::int, hashtext('remove_flow_event_keys')) AS mine
),
gone AS (
    DELETE FROM flow_event_keys
    WHERE (SELECT mine FROM turn) AND ctid = ANY(ARRAY(
        SELECT ctid FROM flow_event_keys
        WHERE changed_at < statement_timestamp() - make_interval(secs => $1 * 3600)
        ORDER BY changed_at LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) AS removed FROM gone

-- name: clear_idempotency_keys
-- Remove the client's idempotency key from at most $2 commands received over $1 hours ago, oldest first. One session at a time.
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock('command_inbox'::regclass::int, hashtext('clear_idempotency_keys')) AS mine
),
changed AS (
    UPDATE command_inbox SET idempotency_key = NULL
    WHERE (SELECT mine FROM turn) AND ctid = ANY(ARRAY(
        SELECT ctid FROM command_inbox
        WHERE idempotency_key IS NOT NULL AND created_at < statement_timestamp() - make_interval(secs => $1 * 3600)
        ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) AS removed FROM changed
