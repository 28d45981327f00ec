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
    EXECUTE format('GRANT SELECT ON relaybox_alembic_version TO %I', service);
    EXECUTE format('REVOKE ALL ON domain_events FROM %I', service);
    EXECUTE format('GRANT SELECT, INSERT ON domain_events TO %I', service);
END
$$;

CREATE OR REPLACE FUNCTION refuse_change_of_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'domain_events is append-only: % refused', TG_OP USING ERRCODE = 'restrict_violation';
END
$$;
ALTER FUNCTION refuse_change_of_events() RESET search_path;

DROP FUNCTION relaybox_erase_rows(BIGINT[]);
DROP FUNCTION relaybox_rows_to_erase(TEXT, TEXT[]);
DROP FUNCTION relaybox_erase(TEXT, TEXT[], TEXT, TEXT);
DROP FUNCTION relaybox_kept_metadata(JSONB);
DROP INDEX idx_idempotency_cache_targets, idx_event_outbox_sent;
DROP TABLE event_erasures;
