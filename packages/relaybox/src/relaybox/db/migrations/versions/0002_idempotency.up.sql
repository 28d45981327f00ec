-- Nothing wrote to those of before.
DROP TABLE IF EXISTS idempotency_bodies, idempotency_cache;

-- Answers to requests with an idempotency key. The claim is narrow, so that deleting expired ones costs little; their
-- bodies lie apart, in slots that are emptied whole (G70). *key* is a keyed hash of principal and key: never either.
CREATE TABLE idempotency_cache (
    key TEXT COLLATE "C" PRIMARY KEY,
    -- status, headers, fingerprint, and whether there is a body beside it or was one too large to keep.
    result JSONB NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    expires_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX idx_idempotency_cache_expires ON idempotency_cache (expires_at);

-- Which slot new bodies go to; relaybox_retain_bodies moves it on. A sequence, as event_outbox_turn.
CREATE SEQUENCE idempotency_turn AS INT MINVALUE 0 MAXVALUE 3 START 0;
CREATE TABLE idempotency_bodies (
    key TEXT COLLATE "C" NOT NULL,
    slot INT NOT NULL DEFAULT coalesce(pg_sequence_last_value('idempotency_turn'), 0),
    body BYTEA NOT NULL,
    -- That of its claim, to the microsecond: a body whose claim was used again is nobody's.
    expires_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (key, slot)
) PARTITION BY LIST (slot);
CREATE TABLE idempotency_bodies_0 PARTITION OF idempotency_bodies FOR VALUES IN (0);
CREATE TABLE idempotency_bodies_1 PARTITION OF idempotency_bodies FOR VALUES IN (1);
CREATE TABLE idempotency_bodies_2 PARTITION OF idempotency_bodies FOR VALUES IN (2);
CREATE TABLE idempotency_bodies_3 PARTITION OF idempotency_bodies FOR VALUES IN (3);
CREATE INDEX idx_idempotency_bodies_expires ON idempotency_bodies (expires_at);

-- One step of forgetting bodies (G70): the open slot is closed when its oldest body has lived all but *span*, and
-- another slot is empty, whichever: a long life holds back its own slot and not the turn. A closed slot is emptied
-- whole when its last body has expired. Says what was done: 'closed', 'emptied' (call again), 'busy' (somebody reads
-- there: call again in a while), or null: nothing is due.
-- A function, so that services, who own no table, can empty a slot. It waits for no lock, so that nobody waits behind it.
CREATE FUNCTION relaybox_retain_bodies(span INTERVAL) RETURNS TEXT LANGUAGE plpgsql SECURITY DEFINER
    SET enable_seqscan = off AS $$
DECLARE
    open_slot INT;
    empty_slot INT;
    old INT;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'an older snapshot does not see every row of a slot: call this in READ COMMITTED';
    END IF;
    IF NOT pg_try_advisory_xact_lock(hashtext('relaybox'), hashtext('retain_bodies')) THEN
        RETURN NULL;
    END IF;
    open_slot := coalesce(pg_sequence_last_value('idempotency_turn'), 0);
    empty_slot := (SELECT slot FROM generate_series(0, 3) AS slot WHERE slot <> open_slot
        AND NOT EXISTS (SELECT FROM idempotency_bodies AS body WHERE body.slot = slot.slot) LIMIT 1);
    IF (SELECT min(expires_at) FROM idempotency_bodies WHERE slot = open_slot) <= clock_timestamp() + span
        AND empty_slot IS NOT NULL
    THEN
        PERFORM setval('idempotency_turn', empty_slot);
        RETURN 'closed';
    END IF;
    FOR old IN SELECT slot FROM generate_series(0, 3) AS slot WHERE slot <> open_slot LOOP
        CONTINUE WHEN NOT EXISTS (SELECT FROM idempotency_bodies WHERE slot = old)
            OR EXISTS (SELECT FROM idempotency_bodies WHERE slot = old AND expires_at > clock_timestamp());
        EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE NOWAIT', 'idempotency_bodies_' || old);
        -- Again, now that no writer is left: one may have read the turn before it moved on.
        CONTINUE WHEN EXISTS (SELECT FROM idempotency_bodies WHERE slot = old AND expires_at > clock_timestamp());
        EXECUTE format('TRUNCATE %I', 'idempotency_bodies_' || old);
        RETURN 'emptied';
    END LOOP;
    RETURN NULL;
EXCEPTION WHEN lock_not_available THEN
    RETURN 'busy';
END
$$;
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION relaybox_retain_bodies(INTERVAL) SET search_path = %I, pg_temp', current_schema());
END
$$;
REVOKE ALL ON FUNCTION relaybox_retain_bodies(INTERVAL) FROM PUBLIC;

-- What a service may do. Called by every migration run with the role that services connect as;
-- the owner of the tables keeps all rights and needs no call.
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
REVOKE ALL ON FUNCTION relaybox_grant(NAME) FROM PUBLIC;
