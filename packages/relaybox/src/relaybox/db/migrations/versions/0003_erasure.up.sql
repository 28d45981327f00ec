-- Erasures with the aggregates, the actor and the reason. relaybox_erase inserts rows; services have the right SELECT only.
CREATE TABLE event_erasures (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    aggregate_type TEXT NOT NULL,
    aggregate_ids TEXT[] NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    erased_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    -- The transaction that inserted this row, the only one that may erase events because of it.
    transaction_id XID8 NOT NULL DEFAULT pg_current_xact_id(),
    -- Numbers of rows with erased content, by table.
    events INT NOT NULL DEFAULT 0,
    commands INT NOT NULL DEFAULT 0,
    tasks INT NOT NULL DEFAULT 0,
    answers INT NOT NULL DEFAULT 0,
    snapshots INT NOT NULL DEFAULT 0,
    CONSTRAINT event_erasures_named_check CHECK (actor <> '' AND reason <> '')
);
CREATE INDEX idx_event_erasures_at ON event_erasures (erased_at);

-- An erasure finds SENT rows by created_at, the time of the transaction, which is also that of the event. An index by
-- aggregate would cost each mark a random page of an index as large as the table; in this index, each mark writes to the
-- end (1.1 us and 66 bytes of WAL more).
CREATE INDEX idx_event_outbox_sent ON event_outbox (created_at) WHERE status = 'SENT';
-- Stored responses by the aggregates that they are about (targets); responses without targets are not in the index. Without
-- fastupdate, because each search would scan the list of pending entries.
CREATE INDEX idx_idempotency_cache_targets ON idempotency_cache USING gin ((result -> 'targets'))
    WITH (fastupdate = off) WHERE result ? 'targets';

-- The metadata that an erased event keeps: actor, service, command and time; other metadata may be content.
CREATE FUNCTION relaybox_kept_metadata(metadata JSONB) RETURNS JSONB LANGUAGE sql STABLE AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object('user_id', metadata -> 'user_id',
        'source_service', metadata -> 'source_service', 'command_id', metadata -> 'command_id',
        'timestamp', metadata -> 'timestamp'))
$$;

-- Append-only (G07) with one exception: the content of an event may be erased in the transaction that has inserted a row
-- into event_erasures. A session setting would not protect events, because every role can change settings.
CREATE OR REPLACE FUNCTION refuse_change_of_events() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    erased RECORD;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        erased := OLD;
        erased.payload := '{"erased": true}'::jsonb;
        erased.metadata := relaybox_kept_metadata(OLD.metadata);
        IF NEW IS NOT DISTINCT FROM erased AND EXISTS (
            SELECT FROM event_erasures WHERE erased_at = now() AND transaction_id = pg_current_xact_id()
        ) THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'domain_events is append-only: % refused', TG_OP USING ERRCODE = 'restrict_violation';
END
$$;

-- Erase the content of the rows about these aggregates in every table of the library except the outbox; type, time,
-- actor and aggregate of each event stay. The caller holds the locks that writers of these aggregates take: rows that
-- another transaction commits during this call are not erased. The only exception to G07, recorded in event_erasures.
-- The caller then erases outbox rows by the next two functions, last because relays wait for locks on these rows.
CREATE FUNCTION relaybox_erase(aggregate_type TEXT, aggregate_ids TEXT[], actor TEXT, reason TEXT)
    RETURNS event_erasures LANGUAGE plpgsql SECURITY DEFINER SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    content CONSTANT JSONB := '{"erased": true}';
    uuids UUID[];
    keys TEXT[];
    erasure event_erasures;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'an older snapshot does not see every row to erase: call this in READ COMMITTED';
    END IF;
    INSERT INTO event_erasures (aggregate_type, aggregate_ids, actor, reason)
        VALUES (relaybox_erase.aggregate_type, relaybox_erase.aggregate_ids, relaybox_erase.actor, relaybox_erase.reason)
        RETURNING * INTO erasure;
    -- Ids of aggregates are UUIDs in commands, tasks and snapshots, and any text in events.
    uuids := ARRAY(SELECT id::uuid FROM unnest(erasure.aggregate_ids) AS id
                   WHERE id ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$');

    UPDATE domain_events AS event SET payload = content, metadata = relaybox_kept_metadata(event.metadata)
        WHERE event.aggregate_type = erasure.aggregate_type AND event.aggregate_id = ANY (erasure.aggregate_ids)
            AND event.payload IS DISTINCT FROM content;
    GET DIAGNOSTICS erasure.events = ROW_COUNT;

    WITH erased AS (
        UPDATE command_inbox AS inbox SET payload = NULL, error_data = NULL, idempotency_key = NULL,
            status = CASE WHEN inbox.status IN ('RECEIVED', 'PROCESSING') THEN 'FAILED' ELSE inbox.status END
        WHERE inbox.session_id = ANY (uuids)
        RETURNING inbox.id
    ), ended AS (
        UPDATE async_tasks AS task SET input_data = NULL, result_data = NULL, error_data = NULL,
            status = CASE WHEN task.status IN ('PENDING', 'RUNNING') THEN 'CANCELLED' ELSE task.status END,
            lease_until = NULL, lease_token = NULL
        WHERE task.id IN (SELECT id FROM async_tasks WHERE aggregate_id = ANY (uuids)
                          UNION SELECT worked.id FROM async_tasks AS worked
                              JOIN erased ON erased.id = worked.triggered_by_command_id)
        RETURNING task.id
    )
    SELECT (SELECT count(*) FROM erased), (SELECT count(*) FROM ended) INTO erasure.commands, erasure.tasks;

    DELETE FROM aggregate_snapshots AS snapshot
        WHERE snapshot.id = ANY (uuids) AND snapshot.aggregate_type = erasure.aggregate_type;
    GET DIAGNOSTICS erasure.snapshots = ROW_COUNT;

    -- The row of the key stays, so that a repeated request is not executed again. One index search per id: a search for
    -- all ids would compare each row found with every id (10,000 ids: a minute instead of 1 s).
    keys := ARRAY(
        SELECT kept.key FROM unnest(erasure.aggregate_ids) AS target (id)
        JOIN idempotency_cache AS kept ON kept.result ? 'targets' AND kept.result -> 'targets' ? target.id);
    UPDATE idempotency_cache AS kept SET result = jsonb_build_object('status', kept.result -> 'status',
            'fingerprint', kept.result -> 'fingerprint', 'body', 'erased')
        WHERE kept.key = ANY (keys);
    GET DIAGNOSTICS erasure.answers = ROW_COUNT;
    DELETE FROM idempotency_bodies WHERE key = ANY (keys);

    UPDATE event_erasures AS kept SET events = erasure.events, commands = erasure.commands, tasks = erasure.tasks,
            answers = erasure.answers, snapshots = erasure.snapshots
        WHERE kept.id = erasure.id;
    RETURN erasure;
END
$$;

-- Return the outbox rows of aggregates with erased events, without locking them. The first query reads PENDING and FAILED
-- rows by their small indexes, the second the SENT rows of erased events. A row that a relay marks SENT between both
-- queries is returned by at least one of them, and may be returned twice.
CREATE FUNCTION relaybox_rows_to_erase(aggregate_type TEXT, aggregate_ids TEXT[])
    RETURNS TABLE (slot INT, seq BIGINT) LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    type CONSTANT TEXT := relaybox_rows_to_erase.aggregate_type;
    times TIMESTAMPTZ[];
BEGIN
    RETURN QUERY
        SELECT o.slot, o.seq FROM event_outbox AS o
        WHERE o.status = 'PENDING' AND o.payload ->> 'aggregate_type' = type
            AND o.payload ->> 'aggregate_id' IN (SELECT unnest(aggregate_ids))
        UNION ALL SELECT o.slot, o.seq FROM event_outbox AS o
        WHERE o.status = 'FAILED' AND o.payload ->> 'aggregate_type' = type
            AND o.payload ->> 'aggregate_id' IN (SELECT unnest(aggregate_ids));
    times := ARRAY(
        SELECT DISTINCT event.created_at FROM domain_events AS event
        WHERE event.aggregate_type = type AND event.aggregate_id = ANY (aggregate_ids)
            AND event.payload = '{"erased": true}'
            AND event.created_at >= (SELECT min(created_at) FROM event_outbox WHERE status = 'SENT'));
    RETURN QUERY
        SELECT o.slot, o.seq FROM event_outbox AS o
        WHERE o.status = 'SENT' AND o.created_at = ANY (times) AND o.payload ->> 'aggregate_type' = type
            AND o.payload ->> 'aggregate_id' IN (SELECT unnest(aggregate_ids));
END
$$;

-- Erase the content of the outbox rows *seqs*, and return the number of rows that had content. The rows are locked in the
-- order in which relays mark rows, because another order would cause deadlocks. A caller that needs several calls must sort
-- the rows by slot and seq before.
CREATE FUNCTION relaybox_erase_rows(seqs BIGINT[]) RETURNS INT LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    content CONSTANT JSONB := '{"erased": true}';
    erased INT;
BEGIN
    PERFORM FROM event_outbox WHERE seq = ANY (seqs) ORDER BY slot, seq FOR NO KEY UPDATE;
    -- target_id may identify a person, and domain_events does not contain it.
    UPDATE event_outbox AS o SET payload = o.payload || jsonb_build_object('payload', content,
            'metadata', relaybox_kept_metadata(o.payload -> 'metadata'), 'target_id', NULL)
        WHERE o.seq = ANY (seqs) AND o.payload -> 'payload' IS DISTINCT FROM content;
    GET DIAGNOSTICS erased = ROW_COUNT;
    RETURN erased;
END
$$;

-- pg_temp is last in the search_path, so that no temporary table of the caller replaces a table that relaybox_erase changes,
-- or event_erasures in the trigger.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION relaybox_erase(TEXT, TEXT[], TEXT, TEXT) SET search_path = %I, pg_temp',
        current_schema());
    EXECUTE format('ALTER FUNCTION refuse_change_of_events() SET search_path = %I, pg_temp', current_schema());
END
$$;
REVOKE ALL ON FUNCTION relaybox_erase(TEXT, TEXT[], TEXT, TEXT) FROM PUBLIC;

-- Grant the role of the services its rights, as in 0002.
CREATE OR REPLACE FUNCTION relaybox_grant(service NAME) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), service);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON command_inbox, async_tasks, event_outbox, relay_lanes, '
        'relay_members, relay_batches, relay_origin, consumed_events, flow_resume_handles, idempotency_cache, idempotency_bodies, '
        'aggregate_snapshots, stream_tickets TO %I', service);
    EXECUTE format('GRANT SELECT, INSERT ON operator_acts TO %I', service);
    EXECUTE format('GRANT SELECT ON event_outbox_slots, event_outbox_turn, idempotency_turn TO %I', service);
    EXECUTE format('GRANT EXECUTE ON FUNCTION relaybox_retain_outbox(INTERVAL) TO %I', service);
    EXECUTE format('GRANT EXECUTE ON FUNCTION relaybox_retain_bodies(INTERVAL) TO %I', service);
    EXECUTE format('GRANT EXECUTE ON FUNCTION relaybox_erase(TEXT, TEXT[], TEXT, TEXT) TO %I', service);
    EXECUTE format('GRANT SELECT ON relaybox_alembic_version TO %I', service);
    EXECUTE format('REVOKE ALL ON domain_events, event_erasures FROM %I', service);
    EXECUTE format('GRANT SELECT, INSERT ON domain_events TO %I', service);
    EXECUTE format('GRANT SELECT ON event_erasures TO %I', service);
END
$$;
