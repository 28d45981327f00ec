-- Periodic work of the whole installation, one row per name: recurring tasks ("cron"), each tick of which creates a task, and
-- jobs ("interval_s"), which one of the processes that have the job runs itself.
CREATE TABLE work_schedules (
    name TEXT PRIMARY KEY,
    cron TEXT,
    timezone TEXT,
    interval_s DOUBLE PRECISION,
    -- Whether each missed tick creates a task; otherwise only the latest one does.
    each_missed BOOLEAN NOT NULL DEFAULT false,
    -- Whether a tick creates a task while the task of the tick before has not ended.
    may_overlap BOOLEAN NOT NULL DEFAULT false,
    next_tick_at TIMESTAMPTZ NOT NULL,
    -- The tick that created the last task; of a job, the start of its last run.
    last_tick_at TIMESTAMPTZ,
    last_task_id UUID,
    -- Whether the last task had not ended when this row was changed last.
    task_open BOOLEAN NOT NULL DEFAULT false,
    -- How the last task or run ended, with its error, if it was not removed before it was read.
    last_outcome TEXT,
    last_error JSONB,
    last_ended_at TIMESTAMPTZ,
    last_duration_s DOUBLE PRECISION,
    CONSTRAINT work_schedules_kind_check CHECK ((cron IS NULL) <> (interval_s IS NULL) AND (cron IS NULL) = (timezone IS NULL)),
    CONSTRAINT work_schedules_outcome_check CHECK (last_outcome IN ('COMPLETED', 'FAILED', 'CANCELLED'))
)
-- Room for the next version of a row in its page: jobs change their row every few seconds, and no index has these columns.
WITH (fillfactor = 50);

-- Unresolved letters of a consumer group, which every consumer counts.
CREATE INDEX idx_dead_letters_group ON dead_letters (consumer_group) WHERE status IN ('PARKED', 'REPLAY_REQUESTED');

-- What a service may do; see 0003.
CREATE OR REPLACE FUNCTION relaybox_grant(service NAME) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), service);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON command_inbox, async_tasks, event_outbox, relay_lanes, '
        'relay_members, relay_batches, relay_origin, consumed_events, dead_letters, flow_resume_handles, flow_steps, flow_waits, flow_events, flow_event_keys, work_schedules, '
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
