-- As in 0010.
CREATE OR REPLACE FUNCTION relaybox_grant(service NAME) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), service);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON command_inbox, async_tasks, event_outbox, relay_lanes, '
        'relay_members, relay_batches, relay_origin, consumed_events, dead_letters, flow_resume_handles, '
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
DROP INDEX idx_async_tasks_failed;
DROP TABLE flow_event_keys;
DROP TABLE flow_events;
DROP TABLE flow_waits;
DROP TABLE flow_steps;
DROP INDEX idx_async_tasks_not_before;
DROP INDEX idx_async_tasks_claim;
CREATE INDEX idx_async_tasks_claim ON async_tasks (coalesce(claim_order_at, created_at), task_type)
    WHERE status IN ('PENDING', 'RUNNING');
ALTER TABLE async_tasks DROP COLUMN not_before;
DROP INDEX idx_flow_resume_handles_ended;
DROP INDEX idx_flow_resume_handles_expiry;
DROP INDEX idx_flow_resume_handles_flow;
DROP INDEX idx_flow_resume_handles_generation;
ALTER TABLE flow_resume_handles
    DROP CONSTRAINT flow_resume_handles_cancelled_check,
    DROP COLUMN version,
    DROP COLUMN chain_id,
    DROP COLUMN cancelled,
    DROP COLUMN registered,
    DROP COLUMN generation;
