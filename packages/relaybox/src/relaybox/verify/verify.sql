-- name: configure_session
-- Raises the memory limits of this session, which sorts and hashes whole topics in temporary tables. Returns the time by
-- the server's clock.
SELECT set_config('work_mem', '64MB', false), set_config('temp_buffers', '32MB', false), now() AS at

-- name: create_events
-- Events of domain_events and event_outbox as of one snapshot; take_snapshot describes the columns.
-- PostgreSQL drops the table when the session ends.
CREATE TEMPORARY TABLE verify_events (
    event_id TEXT COLLATE "C",
    topic TEXT COLLATE "C",
    key TEXT COLLATE "C",
    row_id UUID,
    seq BIGINT,
    state TEXT NOT NULL,
    stream BIGINT,
    version INT,
    not_before TIMESTAMPTZ NOT NULL,
    wanted BOOLEAN NOT NULL
)

-- name: create_records
-- Records that were read from the topics. own_event_at: time of an event whose source is a service of this
-- database; null for other records, and if PostgreSQL had no failover or restore.
CREATE TEMPORARY TABLE verify_records (
    topic TEXT COLLATE "C" NOT NULL,
    partition INT NOT NULL,
    "offset" BIGINT NOT NULL,
    event_id TEXT COLLATE "C",
    key TEXT COLLATE "C",
    own_event_at TIMESTAMPTZ
)

-- name: create_findings
-- Deviations, one row per kind and event (or record without an event). appearances: number of records of a
-- duplicated event, otherwise 1. not_before: as in take_snapshot, only for events without a record.
CREATE TEMPORARY TABLE verify_findings (
    kind TEXT NOT NULL,
    topic TEXT COLLATE "C",
    key TEXT COLLATE "C",
    event_id TEXT COLLATE "C",
    row_id UUID,
    seq BIGINT,
    stream BIGINT,
    version INT,
    partition INT,
    "offset" BIGINT,
    appearances BIGINT NOT NULL,
    not_before TIMESTAMPTZ
)

-- name: create_horizons
-- Keys from whose partition retention removed records, and the time of the oldest record that the partition
-- retains. The empty key stands for rows without a key, which may be in any partition.
CREATE TEMPORARY TABLE verify_horizons (
    topic TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    horizon TIMESTAMPTZ NOT NULL
)

-- name: take_snapshot
-- Copies the events of key $1 (null: all events) from domain_events and event_outbox. One statement, so one
-- snapshot. wanted: whether to verify the event, because it was written since $2 (null: at any time). stream:
-- hash of the aggregate. not_before: earliest time at which a relay can have published the event: after the
-- insert of its row, and at most a minute before the row was marked SENT. The outbox row of an event that is
-- only in domain_events was removed: the event is skipped if operator_acts records that, otherwise sent. A
-- row with a record as bytes gets no key, because its record may have another key, and the order of such
-- records is not compared.
INSERT INTO verify_events
SELECT coalesce(o.event_id, d.event_id::text), o.topic, CASE WHEN o.seq IS NULL THEN d.aggregate_id ELSE o.key END,
       o.id, o.seq,
       CASE WHEN o.status = 'PENDING' THEN 'pending' WHEN o.skipped_at IS NOT NULL THEN 'skipped'
            WHEN o.seq IS NULL AND d.event_id::text IN (
                SELECT gap ->> 'event_id' FROM operator_acts AS a, jsonb_array_elements(a.target -> 'rows') AS gap
                WHERE a.act = 'skip') THEN 'skipped'
            WHEN o.status = 'FAILED' THEN 'failed' ELSE 'sent' END,
       hashtextextended(d.aggregate_type || '/' || d.aggregate_id, 0), d.aggregate_version,
       greatest(coalesce(o.created_at, d.created_at), o.sent_at - interval '1 minute'),
       coalesce(o.created_at, d.created_at) >= coalesce($2::timestamptz, '-infinity')
FROM (SELECT id, seq, topic, CASE WHEN payload ->> 'event_type' IS NULL AND payload ? 'record' THEN NULL ELSE key END AS key,
             status, skipped_at, created_at, sent_at, payload ->> 'event_id' AS event_id
      FROM event_outbox) AS o
FULL JOIN domain_events AS d ON d.event_id::text = o.event_id
WHERE $1::text IS NULL OR CASE WHEN o.seq IS NULL THEN d.aggregate_id ELSE o.key END = $1

-- name: describe_snapshot
-- Returns the topics that copied outbox rows name, and the number of events to verify.
SELECT coalesce(array_agg(DISTINCT topic) FILTER (WHERE topic IS NOT NULL), '{}') AS topics,
       count(*) FILTER (WHERE wanted) AS events
FROM verify_events

-- name: possible_loss
-- Returns which events PostgreSQL may have lost in a failover or restore; no row if there was none. until:
-- only earlier events may have been lost. This is the time when a relay recorded the failover or restore, or
-- now if no relay has recorded it yet. since: retention (which truncates the oldest slot) and operators have
-- removed no outbox row of an event written after this time; null if they have removed no row. services:
-- names of all services that wrote events.
WITH server AS (
    SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) AS history
    FROM pg_control_system()
), changed AS (
    SELECT CASE WHEN o.history <> server.history THEN clock_timestamp() ELSE o.history_changed_at END AS at
    FROM relay_origin AS o, server
)
SELECT changed.at AS until,
       greatest(
           (SELECT min(s.opened_at) FROM event_outbox_slots AS s, event_outbox_turn AS turn WHERE turn.is_called),
           (SELECT max(a.at) FROM operator_acts AS a
            WHERE a.act = 'purge' AND (a.target ->> 'count')::bigint > jsonb_array_length(a.target -> 'rows'))) AS since,
       (SELECT array_agg(DISTINCT named.service)
        FROM (SELECT payload -> 'metadata' ->> 'source_service' FROM event_outbox
              UNION ALL SELECT metadata ->> 'source_service' FROM domain_events) AS named (service)) AS services
FROM changed WHERE changed.at IS NOT NULL

-- name: analyze_events
-- Autovacuum does not analyze temporary tables.
ANALYZE verify_events

-- name: analyze_records
-- Autovacuum does not analyze temporary tables.
ANALYZE verify_records

-- name: find_duplicated
-- Finds events with more than one record on a topic, each with the partition and offset of the first record.
WITH repeated AS (
    SELECT topic, event_id, count(*) AS appearances FROM verify_records
    WHERE event_id IS NOT NULL GROUP BY topic, event_id HAVING count(*) > 1
)
INSERT INTO verify_findings
SELECT DISTINCT ON (r.topic, r.event_id) 'duplicated', r.topic, r.key, r.event_id, e.row_id, e.seq, e.stream, e.version,
       r.partition, r."offset", repeated.appearances, NULL
FROM repeated
JOIN verify_records AS r ON r.event_id = repeated.event_id AND r.topic = repeated.topic
LEFT JOIN verify_events AS e ON e.event_id = r.event_id AND coalesce(e.topic, r.topic) = r.topic
ORDER BY r.topic, r.event_id, r.partition, r."offset"

-- name: find_spread
-- Finds events in another partition than the first event of their key: Kafka keeps order only within a
-- partition. Only records whose event is in the tables count. A hash aggregate finds the few keys with
-- records in several partitions; only the records of these keys are sorted.
WITH spread AS (
    SELECT topic, key FROM verify_records WHERE key IS NOT NULL
    GROUP BY topic, key HAVING min(partition) <> max(partition)
), placed AS (
    SELECT r.topic, r.partition, r."offset", r.event_id, r.key, e.row_id, e.seq, e.stream, e.version,
           first_value(r.partition) OVER (PARTITION BY r.topic, r.key
                                          ORDER BY e.seq NULLS FIRST, e.version, r.partition) AS first_partition
    FROM spread
    JOIN verify_records AS r ON r.topic = spread.topic AND r.key = spread.key
    JOIN verify_events AS e ON e.event_id = r.event_id AND coalesce(e.topic, r.topic) = r.topic
)
INSERT INTO verify_findings
SELECT DISTINCT ON (topic, event_id) 'spread', topic, key, event_id, row_id, seq, stream, version,
       partition, "offset", 1, NULL
FROM placed WHERE partition <> first_partition
ORDER BY topic, event_id, partition, "offset"

-- name: find_reordered_and_unknown
-- Finds records that follow a later event of their key (higher seq of the key, or higher version of the
-- aggregate), and records whose event is not in the tables. Of duplicated events, only the first record
-- counts. $1, $2 and $3 are topics, partitions and end offsets: a record whose event is not in the tables is
-- reported only if it is in one of these partitions and before its end offset, because the event of a later
-- record may be newer than the snapshot. Such an event was lost by PostgreSQL if a service of this database
-- wrote it between $4 (null: no lower bound) and $5 (null: PostgreSQL has lost no event). Sorts by a hash of
-- topic, partition and key: sorting by the keys takes three times as long.
WITH compared AS (
    SELECT r.topic, r.partition, r."offset", r.event_id, r.key, r.own_event_at, e.row_id, e.seq, e.stream,
           e.version, e.state,
           max(e.seq) OVER (PARTITION BY hashtextextended(r.topic || '/' || r.key, r.partition) ORDER BY r."offset"
                            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS seq_before,
           max(e.version) OVER (PARTITION BY hashtextextended(r.topic || '/' || r.key, r.partition), e.stream
                                ORDER BY r."offset"
                                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS version_before
    FROM verify_records AS r
    LEFT JOIN verify_events AS e ON e.event_id = r.event_id AND coalesce(e.topic, r.topic) = r.topic
), deviating AS (
    SELECT *, CASE WHEN state IS NOT NULL THEN 'reordered'
                   WHEN own_event_at BETWEEN coalesce($4::timestamptz, '-infinity') AND $5::timestamptz THEN 'not-in-database'
                   ELSE 'unknown' END AS kind
    FROM compared
    WHERE state IS NULL OR (key IS NOT NULL AND (seq < seq_before OR version < version_before))
)
INSERT INTO verify_findings
SELECT s.kind, s.topic, s.key, s.event_id, s.row_id, s.seq, s.stream, s.version, s.partition, s."offset", 1, NULL
FROM deviating AS s
LEFT JOIN unnest($1::text[], $2::int[], $3::bigint[]) AS until (topic, partition, "offset")
    ON until.topic = s.topic AND until.partition = s.partition
LEFT JOIN verify_findings AS d ON d.kind = 'duplicated' AND d.event_id = s.event_id AND d.topic = s.topic
WHERE (s.kind = 'reordered' OR s."offset" < until."offset")
  AND (d.event_id IS NULL OR (d.partition = s.partition AND d."offset" = s."offset"))

-- name: find_missing
-- Finds events to verify that have no record: pending, failed or skipped as in the tables, or lost if their
-- row was SENT.
INSERT INTO verify_findings
SELECT CASE WHEN e.state = 'sent' THEN 'lost' ELSE e.state END, e.topic, e.key, e.event_id, e.row_id, e.seq,
       e.stream, e.version, NULL, NULL, 1, e.not_before
FROM verify_events AS e
WHERE e.wanted AND NOT EXISTS (
    SELECT FROM verify_records AS r WHERE r.event_id = e.event_id AND coalesce(e.topic, r.topic) = r.topic
)

-- name: keys_with_lost_events
-- Returns the first $2 keys of lost events that are greater than $1 (null: the first keys of all).
SELECT DISTINCT key FROM verify_findings
WHERE kind = 'lost' AND key IS NOT NULL AND ($1::text IS NULL OR key > $1) ORDER BY key LIMIT $2

-- name: set_aside_expired
-- Changes lost events that are older than the oldest record of their partition to beyond retention. An event
-- stays lost if the topic still has an earlier event of its key: retention removes the beginning of a
-- partition, never records in the middle.
WITH retained AS (
    SELECT r.topic, e.key, e.stream, min(e.seq) AS seq, min(e.version) AS version
    FROM verify_records AS r
    JOIN verify_events AS e ON e.event_id = r.event_id AND coalesce(e.topic, r.topic) = r.topic
    WHERE e.key IN (SELECT key FROM verify_findings WHERE kind = 'lost')
    GROUP BY r.topic, e.key, e.stream
)
UPDATE verify_findings AS f SET kind = 'beyond-retention'
FROM verify_horizons AS h
WHERE f.kind = 'lost' AND h.key = coalesce(f.key, '') AND coalesce(f.topic, h.topic) = h.topic
  AND f.not_before <= h.horizon
  AND NOT EXISTS (
      SELECT FROM retained AS r
      WHERE r.key = f.key AND coalesce(f.topic, r.topic) = r.topic
        AND (r.seq < f.seq OR (r.stream = f.stream AND r.version < f.version))
  )

-- name: tally
-- Returns, per kind, the numbers of events, of keys, and of surplus records (after the first one of each
-- event).
SELECT kind, count(*) AS events, count(DISTINCT (topic, key)) AS keys, sum(appearances - 1)::bigint AS duplicates
FROM verify_findings GROUP BY kind

-- name: show_findings
-- Returns the first $1 keys of each kind, each with its first $2 events.
WITH placed AS (
    SELECT *, row_number() OVER (PARTITION BY kind, topic, key ORDER BY seq, version, partition, "offset") AS place
    FROM verify_findings
), keys AS (
    SELECT kind, topic, key, count(*) AS events, min(seq) AS seq, min("offset") AS "offset",
           jsonb_agg(jsonb_build_object('event_id', event_id, 'row_id', row_id, 'seq', seq, 'version', version,
                                        'partition', partition, 'offset', "offset")
                     ORDER BY place) FILTER (WHERE place <= $2::int) AS examples
    FROM placed GROUP BY kind, topic, key
), ranked AS (
    SELECT *, row_number() OVER (PARTITION BY kind ORDER BY seq, "offset", key) AS rank FROM keys
)
SELECT kind, topic, key, events, examples::text AS examples FROM ranked WHERE rank <= $1::int ORDER BY kind, rank
