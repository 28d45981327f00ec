-- name: origin
-- This outbox among others on the same Kafka; the first relay that asks names it.
UPDATE relay_origin SET id = gen_random_uuid() WHERE id IS NULL RETURNING id

-- name: known_origin
-- What it was named.
SELECT id FROM relay_origin WHERE id IS NOT NULL

-- name: owned_lanes
-- Which of lanes $1 at epochs $2 have no other owner, what an operator has accepted for them, in which history they were
-- last compared with Kafka, and which of their producers is in use.
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
-- What the owners of lanes $1 claimed and is not settled, or was settled last.
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
-- The events that are on the topics; gone with the connection.
CREATE TEMPORARY TABLE relay_found (event_id TEXT COLLATE "C" NOT NULL)

-- name: add_found
-- More of them.
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
-- They were looked at.
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
-- Rows of lanes $1 at epochs $2 that an outage of Kafka made fail: the link is back, they are as they were (G25).
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
