ALTER TABLE flow_resume_handles
    -- Number of the pause among those of its correlation id: 1, 2, 3 ...
    ADD COLUMN generation INT NOT NULL DEFAULT 1,
    -- False for a resume that arrived before the pause was requested; it has no resume_handle yet.
    ADD COLUMN registered BOOLEAN NOT NULL DEFAULT true,
    -- Whether an EXPIRED handle was cancelled; otherwise its time was over.
    ADD COLUMN cancelled BOOLEAN NOT NULL DEFAULT false,
    -- Chain of the events; null: derived from the correlation id.
    ADD COLUMN chain_id UUID,
    -- Number of events of this handle.
    ADD COLUMN version INT NOT NULL DEFAULT 1,
    ADD CONSTRAINT flow_resume_handles_cancelled_check CHECK (NOT cancelled OR status = 'EXPIRED');
-- Number the handles that existed before. At most one handle of each correlation id waits; it gets the last number.
UPDATE flow_resume_handles AS handle SET generation = numbered.generation
FROM (SELECT id, row_number() OVER (PARTITION BY correlation_id
                                    ORDER BY status IN ('PENDING_PAUSE', 'PAUSED'), created_at, id) AS generation
      FROM flow_resume_handles) AS numbered
WHERE handle.id = numbered.id;
-- A resume that found no handle must not be kept if a pause was requested and ended meanwhile: both insert generation 1.
CREATE UNIQUE INDEX idx_flow_resume_handles_generation ON flow_resume_handles (correlation_id, generation);
-- Pauses of a flow of Relaybox's own engine, whose correlation ids begin with the id of its task.
CREATE INDEX idx_flow_resume_handles_flow ON flow_resume_handles (split_part(correlation_id, '/', 1));
-- Waiting handles, by the time when they expire. An expression, so that no statement on one correlation id can read this index:
-- while the statistics say that few handles wait, the planner chose it, and each such statement read all waiting handles.
CREATE INDEX idx_flow_resume_handles_expiry ON flow_resume_handles
    ((CASE WHEN status IN ('PENDING_PAUSE', 'PAUSED') THEN expires_at END))
    WHERE (CASE WHEN status IN ('PENDING_PAUSE', 'PAUSED') THEN expires_at END) IS NOT NULL;
-- Ended handles, for retention.
CREATE INDEX idx_flow_resume_handles_ended ON flow_resume_handles (updated_at) WHERE status IN ('RESUMED', 'EXPIRED');

-- A PENDING task is not claimed before this time; null: at once. A task that is woken earlier is then claimed in the order of its
-- wake-up, which becomes its claim_order_at.
ALTER TABLE async_tasks
    ADD COLUMN not_before TIMESTAMPTZ,
    ADD CONSTRAINT async_tasks_not_before_check CHECK (not_before IS NULL OR status = 'PENDING');
DROP INDEX idx_async_tasks_claim;
CREATE INDEX idx_async_tasks_claim ON async_tasks (coalesce(claim_order_at, created_at), task_type)
    WHERE status IN ('PENDING', 'RUNNING') AND not_before IS NULL;
CREATE INDEX idx_async_tasks_not_before ON async_tasks (not_before) WHERE not_before IS NOT NULL;

-- FAILED tasks, which the metrics of flows count.
CREATE INDEX idx_async_tasks_failed ON async_tasks (task_type) WHERE status = 'FAILED';

-- Steps of flows that are done, in their order; a flow that goes on gets their results instead of repeating them.
CREATE TABLE flow_steps (
    task_id UUID NOT NULL REFERENCES async_tasks (id) ON DELETE CASCADE,
    position INT NOT NULL,
    name TEXT NOT NULL,
    result JSONB NOT NULL,
    ended_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (task_id, position)
);

-- Events for which flows wait. "event" is the event that arrived.
CREATE TABLE flow_waits (
    task_id UUID NOT NULL REFERENCES async_tasks (id) ON DELETE CASCADE,
    correlation_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    key TEXT NOT NULL,
    event JSONB,
    PRIMARY KEY (task_id, correlation_id)
);
CREATE INDEX idx_flow_waits_key ON flow_waits (key);
-- Waits without an event. An expression for the same reason as that of idx_flow_resume_handles_expiry.
CREATE INDEX idx_flow_waits_open ON flow_waits ((CASE WHEN event IS NULL THEN key END), event_type)
    WHERE (CASE WHEN event IS NULL THEN key END) IS NOT NULL;

-- Events that flows may wait for later.
CREATE TABLE flow_events (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_type TEXT NOT NULL,
    key TEXT NOT NULL,
    envelope JSONB NOT NULL,
    received_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX idx_flow_events_key ON flow_events (event_type, key, id);
-- Events of an aggregate, for erasures.
CREATE INDEX idx_flow_events_aggregate ON flow_events (key);
CREATE INDEX idx_flow_events_received ON flow_events (received_at);

-- One row per event type and key. The transaction that records an event and the transaction that begins a wait both change
-- the row, so that they conflict; otherwise each could miss what the other has not committed yet.
CREATE TABLE flow_event_keys (
    event_type TEXT NOT NULL,
    key TEXT NOT NULL,
    changed_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (event_type, key)
);
CREATE INDEX idx_flow_event_keys_changed ON flow_event_keys (changed_at);

-- What a service may do; see 0003.
CREATE OR REPLACE FUNCTION relaybox_grant(service NAME) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), service);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON command_inbox, async_tasks, event_outbox, relay_lanes, '
        'relay_members, relay_batches, relay_origin, consumed_events, dead_letters, flow_resume_handles, flow_steps, flow_waits, flow_events, flow_event_keys, '
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
