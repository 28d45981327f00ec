-- Erase the content about aggregates as in 0003, and also clear not_before of the tasks that the erasure cancels. Only a
-- PENDING task may have not_before, so the erasure of 0003 failed if the flow of a command of the aggregate was suspended.
CREATE OR REPLACE FUNCTION relaybox_erase(aggregate_type TEXT, aggregate_ids TEXT[], actor TEXT, reason TEXT)
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
            lease_until = NULL, lease_token = NULL, not_before = NULL
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

-- CREATE OR REPLACE has removed the search_path that 0003 set for the function.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION relaybox_erase(TEXT, TEXT[], TEXT, TEXT) SET search_path = %I, pg_temp',
        current_schema());
END
$$;
