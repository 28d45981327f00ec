-- An earlier schema may have tables of these names, to which nothing wrote.
DROP TABLE IF EXISTS idempotency_bodies, idempotency_cache;

-- Stored responses to requests with an idempotency key, without bodies, so that the rows are small and cheap to delete.
-- Bodies are in slots of idempotency_bodies that are truncated as a whole (G70). key: keyed hash of principal and
-- idempotency key.
CREATE TABLE idempotency_cache (
    key TEXT COLLATE "C" PRIMARY KEY,
    -- Status, headers and fingerprint, and whether idempotency_bodies has the body or the body was too large to store.
    result JSONB NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    expires_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX idx_idempotency_cache_expires ON idempotency_cache (expires_at);

-- Lock a key, and return whether this succeeded and the stored response (G62, G63). Two statements in one round-trip: the
-- snapshot of the second is newer than the lock, so it contains what the previous holder of the lock committed.
CREATE FUNCTION relaybox_claim_key(lock BIGINT, stored TEXT)
    RETURNS TABLE (mine BOOLEAN, result TEXT, created_at TIMESTAMPTZ, expires_at TIMESTAMPTZ, age_s FLOAT8)
    LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(lock) THEN
        RETURN QUERY SELECT false, NULL::text, NULL::timestamptz, NULL::timestamptz, NULL::float8;
        RETURN;
    END IF;
    RETURN QUERY SELECT true, kept.result::text, kept.created_at, kept.expires_at,
        extract(epoch FROM clock_timestamp() - kept.created_at)::float8
    FROM (VALUES (stored)) AS asked (key)
    LEFT JOIN idempotency_cache AS kept ON kept.key = asked.key AND kept.expires_at > clock_timestamp();
END
$$;

-- Number of the slot into which new bodies are inserted; relaybox_retain_bodies changes it. A sequence for the reasons of
-- event_outbox_turn.
CREATE SEQUENCE idempotency_turn AS INT MINVALUE 0 MAXVALUE 3 START 0;
CREATE TABLE idempotency_bodies (
    key TEXT COLLATE "C" NOT NULL,
    slot INT NOT NULL DEFAULT coalesce(pg_sequence_last_value('idempotency_turn'), 0),
    body BYTEA NOT NULL,
    -- Equal to expires_at of the row in idempotency_cache; a body with another time belongs to an earlier request.
    expires_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (key, slot)
) PARTITION BY LIST (slot);
CREATE TABLE idempotency_bodies_0 PARTITION OF idempotency_bodies FOR VALUES IN (0);
CREATE TABLE idempotency_bodies_1 PARTITION OF idempotency_bodies FOR VALUES IN (1);
CREATE TABLE idempotency_bodies_2 PARTITION OF idempotency_bodies FOR VALUES IN (2);
CREATE TABLE idempotency_bodies_3 PARTITION OF idempotency_bodies FOR VALUES IN (3);
CREATE INDEX idx_idempotency_bodies_expires ON idempotency_bodies (expires_at);

-- One row with the time at which the open slot was opened.
CREATE TABLE idempotency_slots (
    singleton BOOLEAN PRIMARY KEY DEFAULT true CHECK (singleton),
    opened_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
INSERT INTO idempotency_slots DEFAULT VALUES;

-- Execute one step of the removal of bodies (G70): close the open slot when it has been open for *span* and has rows, if
-- another slot is empty; truncate a closed slot when its last body has expired. Return the step: 'closed', 'emptied' (call
-- again), 'busy' (a query reads the slot: call again later), or null if nothing is due.
-- A function, so that services can truncate a slot without the right TRUNCATE. It does not wait for locks, because other
-- sessions would then wait behind it.
CREATE FUNCTION relaybox_retain_bodies(span INTERVAL) RETURNS TEXT LANGUAGE plpgsql SECURITY DEFINER
    SET enable_seqscan = off AS $$
DECLARE
    open_slot INT;
    empty_slot INT;
    last TIMESTAMPTZ;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'an older snapshot does not see every row of a slot: call this in READ COMMITTED';
    END IF;
    IF NOT pg_try_advisory_xact_lock(hashtext('relaybox'), hashtext('retain_bodies')) THEN
        RETURN NULL;
    END IF;
    open_slot := coalesce(pg_sequence_last_value('idempotency_turn'), 0);
    -- max(expires_at) costs one look into the index of the slot, regardless of the number of bodies.
    FOR old IN 0..3 LOOP
        CONTINUE WHEN old = open_slot;
        SELECT max(expires_at) INTO last FROM idempotency_bodies WHERE slot = old;
        IF last IS NULL THEN
            empty_slot := old;
            CONTINUE;
        END IF;
        CONTINUE WHEN last > clock_timestamp();
        EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE NOWAIT', 'idempotency_bodies_' || old);
        -- Check again under the lock: an insert that read the sequence before the slot was closed may have added a body.
        SELECT max(expires_at) INTO last FROM idempotency_bodies WHERE slot = old;
        CONTINUE WHEN last > clock_timestamp();
        EXECUTE format('TRUNCATE %I', 'idempotency_bodies_' || old);
        RETURN 'emptied';
    END LOOP;
    IF empty_slot IS NOT NULL
        AND EXISTS (SELECT FROM idempotency_slots WHERE opened_at <= clock_timestamp() - span)
        AND (SELECT max(expires_at) FROM idempotency_bodies WHERE slot = open_slot) IS NOT NULL
    THEN
        PERFORM setval('idempotency_turn', empty_slot);
        UPDATE idempotency_slots SET opened_at = clock_timestamp();
        RETURN 'closed';
    END IF;
    RETURN NULL;
EXCEPTION WHEN lock_not_available THEN
    RETURN 'busy';
END
$$;
-- pg_temp is last in the search_path, so that no temporary table of the caller replaces a table of the library.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION relaybox_retain_bodies(INTERVAL) SET search_path = %I, pg_temp', current_schema());
END
$$;
REVOKE ALL ON FUNCTION relaybox_retain_bodies(INTERVAL) FROM PUBLIC;

-- Grant the role of the services its rights. Each run of migrations calls this function, unless services connect as owner
-- of the tables.
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
