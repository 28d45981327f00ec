-- Why a message was parked: its handler failed on every attempt, it is not an event, or an earlier message of its key is
-- parked.
CREATE TYPE dead_letter_reason AS ENUM ('HANDLER_FAILED', 'ENVELOPE_INVALID', 'BLOCKED');
CREATE TYPE dead_letter_status AS ENUM ('PARKED', 'REPLAY_REQUESTED', 'REPLAYED', 'DISCARDED');

-- Messages that a consumer group could not process, and the later messages of their keys (G41, G42).
CREATE TABLE dead_letters (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer_group TEXT NOT NULL,
    topic TEXT NOT NULL,
    partition INT NOT NULL,
    message_offset BIGINT NOT NULL,
    message_key BYTEA,
    -- For the indexes, whose entries are limited to 2,704 bytes; a Kafka key is not.
    key_hash BYTEA GENERATED ALWAYS AS (sha256(message_key)) STORED,
    -- Null if the message is not an event.
    event_id UUID,
    event_type TEXT,
    -- The aggregate of the event, by which an erasure finds its letters.
    aggregate_type TEXT,
    aggregate_id TEXT,
    -- An array of [name, value]; a value that is not text is {"base64": ...}.
    headers JSONB NOT NULL,
    value BYTEA,
    reason dead_letter_reason NOT NULL,
    error_code TEXT NOT NULL,
    error TEXT NOT NULL,
    -- Attempts of the handler, those of replays included.
    attempts INT NOT NULL,
    -- Whether later messages of the key wait until this letter is replayed or discarded.
    holds_key BOOLEAN NOT NULL,
    status dead_letter_status NOT NULL DEFAULT 'PARKED',
    parked_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    resolved_at TIMESTAMPTZ,
    -- The operator who requested the replay, or discarded the letter, and the reason that the operator gave.
    resolved_by TEXT,
    resolved_reason TEXT,
    CONSTRAINT dead_letters_message_key UNIQUE (consumer_group, topic, partition, message_offset),
    CONSTRAINT dead_letters_holds_key_check CHECK (NOT holds_key OR message_key IS NOT NULL),
    CONSTRAINT dead_letters_resolved_check CHECK ((status IN ('REPLAYED', 'DISCARDED')) = (resolved_at IS NOT NULL))
);
-- Unresolved letters of a key, in order: whether a key is blocked, and by which letter.
CREATE INDEX idx_dead_letters_blocked ON dead_letters (consumer_group, topic, key_hash, id)
    WHERE holds_key AND status IN ('PARKED', 'REPLAY_REQUESTED');
-- Letters whose replay was requested, for the consumers: those that block a key, and those that block no key.
CREATE INDEX idx_dead_letters_requested ON dead_letters (consumer_group, topic, partition, key_hash)
    WHERE holds_key AND status = 'REPLAY_REQUESTED';
CREATE INDEX idx_dead_letters_requested_single ON dead_letters (consumer_group, topic, partition, id)
    WHERE NOT holds_key AND status = 'REPLAY_REQUESTED';
-- Letters of an aggregate, for erasures.
CREATE INDEX idx_dead_letters_aggregate ON dead_letters (aggregate_type, aggregate_id) WHERE aggregate_id IS NOT NULL;
-- Unresolved letters for operators and metrics; resolved letters for retention.
CREATE INDEX idx_dead_letters_unresolved ON dead_letters (id) WHERE status IN ('PARKED', 'REPLAY_REQUESTED');
CREATE INDEX idx_dead_letters_resolved ON dead_letters (resolved_at) WHERE status IN ('REPLAYED', 'DISCARDED');

-- What a service may do; see 0003.
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
