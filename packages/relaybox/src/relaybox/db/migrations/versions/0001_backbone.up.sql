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

-- The only source of truth. id is insertion order, not commit order: never a cursor (G22).
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
    -- Also the index for "events by aggregate"; two writers of one version cannot both win.
    CONSTRAINT domain_events_aggregate_version_key UNIQUE (aggregate_type, aggregate_id, aggregate_version),
    CONSTRAINT domain_events_aggregate_version_check CHECK (aggregate_version >= 1)
);
CREATE INDEX idx_domain_events_correlation ON domain_events (correlation_id);
CREATE INDEX idx_domain_events_type ON domain_events (event_type, id);

-- Privileges already keep services out; the trigger also keeps out the owner's own slips (G07).
CREATE FUNCTION refuse_change_of_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'domain_events is append-only: % refused', TG_OP USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER domain_events_append_only BEFORE UPDATE OR DELETE ON domain_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_events();
CREATE TRIGGER domain_events_no_truncate BEFORE TRUNCATE ON domain_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_events();
-- ALWAYS: session_replication_role cannot switch them off.
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
-- At most one pending command of a type per session: the backstop of G03.
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
    -- A RUNNING task, and no other, has a lease.
    CONSTRAINT async_tasks_lease_check
        CHECK ((status = 'RUNNING') = (lease_until IS NOT NULL) AND (lease_until IS NULL) = (lease_token IS NULL))
);
CREATE INDEX idx_async_tasks_status ON async_tasks (status, created_at) WHERE status IN ('PENDING', 'RUNNING');
CREATE INDEX idx_async_tasks_command ON async_tasks (triggered_by_command_id);
CREATE INDEX idx_async_tasks_aggregate ON async_tasks (aggregate_id);
CREATE TRIGGER async_tasks_set_timestamp BEFORE UPDATE ON async_tasks
    FOR EACH ROW EXECUTE FUNCTION trigger_set_timestamp();

-- Which of the outbox's four slots new rows go to; relaybox_retain_outbox moves it on. A sequence, because reading
-- it costs an insert nothing (a function that reads a row: 2.5 us) and moving it on takes no lock and leaves no dead
-- row. Where a row lies matters to retention only: a value that a crash sets back does no harm.
CREATE SEQUENCE event_outbox_turn AS INT MINVALUE 0 MAXVALUE 3 START 0;

CREATE TABLE event_outbox (
    id UUID NOT NULL DEFAULT gen_random_uuid(),
    seq BIGINT GENERATED ALWAYS AS IDENTITY,
    topic TEXT NOT NULL,
    key TEXT,
    -- A row without a key is a key of its own: nothing waits for it.
    key_hash INT NOT NULL GENERATED ALWAYS AS (hashtext(coalesce(key, id::text))) STORED,
    payload JSONB NOT NULL,
    status outbox_status NOT NULL DEFAULT 'PENDING',
    attempts INT NOT NULL DEFAULT 0,
    next_attempt_at TIMESTAMPTZ,
    error_data JSONB,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    sent_at TIMESTAMPTZ,
    -- An operator has decided that this FAILED row is never published; its key no longer waits for it.
    skipped_at TIMESTAMPTZ,
    -- The partition. Old SENT rows leave by TRUNCATE of a whole slot: no dead rows, nothing to vacuum (G29).
    slot INT NOT NULL DEFAULT coalesce(pg_sequence_last_value('event_outbox_turn'), 0),
    -- Widened by the partition's columns, and in their order: every mark writes to this index, and where random ids
    -- come first, to a page of its own, of an index as large as all SENT rows (mark 18 us instead of 9 at 200,000).
    CONSTRAINT event_outbox_pkey PRIMARY KEY (seq, slot, id),
    CONSTRAINT event_outbox_skipped_check CHECK (skipped_at IS NULL OR status = 'FAILED'),
    CONSTRAINT event_outbox_sent_check CHECK ((status = 'SENT') = (sent_at IS NOT NULL)),
    CONSTRAINT event_outbox_failed_check CHECK (status <> 'FAILED' OR error_data IS NOT NULL)
) PARTITION BY RANGE (slot, seq);
-- Half of every page stays free for the mark's new version of each row: beside the old one it costs a fifth of the
-- WAL (970 -> 210 bytes) and no second page.
CREATE TABLE event_outbox_0 PARTITION OF event_outbox FOR VALUES FROM (0, MINVALUE) TO (1, MINVALUE)
    WITH (fillfactor = 50);
CREATE TABLE event_outbox_1 PARTITION OF event_outbox FOR VALUES FROM (1, MINVALUE) TO (2, MINVALUE)
    WITH (fillfactor = 50);
CREATE TABLE event_outbox_2 PARTITION OF event_outbox FOR VALUES FROM (2, MINVALUE) TO (3, MINVALUE)
    WITH (fillfactor = 50);
CREATE TABLE event_outbox_3 PARTITION OF event_outbox FOR VALUES FROM (3, MINVALUE) TO (4, MINVALUE)
    WITH (fillfactor = 50);
-- The poll's index: its size is the backlog's, not the table's (G29).
CREATE INDEX idx_event_outbox_pending ON event_outbox (seq) WHERE status = 'PENDING';
-- Heads of keys that wait: for their next attempt, or for an operator.
CREATE INDEX idx_event_outbox_blocked ON event_outbox (key, seq)
    WHERE (status = 'FAILED' AND skipped_at IS NULL) OR (status = 'PENDING' AND next_attempt_at IS NOT NULL);
-- What waits, or waited, for an operator, the oldest first: polls begin no later than there.
CREATE INDEX idx_event_outbox_failed ON event_outbox (seq) WHERE status = 'FAILED';
-- When the next attempt of any row is due; tells an idle relay how long it may sleep.
CREATE INDEX idx_event_outbox_retry ON event_outbox (next_attempt_at)
    WHERE status = 'PENDING' AND next_attempt_at IS NOT NULL;

-- The life of each slot: current, then closed (gets no new rows), sealed (holds nothing but SENT rows), emptied.
CREATE TABLE event_outbox_slots (
    slot INT PRIMARY KEY,
    opened_at TIMESTAMPTZ,
    closed_at TIMESTAMPTZ,
    sealed_at TIMESTAMPTZ
);
INSERT INTO event_outbox_slots (slot, opened_at) VALUES (0, now()), (1, NULL), (2, NULL), (3, NULL);

-- Move what is not SENT out of slot *leaving*, 1,000 rows of each kind at the most; whether that was all. The caller
-- holds a lock that keeps writers out of it. By status, each through its own small index.
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

-- One step of retention (G29): SENT rows leave when they have been for *keep*, at the latest for half as long again;
-- PENDING and FAILED ones are moved on first. Says what was done: 'closed', 'emptied', 'sealed' or 'moved' (call
-- again), 'busy' (call again in a while), or null: nothing is due, or another session is at it.
-- A function, so that its locks are held for one statement and not for the life of a client, which may be frozen;
-- and so that services, which own no table, can truncate a slot without the right TRUNCATE.
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
    -- The sequence may have moved without the table: its steps outlive a rollback, and replication leaves it behind.
    UPDATE event_outbox_slots SET opened_at = coalesce(opened_at, now_at), closed_at = NULL, sealed_at = NULL
        WHERE slot = open_slot AND (opened_at IS NULL OR closed_at IS NOT NULL);
    IF FOUND THEN
        UPDATE event_outbox_slots SET closed_at = now_at
            WHERE slot <> open_slot AND opened_at IS NOT NULL AND closed_at IS NULL;
    END IF;

    -- Close the open slot, if it holds what can leave and the next one is empty; until it is, this one takes all.
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

    -- Seal a closed slot, or empty a sealed one. What is SENT when a slot is sealed has been so since then at the
    -- latest; a row that was on its way into it at that moment is found and moved when it is emptied.
    FOR old IN SELECT slot, closed_at, sealed_at IS NOT NULL AS sealed FROM event_outbox_slots
               WHERE slot <> open_slot AND closed_at IS NOT NULL AND (sealed_at IS NULL OR sealed_at <= now_at - keep)
               ORDER BY closed_at LOOP
        SELECT count(*) INTO waiting
            FROM (SELECT FROM event_outbox WHERE slot = old.slot AND status = 'PENDING' LIMIT 1000) AS pending;
        -- A backlog drains by itself; only what still waits after *keep*, behind a FAILED row, is worth its moving.
        CONTINUE WHEN waiting = 1000 AND old.closed_at > now_at - keep;
        -- While a session holds an old snapshot, each query of the slot is slow; do not run it under a lock then.
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
-- Its caller's temporary tables must not stand in for ours.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION relaybox_retain_outbox(INTERVAL) SET search_path = %I, pg_temp', current_schema());
END
$$;
REVOKE ALL ON FUNCTION relaybox_retain_outbox(INTERVAL), relaybox_move_unsent(INT, INT) FROM PUBLIC;

-- Which relay publishes which slice of the keys' hashes, and until when. Times by this server's clock.
-- Slices are ranges, so that a lane can be split in two while relays run; together they cover every INT once.
CREATE TABLE relay_lanes (
    lane INT PRIMARY KEY,
    hash_min INT NOT NULL,
    hash_max INT NOT NULL,
    owner TEXT,
    -- Fencing token: increases when a relay takes the lane over; a relay with a lower epoch has lost the lane.
    epoch BIGINT NOT NULL DEFAULT 0,
    lease_until TIMESTAMPTZ,
    -- For operators, why no relay publishes from the lane: Kafka and this database contradict each other.
    fault TEXT,
    -- The marker in Kafka that an operator has accepted although relay_batches does not know it.
    accepted_marker UUID,
    CONSTRAINT relay_lanes_owner_check CHECK ((owner IS NULL) = (lease_until IS NULL)),
    CONSTRAINT relay_lanes_hash_check CHECK (hash_min <= hash_max),
    CONSTRAINT relay_lanes_hash_excl EXCLUDE USING gist (int8range(hash_min, hash_max, '[]') WITH &&)
);
-- 8 slices of 2^29 hashes each, from the smallest INT to the largest.
INSERT INTO relay_lanes (lane, hash_min, hash_max)
    SELECT lane, -2147483648 + lane * 536870912::bigint, -2147483649 + (lane + 1) * 536870912::bigint
    FROM generate_series(0, 7) AS lane;

-- The rows of each Kafka transaction of a lane, written before it: the next owner of the lane compares them with the
-- marker in Kafka to decide whether the transaction was committed. Only inserted and deleted, never updated: a row that
-- is rewritten for every batch would grow a chain of dead versions while an old snapshot is held.
CREATE TABLE relay_batches (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lane INT NOT NULL,
    -- A UUID, not a counter: a restored database cannot use it again for other rows.
    batch_id UUID NOT NULL,
    -- The batch of this lane that was known to be published when this one was claimed.
    previous_id UUID,
    -- Not compressed: that costs more than it spares.
    seqs BIGINT[] STORAGE EXTERNAL NOT NULL,
    claimed_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT relay_batches_batch_id_key UNIQUE (batch_id)
);
CREATE INDEX idx_relay_batches_lane ON relay_batches (lane, number);

-- This outbox among others on the same Kafka: part of its relays' transactional ids. One row; the first relay
-- names it, so that databases made from one template differ. A copy of a database that was in use must not.
CREATE TABLE relay_origin (
    singleton BOOLEAN PRIMARY KEY DEFAULT true CHECK (singleton),
    id UUID,
    -- How many lanes there shall be; owners split theirs until there are.
    lanes_wanted INT NOT NULL DEFAULT 8 CHECK (lanes_wanted BETWEEN 8 AND 1024)
);
INSERT INTO relay_origin DEFAULT VALUES;

-- Relays that are alive: how many there are is how many shares the lanes are divided into.
CREATE TABLE relay_members (
    name TEXT PRIMARY KEY,
    lease_until TIMESTAMPTZ NOT NULL,
    started_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    -- For operators: host and process, how it delivers, and its circuit breaker (closed, open, half-open).
    place TEXT NOT NULL DEFAULT '',
    delivery TEXT NOT NULL DEFAULT '',
    breaker TEXT NOT NULL DEFAULT 'closed',
    -- Rows it has marked SENT since it started, as of its last heartbeat.
    published_total BIGINT NOT NULL DEFAULT 0
);

-- What operators did to the outbox and the lanes (G32): services may add to it and read it, no more.
CREATE TABLE operator_acts (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at TIMESTAMPTZ NOT NULL DEFAULT now(),
    actor TEXT NOT NULL,
    act TEXT NOT NULL,
    reason TEXT,
    target JSONB NOT NULL
);

-- What a consumer has already done; written in the transaction of the effect itself (G40).
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

-- Snapshots of aggregates that have no table of their own.
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

-- Single-use tickets for browsers' event streams, which cannot send a bearer token; kept only hashed.
CREATE TABLE stream_tickets (
    ticket_hash BYTEA PRIMARY KEY,
    aggregate_id UUID NOT NULL,
    owner TEXT NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX idx_stream_tickets_expires ON stream_tickets (expires_at);
