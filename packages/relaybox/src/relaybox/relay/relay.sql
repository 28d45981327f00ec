-- name: confirm_history
-- Return the server's history (system identifier and timeline) and the id of the history. A new history is stored for all
-- relays with a new id; the returned id is null if another relay stores the history at the same time. A read-only server
-- rejects this statement.
WITH server AS (
    SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) AS history
    FROM pg_control_system()
), noted AS (
    UPDATE relay_origin AS o SET history = server.history, history_id = gen_random_uuid(),
                                 history_changed_at = CASE WHEN o.history IS NOT NULL THEN clock_timestamp() END
    FROM server
    WHERE o.history IS DISTINCT FROM server.history
    RETURNING o.history_id
), begun AS (
    -- Assign the first stored history to all lanes. Otherwise, if a failover lost a lane's first comparison with Kafka, the
    -- lane would look like a lane of another server.
    UPDATE relay_lanes AS l SET history_id = noted.history_id FROM noted, relay_origin AS o
    WHERE o.history IS NULL AND l.history_id IS NULL
), forgotten AS (
    -- A server with another system identifier was restored from a dump or copied: its times do not show what was published.
    UPDATE relay_lanes SET history_id = NULL FROM server, relay_origin AS o
    WHERE split_part(o.history, '/', 1) <> split_part(server.history, '/', 1)
)
SELECT server.history,
       CASE WHEN o.history = server.history THEN o.history_id ELSE (SELECT history_id FROM noted) END AS history_id
FROM server, relay_origin AS o

-- name: remove_member
-- Delete relay $1 from the members, so that the other relays' shares of the lanes grow.
DELETE FROM relay_members WHERE name = $1

-- name: renew_lanes
-- Heartbeat of relay $1: renew for $2 seconds its membership (host and process id $5, delivery $6, state of the circuit
-- breaker $7, published rows $8, troubles $9) and its leases of those lanes $3 that it still owns at epochs $4. Delete
-- members whose lease has ended. Return the renewed lanes, the number of other relays, the number of lanes, and the requested
-- number of lanes.
WITH me AS (
    INSERT INTO relay_members (name, lease_until, place, delivery, breaker, published_total, troubles)
    VALUES ($1, clock_timestamp() + make_interval(secs => $2::float8), $5, $6, $7, $8, $9)
    ON CONFLICT (name) DO UPDATE SET lease_until = excluded.lease_until, breaker = excluded.breaker,
                                     published_total = excluded.published_total, troubles = excluded.troubles
), dead AS (
    -- SKIP LOCKED, because two relays that delete the same members in different order would deadlock.
    DELETE FROM relay_members WHERE name IN (
        SELECT name FROM relay_members WHERE name <> $1 AND lease_until < clock_timestamp() FOR UPDATE SKIP LOCKED
    )
), kept AS (
    UPDATE relay_lanes AS l SET lease_until = clock_timestamp() + make_interval(secs => $2::float8)
    FROM unnest($3::int[], $4::bigint[]) AS held (lane, epoch)
    -- An ended lease is not renewed: another relay may have owned the lane since, in a history that a failover lost.
    WHERE l.lane = held.lane AND l.epoch = held.epoch AND l.owner = $1 AND l.lease_until >= clock_timestamp()
    RETURNING l.lane
)
SELECT (SELECT coalesce(array_agg(lane), '{}') FROM kept) AS kept,
       (SELECT count(*) FROM relay_members WHERE name <> $1 AND lease_until >= clock_timestamp()) AS others,
       (SELECT count(*) FROM relay_lanes) AS lanes,
       (SELECT lanes_wanted FROM relay_origin) AS wanted

-- name: take_lanes
-- Lease at most $2 lanes without an owner, or with an ended lease, to relay $1 for $3 seconds. The new epoch fences the
-- former owner.
UPDATE relay_lanes SET owner = $1, epoch = epoch + 1,
                       lease_until = clock_timestamp() + make_interval(secs => $3::float8)
WHERE lane IN (
    SELECT lane FROM relay_lanes
    WHERE owner IS NULL OR lease_until < clock_timestamp()
    ORDER BY lane LIMIT $2::int
    FOR UPDATE SKIP LOCKED
)
RETURNING lane, epoch

-- name: release_lanes
-- Release lanes $2, which relay $1 owns at epochs $3, and notify the other relays on channel $4.
WITH released AS (
    UPDATE relay_lanes AS l SET owner = NULL, lease_until = NULL
    FROM unnest($2::int[], $3::bigint[]) AS held (lane, epoch)
    WHERE l.lane = held.lane AND l.epoch = held.epoch AND l.owner = $1
    RETURNING l.lane
)
SELECT pg_notify(left($4 || coalesce('_' || nullif(current_schema(), 'public'), ''), 63), string_agg(lane::text, ',')) FROM released HAVING count(*) > 0

-- name: split_lanes
-- Split lanes $1 at epochs $2, unless the requested number of lanes is reached; the upper halves become new lanes without an
-- owner. The relay executes this when none of its rows is in flight, or published and not marked. The number of a new lane
-- follows from the width of the range: 2^32 / width lanes of this width exist. Notifies the relays on channel $3.
WITH halved AS (
    UPDATE relay_lanes AS l SET hash_max = l.hash_min + (l.hash_max::bigint - l.hash_min) / 2
    FROM unnest($1::int[], $2::bigint[]) AS held (lane, epoch), relay_origin
    WHERE l.lane = held.lane AND l.epoch = held.epoch
      AND 4294967296 / (l.hash_max::bigint - l.hash_min + 1) < relay_origin.lanes_wanted
    RETURNING l.lane, l.hash_max::bigint AS hash_max, l.hash_max::bigint - l.hash_min + 1 AS width, l.history_id
), made AS (
    INSERT INTO relay_lanes (lane, hash_min, hash_max, history_id)
    SELECT lane + 4294967296 / (2 * width), hash_max + 1, hash_max + width, history_id FROM halved
    RETURNING lane
)
SELECT lane, pg_notify(left($3 || coalesce('_' || nullif(current_schema(), 'public'), ''), 63), lane::text) FROM made ORDER BY lane

-- name: fetch_batch
-- Return at most $3 rows, and about $4 bytes, of lanes $1 at epochs $2 that may be published now, by seq, from the low
-- watermark $6 on, without the rows in flight ($5). No condition "seq > last fetched", because a row with a smaller seq may
-- commit later (G22). A row waits while an earlier row of its key is FAILED or waits for its next attempt (G24); this is
-- checked per row only if the outbox has a row of either kind. The columns have the order of Message and Attributes.
WITH held AS MATERIALIZED (
    SELECT l.lane, l.epoch, l.hash_min, l.hash_max FROM relay_lanes AS l
    JOIN unnest($1::int[], $2::bigint[]) AS held (lane, epoch) ON l.lane = held.lane AND l.epoch = held.epoch
), due AS (
    SELECT o.seq, o.id AS row_id, held.lane, held.epoch, o.topic, o.key, o.attempts, o.payload, pg_column_size(o.payload) AS bytes
    FROM event_outbox AS o
    JOIN held ON o.key_hash BETWEEN held.hash_min AND held.hash_max
    WHERE o.status = 'PENDING'
      AND o.seq >= $6::bigint
      AND (o.next_attempt_at IS NULL OR o.next_attempt_at <= now())
      AND NOT o.seq <@ (SELECT $5::text::int8multirange)
      AND ((SELECT NOT EXISTS (
                SELECT FROM event_outbox
                WHERE (status = 'FAILED' AND skipped_at IS NULL) OR (status = 'PENDING' AND next_attempt_at IS NOT NULL)))
           OR NOT EXISTS (
                SELECT FROM event_outbox AS head
                WHERE head.key = o.key AND head.seq < o.seq
                  AND ((head.status = 'FAILED' AND head.skipped_at IS NULL)
                       OR (head.status = 'PENDING' AND head.next_attempt_at > now()))))
    ORDER BY o.seq
    LIMIT $3::int
), sized AS (
    SELECT *, sum(bytes) OVER (ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS bytes_so_far
    FROM due
)
SELECT seq, lane, epoch, topic, key, attempts, convert_to(payload::text, 'UTF8') AS value, row_id,
       payload ->> 'event_id' AS id,
       payload ->> 'event_type' AS type,
       payload ->> 'timestamp' AS time,
       payload ->> 'aggregate_id' AS subject,
       payload ->> 'correlation_id' AS correlation_id,
       payload ->> 'causation_id' AS causation_id,
       payload -> 'metadata' ->> 'source_service' AS source,
       payload -> 'metadata' ->> 'traceparent' AS traceparent
FROM sized
WHERE bytes_so_far - bytes < $4::bigint
ORDER BY seq

-- name: list_writers
-- Return the transactions that may have rows with a seq that are not visible yet: an INSERT locks the table before it draws
-- a seq, until its transaction ends.
SELECT virtualtransaction AS writer FROM pg_locks
WHERE locktype = 'relation' AND relation = 'event_outbox'::regclass AND mode = 'RowExclusiveLock' AND granted

-- name: first_unsettled
-- Return the lowest seq from $1 on of a row that is PENDING, or FAILED and may become PENDING again; null if none is.
SELECT least(
    (SELECT seq FROM event_outbox WHERE status = 'PENDING' AND seq >= $1::bigint ORDER BY seq LIMIT 1),
    (SELECT seq FROM event_outbox
     WHERE status = 'FAILED' AND skipped_at IS NULL AND seq >= $1::bigint ORDER BY seq LIMIT 1)
) AS seq

-- name: mark_sent
-- Mark the acknowledged rows with seqs $1 and ids $5 SENT, if this relay still owns their lanes $2 at epochs $3. FOR SHARE:
-- a takeover waits for this statement, or this statement sees the new epoch. Return the number of rows per bucket of $4
-- (seconds from created_at to sent_at), and the sum of these seconds. key = o.key is an optimisation: if an UPDATE sets no
-- column from which key_hash is generated, PostgreSQL parses the expression of key_hash for each row (7.5 us per row instead
-- of 5.9).
WITH held AS MATERIALIZED (
    SELECT l.hash_min, l.hash_max FROM relay_lanes AS l
    JOIN unnest($2::int[], $3::bigint[]) AS held (lane, epoch) ON l.lane = held.lane AND l.epoch = held.epoch
    FOR SHARE OF l
), sent AS (
    UPDATE event_outbox AS o SET status = 'SENT', sent_at = clock_timestamp(), key = o.key
    WHERE o.seq = ANY ($1::bigint[]) AND o.id = ANY ($5::uuid[]) AND o.status = 'PENDING'
      -- One multirange of all lanes, so that the rows are read once, whatever the number of lanes.
      AND o.key_hash::bigint <@ (SELECT range_agg(int8range(hash_min, hash_max, '[]')) FROM held)
    RETURNING extract(epoch FROM o.sent_at - o.created_at)::float8 AS delay_s
)
SELECT width_bucket(delay_s, $4::float8[]) AS bucket, count(*) AS rows, sum(delay_s) AS delay_s
FROM sent GROUP BY 1

-- name: charge_rows
-- Record failures of the rows with seqs $1 and ids $7 of lanes $2 at epochs $3: attempts $4, errors $5, and the next attempt
-- after $6 seconds (null: none, the row becomes FAILED). Changes no row of a lane that this relay has lost, like mark_sent.
WITH held AS MATERIALIZED (
    SELECT l.hash_min, l.hash_max FROM relay_lanes AS l
    JOIN unnest($2::int[], $3::bigint[]) AS held (lane, epoch) ON l.lane = held.lane AND l.epoch = held.epoch
    FOR SHARE OF l
)
UPDATE event_outbox AS o SET
    status = CASE WHEN charge.after_s IS NULL THEN 'FAILED' ELSE 'PENDING' END::outbox_status,
    attempts = charge.attempts,
    next_attempt_at = clock_timestamp() + make_interval(secs => charge.after_s),
    error_data = charge.error || jsonb_build_object('at', clock_timestamp())
FROM unnest($1::bigint[], $4::int[], $5::text[]::jsonb[], $6::float8[]) AS charge (seq, attempts, error, after_s)
WHERE o.seq = charge.seq AND o.id = ANY ($7::uuid[]) AND o.status = 'PENDING'
  AND o.key_hash::bigint <@ (SELECT range_agg(int8range(hash_min, hash_max, '[]')) FROM held)
RETURNING o.seq

-- name: next_due
-- Return the seconds until the next attempt of a row; null if no row waits for one. Negative if an attempt became due in
-- the last $1 seconds.
SELECT extract(epoch FROM min(next_attempt_at) - clock_timestamp())::float8 AS due_s
FROM event_outbox WHERE status = 'PENDING' AND next_attempt_at > now() - make_interval(secs => $1::float8)

-- name: measure_backlog
-- Measure the backlog from the low watermark $2 on. Counted up to $1 rows each: PENDING rows, rows that wait for a retry and
-- FAILED rows (of both also those because of the link to Kafka), skipped rows, keys that a FAILED row blocks. Ages in
-- seconds: of the first PENDING row, and of the first of $3 PENDING rows that no FAILED row blocks. Number of lanes, and of
-- lanes with a fault. Time at which relays found a new history, in seconds since 1970; 0: never.
SELECT (SELECT count(*) FROM (SELECT FROM event_outbox
                              WHERE status = 'PENDING' AND seq >= $2::bigint LIMIT $1::int) AS rows) AS pending,
       retrying.rows AS retrying, retrying.by_link AS retrying_link,
       failed.rows AS failed, failed.by_link AS failed_link, failed.keys AS keys_blocked,
       (SELECT count(*) FROM (SELECT FROM event_outbox
                              WHERE status = 'FAILED' AND skipped_at IS NOT NULL LIMIT $1::int) AS rows) AS skipped,
       (SELECT extract(epoch FROM clock_timestamp() - created_at)::float8
        FROM event_outbox WHERE status = 'PENDING' AND seq >= $2::bigint ORDER BY seq LIMIT 1) AS oldest_s,
       (SELECT extract(epoch FROM clock_timestamp() - o.created_at)::float8
        FROM (SELECT seq, key, created_at FROM event_outbox
              WHERE status = 'PENDING' AND seq >= $2::bigint ORDER BY seq LIMIT $3::int) AS o
        WHERE NOT EXISTS (SELECT FROM event_outbox AS head
                          WHERE head.key = o.key AND head.seq < o.seq
                            AND head.status = 'FAILED' AND head.skipped_at IS NULL)
        ORDER BY o.seq LIMIT 1) AS oldest_due_s,
       lanes.rows AS lanes, lanes.faulty AS lanes_faulty,
       (SELECT coalesce(extract(epoch FROM history_changed_at), 0)::float8 FROM relay_origin) AS history_changed_at_s
FROM (SELECT count(*) AS rows, count(*) FILTER (WHERE error_data ->> 'reason' = 'link') AS by_link
      FROM (SELECT error_data FROM event_outbox
            WHERE status = 'PENDING' AND next_attempt_at IS NOT NULL LIMIT $1::int) AS rows) AS retrying,
     (SELECT count(*) AS rows, count(*) FILTER (WHERE error_data ->> 'reason' = 'link') AS by_link, count(DISTINCT key) AS keys
      FROM (SELECT key, error_data FROM event_outbox
            WHERE status = 'FAILED' AND skipped_at IS NULL LIMIT $1::int) AS rows) AS failed,
     (SELECT count(*) AS rows, count(fault) AS faulty FROM relay_lanes) AS lanes

-- name: use_partial_indexes
-- Make plans of this connection use the partial indexes of the outbox, whatever the statistics are. For a table that was
-- never analysed, PostgreSQL estimates three PENDING rows and sorts 100,000 for each batch (350 ms instead of 9); for a slot
-- (partition of the outbox) that was empty when the statement was planned, it chooses a sequential scan.
SELECT set_config('enable_sort', 'off', false), set_config('enable_bitmapscan', 'off', false),
       set_config('enable_seqscan', 'off', false), set_config('plan_cache_mode', 'force_generic_plan', false)

-- name: notify_relays
-- Notify other relays that a relay has joined, so that they release lanes above their share before their next heartbeat.
SELECT pg_notify(left($1 || coalesce('_' || nullif(current_schema(), 'public'), ''), 63), '')

-- name: origin
-- Set and return the id that distinguishes this outbox from others on the same Kafka cluster; no row if the id is already set.
UPDATE relay_origin SET id = gen_random_uuid() WHERE id IS NULL RETURNING id

-- name: known_origin
-- Return the id of this outbox.
SELECT id FROM relay_origin WHERE id IS NOT NULL

-- name: owned_lanes
-- Return those of lanes $1 that still have epochs $2, with the marker that an operator accepted, the id of the history in
-- which the lane was last compared with Kafka, and the number of the lane's producer.
SELECT l.lane, l.accepted_marker, l.history_id, l.producer_number
FROM relay_lanes AS l
JOIN unnest($1::int[], $2::bigint[]) AS held (lane, epoch) ON l.lane = held.lane AND l.epoch = held.epoch

-- name: assign_next_producers
-- Assign the next transactional.id to those of lanes $1 that still have epochs $2. Do nothing while a relay of an older
-- version runs (troubles IS NULL): that relay knows only the first transactional.id of a lane and could not fence the next.
UPDATE relay_lanes AS l SET producer_number = l.producer_number + 1
FROM unnest($1::int[], $2::bigint[]) AS held (lane, epoch)
WHERE l.lane = held.lane AND l.epoch = held.epoch
  AND NOT EXISTS (SELECT FROM relay_members WHERE troubles IS NULL AND lease_until >= clock_timestamp())
RETURNING l.lane, l.producer_number

-- name: claim_batches
-- Claim batches $3 of lanes $1 at epochs $2 with rows $5 (arrays of seqs as text); $4: last published batch of each lane.
-- Claims nothing in lanes that this relay has lost. FOR SHARE: a takeover waits for this statement, or this statement sees
-- the new epoch.
WITH held AS (
    SELECT l.lane FROM relay_lanes AS l
    JOIN unnest($1::int[], $2::bigint[]) AS held (lane, epoch) ON l.lane = held.lane AND l.epoch = held.epoch
    FOR SHARE OF l
)
INSERT INTO relay_batches (lane, batch_id, previous_id, seqs)
SELECT claim.lane, claim.batch_id, claim.previous_id, claim.seqs::bigint[]
FROM unnest($1::int[], $3::uuid[], $4::uuid[], $5::text[]) AS claim (lane, batch_id, previous_id, seqs)
JOIN held ON held.lane = claim.lane
RETURNING lane, number

-- name: withdraw_claims
-- Delete the claims of the batches $1, which will never be committed. The epochs of their lanes are not checked: the lanes
-- may have another owner by now.
DELETE FROM relay_batches WHERE batch_id = ANY ($1::uuid[])

-- name: list_claims
-- Return the claims of lanes $1: the last claim whose outcome is recorded, later claims, and older ones not deleted yet.
SELECT lane, number, batch_id, previous_id, seqs FROM relay_batches WHERE lane = ANY ($1::int[]) ORDER BY lane, number

-- name: recover_lane
-- Record the takeover of lane $1 at epoch $2 in history $5: mark rows $3, which are in Kafka, SENT; delete claims $4; remove
-- the fault; accept marker $6, which no claim has (null: none). Return whether this relay still owns the lane.
WITH held AS (
    -- A missing marker (id 0) is accepted once; another accepted marker stays until a claim follows it.
    UPDATE relay_lanes AS l SET fault = NULL,
        accepted_marker = coalesce($6::uuid, nullif(l.accepted_marker, '00000000-0000-0000-0000-000000000000')),
        history_id = $5::uuid
    WHERE l.lane = $1::int AND l.epoch = $2::bigint
    RETURNING l.hash_min, l.hash_max
), sent AS (
    UPDATE event_outbox AS o SET status = 'SENT', sent_at = clock_timestamp()
    FROM held
    WHERE o.seq = ANY ($3::bigint[]) AND o.status = 'PENDING'
), forgotten AS (
    DELETE FROM relay_batches AS b USING held WHERE b.number = ANY ($4::bigint[])
)
SELECT count(*) = 1 AS held FROM held

-- name: unsettled_topics
-- Return the topics of the unpublished rows of lanes $1 at epochs $2, and the earliest time at which one of the rows can
-- have been published although it is not SENT: after the row was written, and after the lane's first stored claim, because
-- claims are deleted only after a later claim was recorded.
WITH held AS (
    SELECT l.hash_min, l.hash_max,
           (SELECT min(b.claimed_at) FROM relay_batches AS b WHERE b.lane = l.lane) AS claimed_at
    FROM relay_lanes AS l
    JOIN unnest($1::int[], $2::bigint[]) AS held (lane, epoch) ON l.lane = held.lane AND l.epoch = held.epoch
)
SELECT o.topic, min(greatest(o.created_at, held.claimed_at)) AS since
FROM event_outbox AS o JOIN held ON o.key_hash BETWEEN held.hash_min AND held.hash_max
WHERE o.status = 'PENDING' OR (o.status = 'FAILED' AND o.skipped_at IS NULL)
GROUP BY o.topic

-- name: create_found
-- Create a temporary table for the ids of events that are on the topics.
CREATE TEMPORARY TABLE relay_found (topic TEXT COLLATE "C" NOT NULL, event_id TEXT COLLATE "C" NOT NULL)

-- name: add_found
-- Add events that are on the topics: the topic of each event in $1, its id in $2.
INSERT INTO relay_found SELECT * FROM unnest($1::text[], $2::text[])

-- name: mark_found
-- Mark SENT each unpublished row of lanes $1 at epochs $2 whose event is on the row's topic. The topic is compared too,
-- because an event may have rows for several topics.
WITH held AS (
    SELECT l.hash_min, l.hash_max FROM relay_lanes AS l
    JOIN unnest($1::int[], $2::bigint[]) AS held (lane, epoch) ON l.lane = held.lane AND l.epoch = held.epoch
    FOR SHARE OF l
)
UPDATE event_outbox AS o SET status = 'SENT', sent_at = clock_timestamp(), next_attempt_at = NULL
FROM held
WHERE (o.status = 'PENDING' OR (o.status = 'FAILED' AND o.skipped_at IS NULL))
  AND o.key_hash BETWEEN held.hash_min AND held.hash_max
  AND (o.topic, o.payload ->> 'event_id') IN (SELECT topic, event_id FROM relay_found)
RETURNING o.seq

-- name: drop_found
-- Drop the temporary table of event ids.
DROP TABLE relay_found

-- name: report_lane_fault
-- Record fault $3 of lane $1 at epoch $2: the reason why no relay publishes from the lane.
UPDATE relay_lanes SET fault = $3 WHERE lane = $1 AND epoch = $2 AND fault IS DISTINCT FROM $3

-- name: trim_batches
-- Delete the claims of lanes $1 at epochs $2 that are older than the last recorded claims $3. A lane that another relay has
-- taken over keeps its claims, because PostgreSQL may have rejected marks of the former owner.
WITH held AS (
    SELECT settled.lane, settled.number FROM relay_lanes AS l
    JOIN unnest($1::int[], $2::bigint[], $3::bigint[]) AS settled (lane, epoch, number)
        ON l.lane = settled.lane AND l.epoch = settled.epoch
    FOR SHARE OF l
)
DELETE FROM relay_batches AS b USING held WHERE b.lane = held.lane AND b.number < held.number

-- name: requeue_after_outage
-- Make rows of lanes $1 at epochs $2 that failed in an outage of Kafka or of a partition PENDING again (G25, G36).
WITH held AS (
    SELECT l.hash_min, l.hash_max FROM relay_lanes AS l
    JOIN unnest($1::int[], $2::bigint[]) AS held (lane, epoch) ON l.lane = held.lane AND l.epoch = held.epoch
    FOR SHARE OF l
)
UPDATE event_outbox AS o SET status = 'PENDING', next_attempt_at = NULL, error_data = NULL,
    -- A row that waited for a partition keeps its number of attempts, because waiting did not count as one.
    attempts = CASE WHEN o.error_data ->> 'class' = 'PartitionUnavailable' THEN o.attempts ELSE 0 END
FROM held
WHERE ((o.status = 'FAILED' AND o.skipped_at IS NULL) OR (o.status = 'PENDING' AND o.next_attempt_at IS NOT NULL))
  AND o.error_data ->> 'reason' = 'link' AND o.key_hash BETWEEN held.hash_min AND held.hash_max
RETURNING o.seq
