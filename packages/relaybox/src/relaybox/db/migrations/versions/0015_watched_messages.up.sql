-- The partitions that a process of a consumer group reads (G41). A process deletes its rows when partitions are revoked, and when
-- it stops: a row of another process means that the process ended without stopping, or is about to delete the row.
CREATE TABLE consumer_partitions (
    consumer_group TEXT NOT NULL,
    topic TEXT NOT NULL,
    partition INT NOT NULL,
    process UUID NOT NULL,
    PRIMARY KEY (consumer_group, topic, partition)
);

-- Messages and dead letters whose handlers a consumer calls one at a time, after a process ended without stopping.
CREATE TABLE watched_messages (
    consumer_group TEXT NOT NULL,
    topic TEXT NOT NULL,
    partition INT NOT NULL,
    message_offset BIGINT NOT NULL,
    -- The dead letter that is replayed; 0 for a message.
    letter_id BIGINT NOT NULL DEFAULT 0,
    -- The process that called the handler; null once the handler has failed or its process has stopped.
    process UUID,
    -- How many processes ended in the handler.
    processes_ended INT NOT NULL DEFAULT 0,
    PRIMARY KEY (consumer_group, topic, partition, message_offset, letter_id)
);

-- What a service may do; see 0003.
CREATE OR REPLACE FUNCTION relaybox_grant(service NAME) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), service);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON command_inbox, async_tasks, event_outbox, relay_lanes, '
        'relay_members, relay_batches, relay_origin, consumed_events, dead_letters, flow_resume_handles, flow_steps, flow_waits, flow_events, flow_event_keys, work_schedules, park_requests, consumer_partitions, watched_messages, '
        'idempotency_cache, idempotency_bodies, aggregate_snapshots, stream_tickets TO %I', service);
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
