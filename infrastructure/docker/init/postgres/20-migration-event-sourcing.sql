-- Generated from the Alembic migrations; a test compares it with them. Do not edit.

CREATE TYPE command_status AS ENUM ('RECEIVED', 'PROCESSING', 'COMPLETED', 'FAILED');
CREATE TYPE task_status AS ENUM ('PENDING', 'RUNNING', 'COMPLETED', 'FAILED', 'CANCELLED');
CREATE TYPE outbox_status AS ENUM ('PENDING', 'SENT', 'FAILED');
CREATE TYPE handle_status AS ENUM ('PENDING_PAUSE', 'PAUSED', 'RESUMED', 'EXPIRED');

CREATE FUNCTION trigger_set_timestamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at = now();
    RETURN NEW;
END
$$;

-- The recorded events; other tables can be derived from them. id has the order of insertion, which is not the order of
-- commits: a reader that uses id as cursor would skip events (G22).
CREATE TABLE domain_events (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id UUID NOT NULL,
    correlation_id UUID,
    causation_id UUID,
    event_type TEXT NOT NULL,
    event_version INT NOT NULL DEFAULT 1,
    aggregate_type TEXT NOT NULL,
    aggregate_id TEXT NOT NULL,
    aggregate_version INT NOT NULL,
    payload JSONB,
    metadata JSONB,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT domain_events_event_id_key UNIQUE (event_id),
    -- Index for the events of an aggregate; of two transactions that write the same version, one fails.
    CONSTRAINT domain_events_aggregate_version_key UNIQUE (aggregate_type, aggregate_id, aggregate_version),
    CONSTRAINT domain_events_aggregate_version_check CHECK (aggregate_version >= 1)
);
CREATE INDEX idx_domain_events_correlation ON domain_events (correlation_id);
CREATE INDEX idx_domain_events_type ON domain_events (event_type, id);

-- The role of the services has no right to change events; the trigger prevents mistakes of the owner too (G07).
CREATE FUNCTION refuse_change_of_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'domain_events is append-only: % refused', TG_OP USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER domain_events_append_only BEFORE UPDATE OR DELETE ON domain_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_events();
CREATE TRIGGER domain_events_no_truncate BEFORE TRUNCATE ON domain_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_events();
-- ALWAYS, because otherwise session_replication_role could disable the triggers.
ALTER TABLE domain_events ENABLE ALWAYS TRIGGER domain_events_append_only;
ALTER TABLE domain_events ENABLE ALWAYS TRIGGER domain_events_no_truncate;

CREATE TABLE command_inbox (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    session_id UUID NOT NULL,
    command_type TEXT NOT NULL,
    idempotency_key TEXT,
    payload JSONB,
    status command_status NOT NULL DEFAULT 'RECEIVED',
    error_data JSONB,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
-- At most one pending command of a type per session (G03), even if a program inserts rows without checking.
CREATE UNIQUE INDEX idx_command_inbox_unique_pending_command ON command_inbox (session_id, command_type)
    WHERE status IN ('RECEIVED', 'PROCESSING');
CREATE INDEX idx_command_inbox_session ON command_inbox (session_id, created_at);

CREATE TABLE async_tasks (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    task_type TEXT NOT NULL,
    triggered_by_command_id UUID,
    aggregate_id UUID,
    status task_status NOT NULL DEFAULT 'PENDING',
    progress NUMERIC(5, 2) NOT NULL DEFAULT 0,
    input_data JSONB,
    result_data JSONB,
    error_data JSONB,
    attempts INT NOT NULL DEFAULT 0,
    lease_until TIMESTAMPTZ,
    lease_token UUID,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT async_tasks_progress_check CHECK (progress BETWEEN 0 AND 100),
    -- A RUNNING task has a lease, a task of any other status has none.
    CONSTRAINT async_tasks_lease_check
        CHECK ((status = 'RUNNING') = (lease_until IS NOT NULL) AND (lease_until IS NULL) = (lease_token IS NULL))
);
CREATE INDEX idx_async_tasks_status ON async_tasks (status, created_at) WHERE status IN ('PENDING', 'RUNNING');
CREATE INDEX idx_async_tasks_command ON async_tasks (triggered_by_command_id);
CREATE INDEX idx_async_tasks_aggregate ON async_tasks (aggregate_id);
CREATE TRIGGER async_tasks_set_timestamp BEFORE UPDATE ON async_tasks
    FOR EACH ROW EXECUTE FUNCTION trigger_set_timestamp();

-- Number of the outbox's slot (partition) into which new rows are inserted; relaybox_retain_outbox increments it. A
-- sequence, because reading its value costs an insert nothing (a function that reads a row: 2.5 us), and incrementing it
-- takes no lock and leaves no dead row. A crash may reset the value; new rows then go to an earlier slot, which is safe.
CREATE SEQUENCE event_outbox_turn AS INT MINVALUE 0 MAXVALUE 3 START 0;

CREATE TABLE event_outbox (
    id UUID NOT NULL DEFAULT gen_random_uuid(),
    seq BIGINT GENERATED ALWAYS AS IDENTITY,
    topic TEXT NOT NULL,
    key TEXT,
    -- Hash that determines the lane. Of a row without a key, the hash of its id: no other row waits for this row.
    key_hash INT NOT NULL GENERATED ALWAYS AS (hashtext(coalesce(key, id::text))) STORED,
    payload JSONB NOT NULL,
    status outbox_status NOT NULL DEFAULT 'PENDING',
    attempts INT NOT NULL DEFAULT 0,
    next_attempt_at TIMESTAMPTZ,
    error_data JSONB,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    sent_at TIMESTAMPTZ,
    -- Time when an operator decided that this FAILED row is never published, which unblocks its key; else null.
    skipped_at TIMESTAMPTZ,
    -- The partition. Old SENT rows are removed by TRUNCATE of a whole slot, which leaves no dead rows (G29).
    slot INT NOT NULL DEFAULT coalesce(pg_sequence_last_value('event_outbox_turn'), 0),
    -- Begins with the columns of the partition key, because each mark as SENT writes to this index: with the random id
    -- first, each mark would write to another page (18 us per mark instead of 9 with 200,000 SENT rows).
    CONSTRAINT event_outbox_pkey PRIMARY KEY (seq, slot, id),
    CONSTRAINT event_outbox_skipped_check CHECK (skipped_at IS NULL OR status = 'FAILED'),
    CONSTRAINT event_outbox_sent_check CHECK ((status = 'SENT') = (sent_at IS NOT NULL)),
    CONSTRAINT event_outbox_failed_check CHECK (status <> 'FAILED' OR error_data IS NOT NULL)
) PARTITION BY RANGE (slot, seq);
-- Half of each page stays free for the new version of a row that is marked: in the same page it costs a fifth of the WAL
-- (210 instead of 970 bytes) and no second page.
CREATE TABLE event_outbox_0 PARTITION OF event_outbox FOR VALUES FROM (0, MINVALUE) TO (1, MINVALUE)
    WITH (fillfactor = 50);
CREATE TABLE event_outbox_1 PARTITION OF event_outbox FOR VALUES FROM (1, MINVALUE) TO (2, MINVALUE)
    WITH (fillfactor = 50);
CREATE TABLE event_outbox_2 PARTITION OF event_outbox FOR VALUES FROM (2, MINVALUE) TO (3, MINVALUE)
    WITH (fillfactor = 50);
CREATE TABLE event_outbox_3 PARTITION OF event_outbox FOR VALUES FROM (3, MINVALUE) TO (4, MINVALUE)
    WITH (fillfactor = 50);
-- Index for polls; its size depends on the number of PENDING rows, not on the size of the table (G29).
CREATE INDEX idx_event_outbox_pending ON event_outbox (seq) WHERE status = 'PENDING';
-- Rows that block their keys: FAILED rows, and rows that wait for their next attempt.
CREATE INDEX idx_event_outbox_blocked ON event_outbox (key, seq)
    WHERE (status = 'FAILED' AND skipped_at IS NULL) OR (status = 'PENDING' AND next_attempt_at IS NOT NULL);
-- FAILED rows, including skipped ones, by seq.
CREATE INDEX idx_event_outbox_failed ON event_outbox (seq) WHERE status = 'FAILED';
-- Times of the next attempts: an idle relay sleeps until the first.
CREATE INDEX idx_event_outbox_retry ON event_outbox (next_attempt_at)
    WHERE status = 'PENDING' AND next_attempt_at IS NOT NULL;

-- State of each slot: open (new rows are inserted), then closed (no new rows), sealed (all rows are SENT), empty (all times
-- are null).
CREATE TABLE event_outbox_slots (
    slot INT PRIMARY KEY,
    opened_at TIMESTAMPTZ,
    closed_at TIMESTAMPTZ,
    sealed_at TIMESTAMPTZ
);
INSERT INTO event_outbox_slots (slot, opened_at) VALUES (0, now()), (1, NULL), (2, NULL), (3, NULL);

-- Move rows that are not SENT from slot *leaving* to slot *target*, at most 1,000 of each status; return false if more may
-- be left. The caller holds a lock against writers of the slot. One statement per status, because each has its own small
-- index.
CREATE FUNCTION relaybox_move_unsent(leaving INT, target INT) RETURNS BOOLEAN LANGUAGE plpgsql AS $$
DECLARE
    pending INT;
    failed INT;
BEGIN
    UPDATE event_outbox SET slot = target WHERE slot = leaving AND status = 'PENDING'
        AND seq IN (SELECT seq FROM event_outbox WHERE slot = leaving AND status = 'PENDING' ORDER BY seq LIMIT 1000);
    GET DIAGNOSTICS pending = ROW_COUNT;
    UPDATE event_outbox SET slot = target WHERE slot = leaving AND status = 'FAILED'
        AND seq IN (SELECT seq FROM event_outbox WHERE slot = leaving AND status = 'FAILED' ORDER BY seq LIMIT 1000);
    GET DIAGNOSTICS failed = ROW_COUNT;
    RETURN pending < 1000 AND failed < 1000;
END
$$;

-- Execute one step of retention (G29): SENT rows are removed *keep* to 1.5 * *keep* after they were sent; PENDING and
-- FAILED rows are moved to the open slot before. Return the step: 'closed', 'emptied', 'sealed' or 'moved' (call again),
-- 'busy' (call again later), or null if nothing is due or another session executes a step.
-- A function, so that a frozen client holds no lock (they end with the statement), and so that services can truncate a slot
-- without the right TRUNCATE.
CREATE FUNCTION relaybox_retain_outbox(keep INTERVAL) RETURNS TEXT LANGUAGE plpgsql SECURITY DEFINER
    SET lock_timeout = '100ms' SET enable_seqscan = off AS $$
DECLARE
    now_at TIMESTAMPTZ := clock_timestamp();
    open_slot INT;
    old RECORD;
    waiting INT;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'an older snapshot does not see every row of a slot: call this in READ COMMITTED';
    END IF;
    IF NOT pg_try_advisory_xact_lock(hashtext('relaybox'), hashtext('retain_outbox')) THEN
        RETURN NULL;
    END IF;
    open_slot := coalesce(pg_sequence_last_value('event_outbox_turn'), 0);
    -- The sequence may differ from the table: a rollback does not undo it, and a promoted standby may have an old value.
    UPDATE event_outbox_slots SET opened_at = coalesce(opened_at, now_at), closed_at = NULL, sealed_at = NULL
        WHERE slot = open_slot AND (opened_at IS NULL OR closed_at IS NOT NULL);
    IF FOUND THEN
        UPDATE event_outbox_slots SET closed_at = now_at
            WHERE slot <> open_slot AND opened_at IS NOT NULL AND closed_at IS NULL;
    END IF;

    -- Close the open slot if it has SENT rows and the next slot is empty; otherwise the open slot takes all new rows.
    IF EXISTS (SELECT FROM event_outbox_slots WHERE slot = open_slot AND opened_at <= now_at - keep / 2)
        AND EXISTS (SELECT FROM event_outbox_slots WHERE slot = (open_slot + 1) % 4 AND opened_at IS NULL)
        AND EXISTS (SELECT FROM event_outbox WHERE slot = open_slot AND status = 'SENT')
    THEN
        open_slot := setval('event_outbox_turn', (open_slot + 1) % 4);
        UPDATE event_outbox_slots SET opened_at = now_at WHERE slot = open_slot;
        UPDATE event_outbox_slots SET closed_at = now_at
            WHERE slot <> open_slot AND opened_at IS NOT NULL AND closed_at IS NULL;
        RETURN 'closed';
    END IF;

    -- Seal a closed slot, or empty a sealed slot: rows that are SENT when a slot is sealed are old enough after *keep*. An
    -- insert that began before the slot was closed may add a row later, which is moved before the slot is emptied.
    FOR old IN SELECT slot, closed_at, sealed_at IS NOT NULL AS sealed FROM event_outbox_slots
               WHERE slot <> open_slot AND closed_at IS NOT NULL AND (sealed_at IS NULL OR sealed_at <= now_at - keep)
               ORDER BY closed_at LOOP
        SELECT count(*) INTO waiting
            FROM (SELECT FROM event_outbox WHERE slot = old.slot AND status = 'PENDING' LIMIT 1000) AS pending;
        -- Relays publish a large backlog soon; moving it is worth the cost only after *keep*, for rows behind a FAILED row.
        CONTINUE WHEN waiting = 1000 AND old.closed_at > now_at - keep;
        -- The queries above are slow while a session holds an old snapshot; then do not execute them under a lock.
        IF clock_timestamp() > now_at + interval '0.2 s' THEN
            RETURN 'busy';
        END IF;
        EXECUTE format('LOCK TABLE %I IN EXCLUSIVE MODE', 'event_outbox_' || old.slot);
        IF NOT relaybox_move_unsent(old.slot, open_slot) THEN
            RETURN 'moved';
        END IF;
        IF NOT old.sealed THEN
            UPDATE event_outbox_slots SET sealed_at = clock_timestamp() WHERE slot = old.slot;
            RETURN 'sealed';
        END IF;
        EXECUTE format('TRUNCATE %I', 'event_outbox_' || old.slot);
        UPDATE event_outbox_slots SET opened_at = NULL, closed_at = NULL, sealed_at = NULL WHERE slot = old.slot;
        RETURN 'emptied';
    END LOOP;
    RETURN NULL;
EXCEPTION WHEN lock_not_available THEN
    RETURN 'busy';
END
$$;
-- pg_temp is last in the search_path, so that no temporary table of the caller replaces a table of the library.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION relaybox_retain_outbox(INTERVAL) SET search_path = %I, pg_temp', current_schema());
END
$$;
REVOKE ALL ON FUNCTION relaybox_retain_outbox(INTERVAL), relaybox_move_unsent(INT, INT) FROM PUBLIC;

-- Lanes: ranges of key hashes, each with the relay that publishes it until the lease ends, by this server's clock. Ranges,
-- so that a lane can be split while relays run. Together they contain each INT once.
CREATE TABLE relay_lanes (
    lane INT PRIMARY KEY,
    hash_min INT NOT NULL,
    hash_max INT NOT NULL,
    owner TEXT,
    -- Fencing token: incremented when a relay takes the lane over; a relay with a lower epoch no longer owns the lane.
    epoch BIGINT NOT NULL DEFAULT 0,
    lease_until TIMESTAMPTZ,
    -- For operators, why no relay publishes from the lane: Kafka and this database disagree. Null: no fault.
    fault TEXT,
    -- Marker in Kafka (id of a batch) that relay_batches does not have and that an operator has accepted.
    accepted_marker UUID,
    CONSTRAINT relay_lanes_owner_check CHECK ((owner IS NULL) = (lease_until IS NULL)),
    CONSTRAINT relay_lanes_hash_check CHECK (hash_min <= hash_max),
    CONSTRAINT relay_lanes_hash_excl EXCLUDE USING gist (int8range(hash_min, hash_max, '[]') WITH &&)
);
-- 8 lanes of 2^29 hashes each, from the smallest INT to the largest.
INSERT INTO relay_lanes (lane, hash_min, hash_max)
    SELECT lane, -2147483648 + lane * 536870912::bigint, -2147483649 + (lane + 1) * 536870912::bigint
    FROM generate_series(0, 7) AS lane;

-- The claimed batches of each lane, written before their Kafka transaction commits: the next owner of the lane compares the
-- ids with the marker in Kafka to decide whether the transaction was committed. Rows are inserted and deleted, never
-- updated: while an old snapshot is held, a row updated for each batch would have more and more dead versions.
CREATE TABLE relay_batches (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lane INT NOT NULL,
    -- A UUID, because a restored database would use the numbers of a counter again for other rows.
    batch_id UUID NOT NULL,
    -- Last published batch of this lane when this batch was claimed; null: none was known.
    previous_id UUID,
    -- Numbers of the rows. Not compressed: compression costs more time than it saves.
    seqs BIGINT[] STORAGE EXTERNAL NOT NULL,
    claimed_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT relay_batches_batch_id_key UNIQUE (batch_id)
);
CREATE INDEX idx_relay_batches_lane ON relay_batches (lane, number);

-- One row, whose id distinguishes this outbox from others on the same Kafka: part of the relays' transactional ids. The
-- first relay sets the id, so that databases created from one template differ. On a copy of a database in use, set id to
-- null before a relay starts.
CREATE TABLE relay_origin (
    singleton BOOLEAN PRIMARY KEY DEFAULT true CHECK (singleton),
    id UUID,
    -- Requested number of lanes; relays split their lanes until there are as many.
    lanes_wanted INT NOT NULL DEFAULT 8 CHECK (lanes_wanted BETWEEN 8 AND 1024)
);
INSERT INTO relay_origin DEFAULT VALUES;

-- Running relays; each leases an equal share of the lanes.
CREATE TABLE relay_members (
    name TEXT PRIMARY KEY,
    lease_until TIMESTAMPTZ NOT NULL,
    started_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    -- For operators: host and process id, delivery (exactly-once, at-least-once), circuit breaker (closed, open, half-open).
    place TEXT NOT NULL DEFAULT '',
    delivery TEXT NOT NULL DEFAULT '',
    breaker TEXT NOT NULL DEFAULT 'closed',
    -- Number of rows that the relay had marked SENT since its start at its last heartbeat.
    published_total BIGINT NOT NULL DEFAULT 0
);

-- Actions of operators on the outbox and the lanes (G32). Services have the rights SELECT and INSERT only.
CREATE TABLE operator_acts (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at TIMESTAMPTZ NOT NULL DEFAULT now(),
    actor TEXT NOT NULL,
    act TEXT NOT NULL,
    reason TEXT,
    target JSONB NOT NULL
);

-- Events that a consumer group has processed, written in the transaction of the event's effect (G40).
CREATE TABLE consumed_events (
    consumer TEXT NOT NULL,
    event_id UUID NOT NULL,
    consumed_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);

CREATE TABLE flow_resume_handles (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    correlation_id TEXT NOT NULL,
    resume_handle JSONB NOT NULL,
    status handle_status NOT NULL DEFAULT 'PENDING_PAUSE',
    resume_payload JSONB,
    expires_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX idx_flow_resume_handles_unique_correlation ON flow_resume_handles (correlation_id)
    WHERE status IN ('PENDING_PAUSE', 'PAUSED');
CREATE TRIGGER flow_resume_handles_set_timestamp BEFORE UPDATE ON flow_resume_handles
    FOR EACH ROW EXECUTE FUNCTION trigger_set_timestamp();

-- Snapshots of aggregates of domains that declare no table for them.
CREATE TABLE aggregate_snapshots (
    id UUID PRIMARY KEY,
    aggregate_type TEXT NOT NULL,
    owner TEXT NOT NULL,
    state JSONB NOT NULL,
    version INT NOT NULL DEFAULT 1,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX idx_aggregate_snapshots_owner ON aggregate_snapshots (owner);
CREATE TRIGGER aggregate_snapshots_set_timestamp BEFORE UPDATE ON aggregate_snapshots
    FOR EACH ROW EXECUTE FUNCTION trigger_set_timestamp();

-- Single-use tickets for live streams of browsers, which cannot send a bearer token with EventSource. Stored as hashes.
CREATE TABLE stream_tickets (
    ticket_hash BYTEA PRIMARY KEY,
    aggregate_id UUID NOT NULL,
    owner TEXT NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX idx_stream_tickets_expires ON stream_tickets (expires_at);

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

-- Erasures with the aggregates, the actor and the reason. relaybox_erase inserts rows; services have the right SELECT only.
CREATE TABLE event_erasures (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    aggregate_type TEXT NOT NULL,
    aggregate_ids TEXT[] NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    erased_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    -- The transaction that inserted this row, the only one that may erase events because of it.
    transaction_id XID8 NOT NULL DEFAULT pg_current_xact_id(),
    -- Numbers of rows with erased content, by table.
    events INT NOT NULL DEFAULT 0,
    commands INT NOT NULL DEFAULT 0,
    tasks INT NOT NULL DEFAULT 0,
    answers INT NOT NULL DEFAULT 0,
    snapshots INT NOT NULL DEFAULT 0,
    CONSTRAINT event_erasures_named_check CHECK (actor <> '' AND reason <> '')
);
CREATE INDEX idx_event_erasures_at ON event_erasures (erased_at);

-- An erasure finds SENT rows by created_at, the time of the transaction, which is also that of the event. An index by
-- aggregate would cost each mark a random page of an index as large as the table; in this index, each mark writes to the
-- end (1.1 us and 66 bytes of WAL more).
CREATE INDEX idx_event_outbox_sent ON event_outbox (created_at) WHERE status = 'SENT';
-- Stored responses by the aggregates that they are about (targets); responses without targets are not in the index. Without
-- fastupdate, because each search would scan the list of pending entries.
CREATE INDEX idx_idempotency_cache_targets ON idempotency_cache USING gin ((result -> 'targets'))
    WITH (fastupdate = off) WHERE result ? 'targets';

-- The metadata that an erased event keeps: actor, service, command and time; other metadata may be content.
CREATE FUNCTION relaybox_kept_metadata(metadata JSONB) RETURNS JSONB LANGUAGE sql STABLE AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object('user_id', metadata -> 'user_id',
        'source_service', metadata -> 'source_service', 'command_id', metadata -> 'command_id',
        'timestamp', metadata -> 'timestamp'))
$$;

-- Append-only (G07) with one exception: the content of an event may be erased in the transaction that has inserted a row
-- into event_erasures. A session setting would not protect events, because every role can change settings.
CREATE OR REPLACE FUNCTION refuse_change_of_events() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    erased RECORD;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        erased := OLD;
        erased.payload := '{"erased": true}'::jsonb;
        erased.metadata := relaybox_kept_metadata(OLD.metadata);
        IF NEW IS NOT DISTINCT FROM erased AND EXISTS (
            SELECT FROM event_erasures WHERE erased_at = now() AND transaction_id = pg_current_xact_id()
        ) THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'domain_events is append-only: % refused', TG_OP USING ERRCODE = 'restrict_violation';
END
$$;

-- Erase the content of the rows about these aggregates in every table of the library except the outbox; type, time,
-- actor and aggregate of each event stay. The caller holds the locks that writers of these aggregates take: rows that
-- another transaction commits during this call are not erased. The only exception to G07, recorded in event_erasures.
-- The caller then erases outbox rows by the next two functions, last because relays wait for locks on these rows.
CREATE FUNCTION relaybox_erase(aggregate_type TEXT, aggregate_ids TEXT[], actor TEXT, reason TEXT)
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
            lease_until = NULL, lease_token = NULL
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

-- Return the outbox rows of aggregates with erased events, without locking them. The first query reads PENDING and FAILED
-- rows by their small indexes, the second the SENT rows of erased events. A row that a relay marks SENT between both
-- queries is returned by at least one of them, and may be returned twice.
CREATE FUNCTION relaybox_rows_to_erase(aggregate_type TEXT, aggregate_ids TEXT[])
    RETURNS TABLE (slot INT, seq BIGINT) LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    type CONSTANT TEXT := relaybox_rows_to_erase.aggregate_type;
    times TIMESTAMPTZ[];
BEGIN
    RETURN QUERY
        SELECT o.slot, o.seq FROM event_outbox AS o
        WHERE o.status = 'PENDING' AND o.payload ->> 'aggregate_type' = type
            AND o.payload ->> 'aggregate_id' IN (SELECT unnest(aggregate_ids))
        UNION ALL SELECT o.slot, o.seq FROM event_outbox AS o
        WHERE o.status = 'FAILED' AND o.payload ->> 'aggregate_type' = type
            AND o.payload ->> 'aggregate_id' IN (SELECT unnest(aggregate_ids));
    times := ARRAY(
        SELECT DISTINCT event.created_at FROM domain_events AS event
        WHERE event.aggregate_type = type AND event.aggregate_id = ANY (aggregate_ids)
            AND event.payload = '{"erased": true}'
            AND event.created_at >= (SELECT min(created_at) FROM event_outbox WHERE status = 'SENT'));
    RETURN QUERY
        SELECT o.slot, o.seq FROM event_outbox AS o
        WHERE o.status = 'SENT' AND o.created_at = ANY (times) AND o.payload ->> 'aggregate_type' = type
            AND o.payload ->> 'aggregate_id' IN (SELECT unnest(aggregate_ids));
END
$$;

-- Erase the content of the outbox rows *seqs*, and return the number of rows that had content. The rows are locked in the
-- order in which relays mark rows, because another order would cause deadlocks. A caller that needs several calls must sort
-- the rows by slot and seq before.
CREATE FUNCTION relaybox_erase_rows(seqs BIGINT[]) RETURNS INT LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    content CONSTANT JSONB := '{"erased": true}';
    erased INT;
BEGIN
    PERFORM FROM event_outbox WHERE seq = ANY (seqs) ORDER BY slot, seq FOR NO KEY UPDATE;
    -- target_id may identify a person, and domain_events does not contain it.
    UPDATE event_outbox AS o SET payload = o.payload || jsonb_build_object('payload', content,
            'metadata', relaybox_kept_metadata(o.payload -> 'metadata'), 'target_id', NULL)
        WHERE o.seq = ANY (seqs) AND o.payload -> 'payload' IS DISTINCT FROM content;
    GET DIAGNOSTICS erased = ROW_COUNT;
    RETURN erased;
END
$$;

-- pg_temp is last in the search_path, so that no temporary table of the caller replaces a table that relaybox_erase changes,
-- or event_erasures in the trigger.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION relaybox_erase(TEXT, TEXT[], TEXT, TEXT) SET search_path = %I, pg_temp',
        current_schema());
    EXECUTE format('ALTER FUNCTION refuse_change_of_events() SET search_path = %I, pg_temp', current_schema());
END
$$;
REVOKE ALL ON FUNCTION relaybox_erase(TEXT, TEXT[], TEXT, TEXT) FROM PUBLIC;

-- Grant the role of the services its rights, as in 0002.
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
    EXECUTE format('GRANT EXECUTE ON FUNCTION relaybox_erase(TEXT, TEXT[], TEXT, TEXT) TO %I', service);
    EXECUTE format('GRANT SELECT ON relaybox_alembic_version TO %I', service);
    EXECUTE format('REVOKE ALL ON domain_events, event_erasures FROM %I', service);
    EXECUTE format('GRANT SELECT, INSERT ON domain_events TO %I', service);
    EXECUTE format('GRANT SELECT ON event_erasures TO %I', service);
END
$$;

ALTER TABLE async_tasks
    -- The user or tenant of the task. Null: the task is claimed by its age alone.
    ADD COLUMN fairness_key TEXT,
    -- Open tasks are claimed in this order: the time of creation, or one hour after the last open task of the same key.
    -- Null: the time of creation.
    ADD COLUMN claim_order_at TIMESTAMPTZ;
CREATE INDEX idx_async_tasks_claim ON async_tasks (coalesce(claim_order_at, created_at), task_type)
    WHERE status IN ('PENDING', 'RUNNING');
-- Index for the last open task of a fairness key, and for the number of its open tasks.
CREATE INDEX idx_async_tasks_fairness ON async_tasks (fairness_key, coalesce(claim_order_at, created_at))
    WHERE fairness_key IS NOT NULL AND status IN ('PENDING', 'RUNNING');

-- With these indexes the sweeper finds old rows without reading the rows that stay.
CREATE INDEX idx_command_inbox_ended ON command_inbox (created_at) WHERE status IN ('COMPLETED', 'FAILED');
CREATE INDEX idx_command_inbox_keyed ON command_inbox (created_at) WHERE idempotency_key IS NOT NULL;
CREATE INDEX idx_async_tasks_ended ON async_tasks (updated_at) WHERE status IN ('COMPLETED', 'FAILED', 'CANCELLED');
CREATE INDEX idx_consumed_events_consumed ON consumed_events (consumed_at);

-- Two indexes find old commands: that of commands with an idempotency key, and this one of ended commands. A command with a
-- key had an entry in both, each 64 bytes of WAL; from now on only in the first.
DROP INDEX idx_command_inbox_ended;
CREATE INDEX idx_command_inbox_ended ON command_inbox (created_at)
    WHERE status IN ('COMPLETED', 'FAILED') AND idempotency_key IS NULL;

-- Advisory locks belong to the database, not to a schema. The two retention functions lock by the OID of their table, so
-- that the outboxes of two schemas do not exclude each other. The rest of the functions does not change.
DO $$
DECLARE
    retention RECORD;
    before TEXT;
    after TEXT;
BEGIN
    FOR retention IN
        SELECT * FROM (VALUES ('relaybox_retain_outbox(interval)', 'event_outbox'),
                              ('relaybox_retain_bodies(interval)', 'idempotency_bodies')) AS functions (name, locked)
    LOOP
        before := pg_get_functiondef(retention.name::regprocedure);
        after := replace(before, '(hashtext(''relaybox''), ', format('(%L::regclass::int, ', retention.locked));
        IF after = before THEN
            RAISE EXCEPTION 'function % does not take its lock as it was created; restore the function and migrate again',
                retention.name;
        END IF;
        EXECUTE after;
    END LOOP;
END
$$;

-- history: system identifier and timeline of the server from which relays last published this outbox. A promoted standby
-- and a restored server have another history. history_id: a new UUID for each new history, because two standbys of one
-- primary that are promoted one after the other have the same timeline number.
ALTER TABLE relay_origin ADD COLUMN history TEXT, ADD COLUMN history_id UUID,
    -- Time at which a relay found a new history; null: never.
    ADD COLUMN history_changed_at TIMESTAMPTZ;
-- relay_origin.history_id when the lane was last compared with Kafka; null: never since this column exists.
ALTER TABLE relay_lanes ADD COLUMN history_id UUID;

-- Number of the transactional.id with which the owner publishes the lane. While a partition accepts no writes, a transaction
-- that wrote to it cannot end, and its transactional.id cannot begin another: the owner then continues with the next id.
ALTER TABLE relay_lanes ADD COLUMN producer_number INT NOT NULL DEFAULT 0;
-- For operators: why the relay publishes only some of its rows, one sentence per partition or lane, at most 20. Null: a
-- relay of an older version, which knows only one transactional.id per lane and cannot fence the others.
ALTER TABLE relay_members ADD COLUMN troubles TEXT[];

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

-- Return the payload of an outbox row without its content. Of a dead letter (a payload with a record and without event type),
-- the value becomes {"erased": true}, and only headers of a CloudEvent and of the failure, except its text, stay.
CREATE FUNCTION relaybox_erased_payload(payload JSONB) RETURNS JSONB LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN payload ->> 'event_type' IS NULL AND jsonb_typeof(payload -> 'record' -> 'headers') = 'array'
        THEN jsonb_set(payload, '{record}', payload -> 'record' || jsonb_build_object(
            'value', encode('{"erased": true}', 'base64'),
            'headers', (SELECT coalesce(jsonb_agg(header ORDER BY place), '[]')
                        FROM jsonb_array_elements(payload -> 'record' -> 'headers') WITH ORDINALITY AS header (header, place)
                        WHERE header ->> 0 IN ('content-type', 'relaybox_record_id') OR header ->> 0 LIKE 'ce\_%'
                            OR (header ->> 0 LIKE 'dead\_letter\_%' AND header ->> 0 <> 'dead_letter_error'))))
        -- target_id may identify a person, and domain_events does not contain it.
        ELSE payload || jsonb_build_object('payload', '{"erased": true}'::jsonb,
            'metadata', relaybox_kept_metadata(payload -> 'metadata'), 'target_id', NULL)
        END
$$;

-- Return rows as in 0003, and also the outbox rows of dead letters of these aggregates. The created_at of such a row is the
-- time at which the letter was parked.
CREATE OR REPLACE FUNCTION relaybox_rows_to_erase(aggregate_type TEXT, aggregate_ids TEXT[])
    RETURNS TABLE (slot INT, seq BIGINT) LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    type CONSTANT TEXT := relaybox_rows_to_erase.aggregate_type;
    times TIMESTAMPTZ[];
BEGIN
    RETURN QUERY
        SELECT o.slot, o.seq FROM event_outbox AS o
        WHERE o.status = 'PENDING' AND o.payload ->> 'aggregate_type' = type
            AND o.payload ->> 'aggregate_id' IN (SELECT unnest(aggregate_ids))
        UNION ALL SELECT o.slot, o.seq FROM event_outbox AS o
        WHERE o.status = 'FAILED' AND o.payload ->> 'aggregate_type' = type
            AND o.payload ->> 'aggregate_id' IN (SELECT unnest(aggregate_ids));
    times := ARRAY(
        SELECT written.at FROM (
            SELECT event.created_at AS at FROM domain_events AS event
            WHERE event.aggregate_type = type AND event.aggregate_id = ANY (aggregate_ids)
                AND event.payload = '{"erased": true}'
            UNION SELECT letter.parked_at FROM dead_letters AS letter
            WHERE letter.aggregate_type = type AND letter.aggregate_id = ANY (aggregate_ids)
        ) AS written
        WHERE written.at >= (SELECT min(created_at) FROM event_outbox WHERE status = 'SENT'));
    RETURN QUERY
        SELECT o.slot, o.seq FROM event_outbox AS o
        WHERE o.status = 'SENT' AND o.created_at = ANY (times) AND o.payload ->> 'aggregate_type' = type
            AND o.payload ->> 'aggregate_id' IN (SELECT unnest(aggregate_ids));
END
$$;

-- Erase outbox rows as in 0003, and also the outbox rows of dead letters.
CREATE OR REPLACE FUNCTION relaybox_erase_rows(seqs BIGINT[]) RETURNS INT LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    erased INT;
BEGIN
    PERFORM FROM event_outbox WHERE seq = ANY (seqs) ORDER BY slot, seq FOR NO KEY UPDATE;
    UPDATE event_outbox AS o SET payload = relaybox_erased_payload(o.payload)
        WHERE o.seq = ANY (seqs) AND o.payload IS DISTINCT FROM relaybox_erased_payload(o.payload);
    GET DIAGNOSTICS erased = ROW_COUNT;
    RETURN erased;
END
$$;

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

-- Messages that operators want parked (G41), because their handler ends the process: a consumer of the group parks the message
-- instead of calling its handler. Consumers delete the requests whose messages are finished.
CREATE TABLE park_requests (
    consumer_group TEXT NOT NULL,
    topic TEXT NOT NULL,
    partition INT NOT NULL,
    message_offset BIGINT NOT NULL,
    requested_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    requested_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (consumer_group, topic, partition, message_offset)
);

-- What a service may do; see 0003.
CREATE OR REPLACE FUNCTION relaybox_grant(service NAME) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), service);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON command_inbox, async_tasks, event_outbox, relay_lanes, '
        'relay_members, relay_batches, relay_origin, consumed_events, dead_letters, flow_resume_handles, flow_steps, flow_waits, flow_events, flow_event_keys, work_schedules, park_requests, '
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

CREATE TABLE relaybox_alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT relaybox_alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO relaybox_alembic_version (version_num) VALUES ('0016_erase_waiting_flows');

CREATE TYPE genesis_status AS ENUM ('IN_PROGRESS', 'COMPLETED', 'ABANDONED');
CREATE TYPE genesis_stage AS ENUM
    ('CONCEPT_SELECTION', 'STORY_CONCEPTION', 'WORLDVIEW', 'CHARACTERS', 'PLOT_OUTLINE', 'FINISHED');

-- Snapshots of genesis sessions; `backend rebuild genesis` computes them again from domain_events.
CREATE TABLE genesis_sessions (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    novel_id UUID,
    user_id TEXT NOT NULL,
    status genesis_status NOT NULL DEFAULT 'IN_PROGRESS',
    current_stage genesis_stage NOT NULL DEFAULT 'CONCEPT_SELECTION',
    confirmed_data JSONB,
    -- State of the current stage before its confirmation: preferences, pending request, proposal.
    draft JSONB,
    -- The writer's feedback in this stage. Not in draft, because each UPDATE writes a JSONB value as a whole.
    feedback JSONB NOT NULL DEFAULT '[]',
    version INT NOT NULL DEFAULT 1,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT genesis_sessions_version_check CHECK (version >= 1),
    CONSTRAINT genesis_sessions_finished_check CHECK ((status = 'COMPLETED') = (current_stage = 'FINISHED'))
);
-- A writer's sessions, newest first; also the index of the list's pages.
CREATE INDEX idx_genesis_sessions_user ON genesis_sessions (user_id, created_at DESC, id DESC);
CREATE TRIGGER genesis_sessions_set_timestamp BEFORE UPDATE ON genesis_sessions
    FOR EACH ROW EXECUTE FUNCTION trigger_set_timestamp();

-- Grants the rights of the services; every migration run calls this function with the role of the services.
CREATE FUNCTION backend_grant(service NAME) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON genesis_sessions TO %I', service);
    EXECUTE format('GRANT SELECT ON backend_alembic_version TO %I', service);
END
$$;
REVOKE ALL ON FUNCTION backend_grant(NAME) FROM PUBLIC;

-- Chess studies. Each row is computed only from the events of its node (aggregate type WORKSPACE_NODE), so that
-- `backend rebuild workspace` can compute it again; the exception is workspace_link_secrets, which is in no event.
-- changed_at is the time of an event, and is therefore not set by a trigger, unlike updated_at of other tables.
CREATE TYPE workspace_kind AS ENUM ('workspace', 'folder', 'study');
CREATE TYPE workspace_visibility AS ENUM ('private', 'shared', 'public');
CREATE TYPE workspace_role AS ENUM ('viewer', 'commenter', 'editor', 'admin', 'owner');
CREATE TYPE workspace_thread_kind AS ENUM ('question', 'suggestion', 'note');

CREATE TABLE workspace_nodes (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    kind workspace_kind NOT NULL,
    -- Null for the root of a tree. No foreign key: a purge deletes a batch; nodes below it in other batches remain.
    parent_id UUID,
    -- Owner of the tree when the node was put into it. Only the value of a root is used: it owns the whole tree.
    owner_id TEXT NOT NULL,
    title TEXT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    position INT NOT NULL DEFAULT 0,
    layout JSONB,
    -- Null: inherited from the nearest ancestor that has a value.
    visibility workspace_visibility,
    -- version: the ETag. stream_version: the number of all events of the node, also those of its discussions.
    version INT NOT NULL DEFAULT 1,
    stream_version INT NOT NULL DEFAULT 1,
    created_by TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    changed_at TIMESTAMPTZ NOT NULL,
    -- Set only on the topmost node that was trashed: a node is live if these are null in the node and all ancestors.
    trashed_at TIMESTAMPTZ,
    trashed_by TEXT,
    trash_reason TEXT,
    trash_batch_id UUID,
    trash_count INT,
    -- Ids of the ancestors at the time of trashing, root first; a restore uses them to find the former place.
    trash_path UUID[],
    CONSTRAINT workspace_nodes_title_check CHECK (char_length(title) BETWEEN 1 AND 200),
    CONSTRAINT workspace_nodes_root_check CHECK (parent_id IS NULL OR kind <> 'workspace'),
    CONSTRAINT workspace_nodes_version_check CHECK (version >= 1 AND stream_version >= version),
    CONSTRAINT workspace_nodes_trash_check CHECK (
        num_nonnulls(trashed_at, trashed_by, trash_batch_id, trash_count, trash_path) IN (0, 5)
    )
);
-- Children of a node in their order; also for reading a whole tree.
CREATE INDEX idx_workspace_nodes_parent ON workspace_nodes (parent_id, position, id);
CREATE INDEX idx_workspace_nodes_owner ON workspace_nodes (owner_id, created_at) WHERE parent_id IS NULL;
-- The titles of live studies in one folder are unique.
CREATE UNIQUE INDEX idx_workspace_nodes_study_title ON workspace_nodes (parent_id, title)
    WHERE kind = 'study' AND trashed_at IS NULL;
-- The bin: nodes that are due for the automatic purge, and the trashed nodes of a user.
CREATE INDEX idx_workspace_nodes_trashed ON workspace_nodes (trashed_at) WHERE trashed_at IS NOT NULL;
CREATE INDEX idx_workspace_nodes_trashed_by ON workspace_nodes (trashed_by) WHERE trashed_at IS NOT NULL;

-- Tasks by the nodes that they export, or that they import into: a purge erases the content of these tasks.
CREATE INDEX idx_async_tasks_nodes ON async_tasks USING gin ((result_data -> 'nodes'))
    WHERE task_type IN ('workspace.export', 'workspace.import-pgn');
-- Exports by age, to remove old files.
CREATE INDEX idx_async_tasks_exported ON async_tasks (updated_at) WHERE task_type = 'workspace.export';

CREATE TABLE workspace_chapters (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    node_id UUID NOT NULL,
    position INT NOT NULL,
    title TEXT NOT NULL,
    headers JSONB NOT NULL DEFAULT '{}',
    -- {"start": annotation of the position before the first move, "moves": [all moves, in preorder]}.
    moves JSONB NOT NULL DEFAULT '{}',
    version INT NOT NULL DEFAULT 1,
    created_at TIMESTAMPTZ NOT NULL,
    changed_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX idx_workspace_chapters_node ON workspace_chapters (node_id, position, id);

CREATE TABLE workspace_versions (
    node_id UUID NOT NULL,
    number INT NOT NULL,
    label TEXT NOT NULL DEFAULT '',
    -- The version that a rollback restored; null for a version that a user stored.
    restored_from INT,
    title TEXT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    -- Chapters as they were: id, position, title, headers, moves.
    chapters JSONB NOT NULL,
    created_by TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT workspace_versions_pkey PRIMARY KEY (node_id, number)
);

CREATE TABLE workspace_threads (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    node_id UUID NOT NULL,
    chapter_id UUID,
    move_path TEXT,
    kind workspace_thread_kind NOT NULL,
    title TEXT NOT NULL DEFAULT '',
    body TEXT NOT NULL,
    mentions JSONB NOT NULL DEFAULT '[]',
    author_id TEXT NOT NULL,
    resolved_at TIMESTAMPTZ,
    resolved_by TEXT,
    pinned BOOLEAN NOT NULL DEFAULT false,
    version INT NOT NULL DEFAULT 1,
    created_at TIMESTAMPTZ NOT NULL,
    changed_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT workspace_threads_resolved_check CHECK ((resolved_at IS NULL) = (resolved_by IS NULL)),
    CONSTRAINT workspace_threads_move_check CHECK (move_path IS NULL OR chapter_id IS NOT NULL)
);
CREATE INDEX idx_workspace_threads_node ON workspace_threads (node_id, pinned, created_at, id);

CREATE TABLE workspace_replies (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    node_id UUID NOT NULL,
    thread_id UUID NOT NULL,
    -- The reply that this reply answers; null if it answers the thread.
    parent_id UUID,
    depth INT NOT NULL DEFAULT 1,
    body TEXT NOT NULL,
    mentions JSONB NOT NULL DEFAULT '[]',
    author_id TEXT NOT NULL,
    -- The user who wrote the current body, the author or an admin; null while the body is the first one.
    edited_by TEXT,
    -- The last 50 earlier bodies, oldest first: {"body", "written_by", "written_at"}.
    history JSONB NOT NULL DEFAULT '[]',
    -- The users of each emoji, by emoji.
    reactions JSONB NOT NULL DEFAULT '{}',
    version INT NOT NULL DEFAULT 1,
    created_at TIMESTAMPTZ NOT NULL,
    changed_at TIMESTAMPTZ NOT NULL,
    -- A deleted reply that has answers remains as a row without a body.
    deleted_at TIMESTAMPTZ,
    CONSTRAINT workspace_replies_depth_check CHECK (depth BETWEEN 1 AND 5)
);
CREATE INDEX idx_workspace_replies_thread ON workspace_replies (thread_id, created_at, id);
CREATE INDEX idx_workspace_replies_node ON workspace_replies (node_id);

CREATE TABLE workspace_grants (
    node_id UUID NOT NULL,
    user_id TEXT NOT NULL,
    role workspace_role NOT NULL,
    granted_by TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    changed_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT workspace_grants_pkey PRIMARY KEY (node_id, user_id),
    CONSTRAINT workspace_grants_role_check CHECK (role <> 'owner')
);
CREATE INDEX idx_workspace_grants_user ON workspace_grants (user_id, created_at);

CREATE TABLE workspace_links (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    node_id UUID NOT NULL,
    role workspace_role NOT NULL,
    has_password BOOLEAN NOT NULL DEFAULT false,
    expires_at TIMESTAMPTZ,
    created_by TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT workspace_links_role_check CHECK (role IN ('viewer', 'commenter', 'editor'))
);
CREATE INDEX idx_workspace_links_node ON workspace_links (node_id);

-- In no event, so a rebuild cannot restore these rows; if they are lost, users create new links.
CREATE TABLE workspace_link_secrets (
    link_id UUID PRIMARY KEY,
    node_id UUID NOT NULL,
    token_hash BYTEA NOT NULL,
    password_hash TEXT,
    -- Wrong passwords since the last correct password, and the time until which all attempts are refused.
    failures INT NOT NULL DEFAULT 0,
    refused_until TIMESTAMPTZ,
    CONSTRAINT workspace_link_secrets_token_key UNIQUE (token_hash)
);
CREATE INDEX idx_workspace_link_secrets_node ON workspace_link_secrets (node_id);

-- Return the ids of the roots of the trees of *places*, ascending, in the snapshot of the calling statement.
CREATE FUNCTION workspace_roots(places UUID[]) RETURNS UUID[] LANGUAGE sql STABLE AS $$
    WITH RECURSIVE up AS (
        SELECT node.id, node.parent_id, 0 AS level FROM workspace_nodes AS node WHERE node.id = ANY (places)
        UNION
        SELECT parent.id, parent.parent_id, up.level + 1
        FROM up JOIN workspace_nodes AS parent ON parent.id = up.parent_id
        WHERE up.level < 1000
    )
    SELECT coalesce(array_agg(DISTINCT up.id ORDER BY up.id), '{}') FROM up WHERE up.parent_id IS NULL
$$;

-- Lock *nodes* FOR UPDATE, and lock the roots of the trees of *places* (nodes included), so that no place moves to
-- another tree before the end of the transaction. The roots are locked FOR SHARE; with *alone* FOR UPDATE, which excludes
-- all other callers in these trees. Return the rows that were locked FOR UPDATE; deleted nodes are missing.
-- The order of locks prevents deadlocks: first the roots, then the nodes, both by id. A locked root stays a root. If a
-- place moved before its root was locked, leaving the block releases the locks, and the function tries again.
-- All statements are in one function, because each needs a snapshot taken after the locks before it.
CREATE FUNCTION workspace_hold(places UUID[], nodes UUID[], alone BOOLEAN) RETURNS SETOF workspace_nodes
    LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    roots UUID[];
    root UUID;
BEGIN
    FOR attempt IN 1..10 LOOP
        BEGIN
            roots := workspace_roots(places);
            FOREACH root IN ARRAY roots LOOP
                -- Not FOR SHARE first: two transactions that both upgrade a shared lock deadlock.
                IF alone OR root = ANY (nodes) THEN
                    PERFORM FROM workspace_nodes AS node WHERE node.id = root AND node.parent_id IS NULL FOR UPDATE;
                ELSE
                    PERFORM FROM workspace_nodes AS node WHERE node.id = root AND node.parent_id IS NULL FOR SHARE;
                END IF;
                IF NOT FOUND THEN
                    RAISE EXCEPTION USING ERRCODE = 'WS001';
                END IF;
            END LOOP;
            IF NOT workspace_roots(places) <@ roots THEN
                RAISE EXCEPTION USING ERRCODE = 'WS001';
            END IF;
            RETURN QUERY SELECT node.* FROM workspace_nodes AS node
                WHERE node.id = ANY (CASE WHEN alone THEN roots || nodes ELSE nodes END)
                ORDER BY node.id FOR UPDATE;
            RETURN;
        EXCEPTION WHEN SQLSTATE 'WS001' THEN
            NULL; -- Another try.
        END;
    END LOOP;
    RAISE EXCEPTION 'the trees keep moving' USING ERRCODE = 'serialization_failure';
END
$$;

-- Replaces the function of 0001: the same rights on all tables of the applications.
CREATE OR REPLACE FUNCTION backend_grant(service NAME) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON genesis_sessions, workspace_nodes, workspace_chapters, '
        'workspace_versions, workspace_threads, workspace_replies, workspace_grants, workspace_links, '
        'workspace_link_secrets TO %I', service);
    EXECUTE format('GRANT SELECT ON backend_alembic_version TO %I', service);
END
$$;

-- The row of a session whose events were erased keeps only id, owner, version and times, as a rebuild computes it.
ALTER TABLE genesis_sessions
    ADD COLUMN erased BOOLEAN NOT NULL DEFAULT false,
    ADD CONSTRAINT genesis_sessions_erased_check CHECK (NOT erased OR (
        status = 'ABANDONED' AND current_stage = 'CONCEPT_SELECTION' AND feedback = '[]'
        AND num_nonnulls(novel_id, confirmed_data, draft) = 0));

-- Clears the rows of erased sessions in the transaction of every erasure. relaybox_erase inserts the row that fires the
-- trigger before it erases events: the locks make commands on these sessions wait, so that they record no event meanwhile.
CREATE FUNCTION genesis_erase_sessions() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ids UUID[] := ARRAY(SELECT id::uuid FROM unnest(NEW.aggregate_ids) AS id
                        WHERE id ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$');
BEGIN
    -- In the order in which commands lock several sessions.
    PERFORM FROM genesis_sessions WHERE id = ANY (ids) ORDER BY id FOR NO KEY UPDATE;
    UPDATE genesis_sessions SET erased = true, status = 'ABANDONED', current_stage = 'CONCEPT_SELECTION',
            novel_id = NULL, confirmed_data = NULL, draft = NULL, feedback = '[]'
        WHERE id = ANY (ids);
    RETURN NULL;
END
$$;
CREATE TRIGGER genesis_sessions_erased AFTER INSERT ON event_erasures
    FOR EACH ROW WHEN (NEW.aggregate_type = 'GENESIS_SESSION') EXECUTE FUNCTION genesis_erase_sessions();

-- Sessions that were erased before the trigger existed.
UPDATE genesis_sessions SET erased = true, status = 'ABANDONED', current_stage = 'CONCEPT_SELECTION',
        novel_id = NULL, confirmed_data = NULL, draft = NULL, feedback = '[]'
    WHERE id::text IN (SELECT unnest(aggregate_ids) FROM event_erasures WHERE aggregate_type = 'GENESIS_SESSION');

-- The files of exports. A file is deleted with its task, by a purge of its node, or after WORKSPACE_EXPORT_KEEP_H hours.
-- Not a column of the task, because each change of a task's result would write the whole file again.
CREATE TABLE workspace_archives (
    task_id UUID PRIMARY KEY REFERENCES async_tasks (id) ON DELETE CASCADE,
    node_id UUID NOT NULL,
    -- The user who started the export; no other user may read the file.
    owner_id TEXT NOT NULL,
    -- EXTERNAL: not compressed, because the file is a zip already.
    file BYTEA STORAGE EXTERNAL NOT NULL,
    size_bytes BIGINT NOT NULL GENERATED ALWAYS AS (octet_length(file)) STORED,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX idx_workspace_archives_owner ON workspace_archives (owner_id);
CREATE INDEX idx_workspace_archives_node ON workspace_archives (node_id);
CREATE INDEX idx_workspace_archives_created ON workspace_archives (created_at);

INSERT INTO workspace_archives (task_id, node_id, owner_id, file, created_at)
    SELECT id, aggregate_id, input_data #>> '{asker,actor}', decode(result_data ->> 'zip', 'base64'), updated_at
    FROM async_tasks
    WHERE task_type = 'workspace.export' AND result_data ? 'zip' AND input_data #>> '{asker,actor}' IS NOT NULL;
UPDATE async_tasks SET result_data = result_data - 'zip'
    WHERE task_type = 'workspace.export' AND result_data ? 'zip';
DROP INDEX idx_async_tasks_exported;

-- Replaces the function of 0002: the same rights on all tables of the applications.
CREATE OR REPLACE FUNCTION backend_grant(service NAME) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON genesis_sessions, workspace_nodes, workspace_chapters, '
        'workspace_versions, workspace_threads, workspace_replies, workspace_grants, workspace_links, '
        'workspace_link_secrets, workspace_archives TO %I', service);
    EXECUTE format('GRANT SELECT ON backend_alembic_version TO %I', service);
END
$$;

-- The last guided run of a session: id of the flow, status, time limit.
ALTER TABLE genesis_sessions
    ADD COLUMN guided_run JSONB,
    ADD CONSTRAINT genesis_sessions_erased_run_check CHECK (NOT erased OR guided_run IS NULL);

-- Clears the guided run too; otherwise the function of 0003_erased_sessions.
CREATE OR REPLACE FUNCTION genesis_erase_sessions() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ids UUID[] := ARRAY(SELECT id::uuid FROM unnest(NEW.aggregate_ids) AS id
                        WHERE id ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$');
BEGIN
    -- In the order in which commands lock several sessions.
    PERFORM FROM genesis_sessions WHERE id = ANY (ids) ORDER BY id FOR NO KEY UPDATE;
    UPDATE genesis_sessions SET erased = true, status = 'ABANDONED', current_stage = 'CONCEPT_SELECTION',
            novel_id = NULL, confirmed_data = NULL, draft = NULL, guided_run = NULL, feedback = '[]'
        WHERE id = ANY (ids);
    RETURN NULL;
END
$$;

CREATE TABLE backend_alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT backend_alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO backend_alembic_version (version_num) VALUES ('0005_guided_runs');
