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
