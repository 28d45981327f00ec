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

-- Lock a key, and say what is kept under it (G62, G63). Two statements in one round-trip: the second has a snapshot
-- younger than the lock, and so sees what the last holder has committed.
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

-- Which slot new bodies go to; relaybox_retain_bodies moves it on. A sequence, as event_outbox_turn.
CREATE SEQUENCE idempotency_turn AS INT MINVALUE 0 MAXVALUE 3 START 0;
CREATE TABLE idempotency_bodies (
    key TEXT COLLATE "C" NOT NULL,
    slot INT NOT NULL DEFAULT coalesce(pg_sequence_last_value('idempotency_turn'), 0),
    body BYTEA NOT NULL,
    -- Equal to expires_at of the claim, to the microsecond: a body with another time belongs to an earlier claim.
    expires_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (key, slot)
) PARTITION BY LIST (slot);
CREATE TABLE idempotency_bodies_0 PARTITION OF idempotency_bodies FOR VALUES IN (0);
CREATE TABLE idempotency_bodies_1 PARTITION OF idempotency_bodies FOR VALUES IN (1);
CREATE TABLE idempotency_bodies_2 PARTITION OF idempotency_bodies FOR VALUES IN (2);
CREATE TABLE idempotency_bodies_3 PARTITION OF idempotency_bodies FOR VALUES IN (3);
CREATE INDEX idx_idempotency_bodies_expires ON idempotency_bodies (expires_at);

-- When the open slot was opened. One row.
CREATE TABLE idempotency_slots (
    singleton BOOLEAN PRIMARY KEY DEFAULT true CHECK (singleton),
    opened_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
INSERT INTO idempotency_slots DEFAULT VALUES;

-- One step of the removal of bodies (G70): close the open slot when it has been open for *span* and has rows, if
-- another slot is empty; truncate a closed slot when its last body has expired. Return what was done: 'closed',
-- 'emptied' (call again), 'busy' (a query reads the slot: call again later), or null: nothing is due.
-- A function, so that services, which own no table, can truncate a slot. It does not wait for a lock, because other
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
    -- Always by the last moment in a slot, which its index gives at once however much has expired there.
    FOR old IN 0..3 LOOP
        CONTINUE WHEN old = open_slot;
        SELECT max(expires_at) INTO last FROM idempotency_bodies WHERE slot = old;
        IF last IS NULL THEN
            empty_slot := old;
            CONTINUE;
        END IF;
        CONTINUE WHEN last > clock_timestamp();
        EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE NOWAIT', 'idempotency_bodies_' || old);
        -- Again, now that no writer is left: one may have read the turn before it moved on.
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
-- Its caller's temporary tables must not stand in for ours.
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
