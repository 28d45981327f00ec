-- name: confirm_history
-- The history of this server, stored for all relays when it changes. A read-only server rejects this. The id is null
-- if another relay stores it at the same time.
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
    -- The first history that is noted. If a failover loses a lane's first comparison with Kafka, the lane must look as if it
    -- came from this history, and not from another server.
    UPDATE relay_lanes AS l SET history_id = noted.history_id FROM noted, relay_origin AS o
    WHERE o.history IS NULL AND l.history_id IS NULL
), forgotten AS (
    -- Another server, restored from a dump or copied: what its lanes published cannot be found out by its clock.
    UPDATE relay_lanes SET history_id = NULL FROM server, relay_origin AS o
    WHERE split_part(o.history, '/', 1) <> split_part(server.history, '/', 1)
)
SELECT server.history,
       CASE WHEN o.history = server.history THEN o.history_id ELSE (SELECT history_id FROM noted) END AS history_id
FROM server, relay_origin AS o

-- name: remove_member
-- Delete relay $1; other relays take its lanes at their next heartbeat.
DELETE FROM relay_members WHERE name = $1

-- name: renew_lanes
-- Relay $1 lives for $2 more seconds, at $5, delivers $6, its breaker is $7, it has published $8 rows, and it reports
-- troubles $9; it keeps those of lanes $3 that it still holds at epochs $4. Forgets the dead. Says which
-- lanes it kept, how many other relays live, how many lanes there are and shall be.
WITH me AS (
    INSERT INTO relay_members (name, lease_until, place, delivery, breaker, published_total, troubles)
    VALUES ($1, clock_timestamp() + make_interval(secs => $2::float8), $5, $6, $7, $8, $9)
    ON CONFLICT (name) DO UPDATE SET lease_until = excluded.lease_until, breaker = excluded.breaker,
                                     published_total = excluded.published_total, troubles = excluded.troubles
), dead AS (
    -- Two relays that forget the dead in another order would wait for each other.
    DELETE FROM relay_members WHERE name IN (
        SELECT name FROM relay_members WHERE name <> $1 AND lease_until < clock_timestamp() FOR UPDATE SKIP LOCKED
    )
), kept AS (
    UPDATE relay_lanes AS l SET lease_until = clock_timestamp() + make_interval(secs => $2::float8)
    FROM unnest($3::int[], $4::bigint[]) AS held (lane, epoch)
    -- Not once the lease has ended: another relay may have held the lane since, in a history that was lost.
    WHERE l.lane = held.lane AND l.epoch = held.epoch AND l.owner = $1 AND l.lease_until >= clock_timestamp()
    RETURNING l.lane
)
SELECT (SELECT coalesce(array_agg(lane), '{}') FROM kept) AS kept,
       (SELECT count(*) FROM relay_members WHERE name <> $1 AND lease_until >= clock_timestamp()) AS others,
       (SELECT count(*) FROM relay_lanes) AS lanes,
       (SELECT lanes_wanted FROM relay_origin) AS wanted

-- name: take_lanes
-- Take at most $2 free lanes for relay $1 and $3 seconds. The new epoch fences the former owner.
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
-- Give lanes $2, held by relay $1 at epochs $3, back, and wake the relays that may take them.
WITH released AS (
    UPDATE relay_lanes AS l SET owner = NULL, lease_until = NULL
    FROM unnest($2::int[], $3::bigint[]) AS held (lane, epoch)
    WHERE l.lane = held.lane AND l.epoch = held.epoch AND l.owner = $1
    RETURNING l.lane
)
SELECT pg_notify(left($4 || coalesce('_' || nullif(current_schema(), 'public'), ''), 63), string_agg(lane::text, ',')) FROM released HAVING count(*) > 0

-- name: split_lanes
-- Halve the slices of lanes $1 at epochs $2, as far as more lanes are wanted; the upper halves become new, free lanes.
-- The owner runs this while no row is in flight or unmarked. The width of a slice determines how many lanes of this
-- width exist, and so the number of the new lane.
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
-- At most $3 rows, and about $4 bytes, of the lanes $1 at epochs $2 that may be published now, oldest first,
-- without those in flight ($5), from seq $6 on: the low watermark, below which no row is PENDING or can become PENDING. There is
-- no "seq > last": a smaller seq may commit later (G22). A row waits while an earlier one of its key is FAILED or
-- waits for its next attempt (G24); rows are checked for that only if such a row exists. The columns have the order
-- of Message and Attributes.
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
-- List the transactions that may have taken a seq that is not visible yet: an INSERT locks the table before it takes a
-- number, until its transaction ends.
SELECT virtualtransaction AS writer FROM pg_locks
WHERE locktype = 'relation' AND relation = 'event_outbox'::regclass AND mode = 'RowExclusiveLock' AND granted

-- name: first_unsettled
-- The first row from seq $1 on that is PENDING, or may become so again; null without one.
SELECT least(
    (SELECT seq FROM event_outbox WHERE status = 'PENDING' AND seq >= $1::bigint ORDER BY seq LIMIT 1),
    (SELECT seq FROM event_outbox
     WHERE status = 'FAILED' AND skipped_at IS NULL AND seq >= $1::bigint ORDER BY seq LIMIT 1)
) AS seq

-- name: mark_sent
-- Mark the acknowledged rows $1, with ids $5, of lanes $2 at epochs $3 SENT, where no other relay has taken
-- the lane (G26). FOR SHARE makes a take-over wait for this statement, or this statement see the take-over.
-- Says how many rows went into each bucket of $4, seconds from insert to acknowledgement, and their sum.
-- The key is set to itself so that key_hash depends on what is set: of a generated column that does not, PostgreSQL
-- parses the expression again for every row, to find that out (a quarter of the mark's time: 7.5 us a row, not 5.9).
WITH held AS MATERIALIZED (
    SELECT l.hash_min, l.hash_max FROM relay_lanes AS l
    JOIN unnest($2::int[], $3::bigint[]) AS held (lane, epoch) ON l.lane = held.lane AND l.epoch = held.epoch
    FOR SHARE OF l
), sent AS (
    UPDATE event_outbox AS o SET status = 'SENT', sent_at = clock_timestamp(), key = o.key
    WHERE o.seq = ANY ($1::bigint[]) AND o.id = ANY ($5::uuid[]) AND o.status = 'PENDING'
      -- All lanes' slices at once: one pass over the rows, whatever their number.
      AND o.key_hash::bigint <@ (SELECT range_agg(int8range(hash_min, hash_max, '[]')) FROM held)
    RETURNING extract(epoch FROM o.sent_at - o.created_at)::float8 AS delay_s
)
SELECT width_bucket(delay_s, $4::float8[]) AS bucket, count(*) AS rows, sum(delay_s) AS delay_s
FROM sent GROUP BY 1

-- name: charge_rows
-- Rows $1, with ids $7, of lanes $2 at epochs $3 failed through their own fault: count attempts $4 and keep errors $5. Each is
-- tried again after $6 seconds, or, where that is null, FAILED for an operator to decide on. Fenced like mark_sent.
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
-- Seconds until the first row that waits for its next attempt is due, one that became so in the last $1 seconds
-- included: less than 0 then. Null without one.
SELECT extract(epoch FROM min(next_attempt_at) - clock_timestamp())::float8 AS due_s
FROM event_outbox WHERE status = 'PENDING' AND next_attempt_at > now() - make_interval(secs => $1::float8)

-- name: measure_backlog
-- How many rows are PENDING, wait for a retry, or FAILED (of both: because of the link), or are skipped, and how many
-- keys a FAILED row holds back, each counted among $1 rows; for how many seconds the first PENDING one has been, and
-- the first, among $3, that no FAILED one holds back, from seq $2 on, the low watermark; how many lanes there are, and wait
-- for an operator; and when, in seconds since 1970, the server was found in another history, 0 for never.
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
-- This connection's plans follow the outbox's partial indexes whatever the statistics say: of a table that was never
-- analysed PostgreSQL thinks that three rows are PENDING, and sorts a hundred thousand for every batch (350 ms
-- instead of 9); of a slot that was empty when it planned, that it can as well be read from end to end.
SELECT set_config('enable_sort', 'off', false), set_config('enable_bitmapscan', 'off', false),
       set_config('enable_seqscan', 'off', false), set_config('plan_cache_mode', 'force_generic_plan', false)

-- name: notify_relays
-- Notify other relays that a relay has joined: they release their surplus at once, and not at their next heartbeat.
SELECT pg_notify(left($1 || coalesce('_' || nullif(current_schema(), 'public'), ''), 63), '')

-- name: origin
-- Create the id of this outbox, which distinguishes it on its Kafka cluster.
UPDATE relay_origin SET id = gen_random_uuid() WHERE id IS NULL RETURNING id

-- name: known_origin
-- The id of this outbox.
SELECT id FROM relay_origin WHERE id IS NOT NULL

-- name: owned_lanes
-- Those of lanes $1 at epochs $2 that have no other owner, with the marker that an operator accepted, the history in
-- which they were last compared with Kafka, and the number of their producer.
SELECT l.lane, l.accepted_marker, l.history_id, l.producer_number
FROM relay_lanes AS l
JOIN unnest($1::int[], $2::bigint[]) AS held (lane, epoch) ON l.lane = held.lane AND l.epoch = held.epoch

-- name: assign_next_producers
-- Give lanes $1 the next transactional.id while they are held at epochs $2; not while a relay of a version lives that knows
-- only the first one: that relay could not fence the next.
UPDATE relay_lanes AS l SET producer_number = l.producer_number + 1
FROM unnest($1::int[], $2::bigint[]) AS held (lane, epoch)
WHERE l.lane = held.lane AND l.epoch = held.epoch
  AND NOT EXISTS (SELECT FROM relay_members WHERE troubles IS NULL AND lease_until >= clock_timestamp())
RETURNING l.lane, l.producer_number

-- name: claim_batches
-- Lanes $1 at epochs $2 are publishing batches $3, each after the published one $4, with rows $5 (arrays as
-- text). Nothing of a lane that was taken over is claimed: FOR SHARE makes a take-over wait, or this see it.
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

-- name: list_claims
-- The claims of lanes $1 that are not recorded, and the last recorded one.
SELECT lane, number, batch_id, previous_id, seqs FROM relay_batches WHERE lane = ANY ($1::int[]) ORDER BY lane, number

-- name: recover_lane
-- Lane $1 at epoch $2: rows $3 were found published, claims $4 are not needed any more, and it is published from
-- again. It was compared with Kafka in history $5; marker $6, if any, is accepted though no claim is of it. Says whether
-- the lane is still held.
WITH held AS (
    -- That a marker is missing is accepted once; a marker, until the claim that follows it is known.
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
-- The topics of those rows of lanes $1 at epochs $2 that are not SENT, and the time since which one of them may have been
-- published without this database knowing: not before it was written, nor before its lane's first claim that is still
-- known, because claims are removed only after later ones were settled.
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
-- Create a table of the events on the topics, which ends with the connection.
CREATE TEMPORARY TABLE relay_found (event_id TEXT COLLATE "C" NOT NULL)

-- name: add_found
-- Add events that are on the topics.
INSERT INTO relay_found SELECT unnest($1::text[])

-- name: mark_found
-- Rows of lanes $1 at epochs $2 whose events are on the topics.
WITH held AS (
    SELECT l.hash_min, l.hash_max FROM relay_lanes AS l
    JOIN unnest($1::int[], $2::bigint[]) AS held (lane, epoch) ON l.lane = held.lane AND l.epoch = held.epoch
    FOR SHARE OF l
)
UPDATE event_outbox AS o SET status = 'SENT', sent_at = clock_timestamp(), next_attempt_at = NULL
FROM held
WHERE (o.status = 'PENDING' OR (o.status = 'FAILED' AND o.skipped_at IS NULL))
  AND o.key_hash BETWEEN held.hash_min AND held.hash_max
  AND o.payload ->> 'event_id' IN (SELECT event_id FROM relay_found)
RETURNING o.seq

-- name: drop_found
-- Drop the table of the events on the topics.
DROP TABLE relay_found

-- name: report_lane_fault
-- Lane $1 at epoch $2 is not published from, for the reason $3.
UPDATE relay_lanes SET fault = $3 WHERE lane = $1 AND epoch = $2 AND fault IS DISTINCT FROM $3

-- name: trim_batches
-- Of lanes $1 that are still held at epochs $2, forget the claims older than the last settled ones, $3. A lane that
-- was taken over keeps its claims: its former owner's marks may have been refused.
WITH held AS (
    SELECT settled.lane, settled.number FROM relay_lanes AS l
    JOIN unnest($1::int[], $2::bigint[], $3::bigint[]) AS settled (lane, epoch, number)
        ON l.lane = settled.lane AND l.epoch = settled.epoch
    FOR SHARE OF l
)
DELETE FROM relay_batches AS b USING held WHERE b.lane = held.lane AND b.number < held.number

-- name: requeue_after_outage
-- Rows of lanes $1 at epochs $2 that failed in an outage of Kafka: make them PENDING again (G25).
WITH held AS (
    SELECT l.hash_min, l.hash_max FROM relay_lanes AS l
    JOIN unnest($1::int[], $2::bigint[]) AS held (lane, epoch) ON l.lane = held.lane AND l.epoch = held.epoch
    FOR SHARE OF l
)
UPDATE event_outbox AS o SET status = 'PENDING', next_attempt_at = NULL, error_data = NULL,
    -- Waiting for a partition charged no attempt.
    attempts = CASE WHEN o.error_data ->> 'class' = 'PartitionUnavailable' THEN o.attempts ELSE 0 END
FROM held
WHERE ((o.status = 'FAILED' AND o.skipped_at IS NULL) OR (o.status = 'PENDING' AND o.next_attempt_at IS NOT NULL))
  AND o.error_data ->> 'reason' = 'link' AND o.key_hash BETWEEN held.hash_min AND held.hash_max
RETURNING o.seq
