-- name: claim_events
-- Record that the group $1 has processed the events with ids $2, topics $3 and keys $4. Return a row for each
-- event that the group had not processed before (blocked is false), and for each event whose key has an
-- unresolved dead letter (blocked is true; nothing is recorded for this event). A key is null if no dead
-- letter may block its event. This is the first statement of the transaction in which the handlers run.
WITH message AS MATERIALIZED (
    SELECT * FROM unnest($2::uuid[], $3::text[], $4::bytea[]) AS message (event_id, topic, message_key)
), blocked AS MATERIALIZED (
    SELECT message.event_id FROM message
    WHERE EXISTS (
        SELECT FROM dead_letters AS letter
        WHERE letter.consumer_group = $1 AND letter.topic = message.topic AND letter.key_hash = sha256(message.message_key)
          AND letter.holds_key AND letter.status IN ('PARKED', 'REPLAY_REQUESTED')
    )
), claimed AS (
    INSERT INTO consumed_events (consumer, event_id)
    -- In the same order in every transaction: otherwise two transactions with the same events could deadlock.
    SELECT $1, message.event_id FROM message
    WHERE message.event_id NOT IN (SELECT blocked.event_id FROM blocked) ORDER BY message.event_id
    ON CONFLICT DO NOTHING
    RETURNING event_id
)
SELECT event_id, false AS blocked FROM claimed UNION ALL SELECT event_id, true FROM blocked

-- name: lock_blocking_letter
-- Lock the last unresolved dead letter of group $1, topic $2 and key $3, so that the letter stays unresolved
-- until this transaction has parked the next message of the key. Return no row if no letter blocks the key
-- any more. The statement is an UPDATE, although it changes nothing, for this reason: a transaction that
-- replays the letter, and whose snapshot is older, then fails with a conflict (40001) and is repeated. Its
-- new snapshot contains the parked message.
UPDATE dead_letters SET attempts = attempts
WHERE id = (SELECT last.id FROM dead_letters AS last
            WHERE last.consumer_group = $1 AND last.topic = $2 AND last.key_hash = sha256($3::bytea) AND last.holds_key
              AND last.status IN ('PARKED', 'REPLAY_REQUESTED')
            ORDER BY last.id DESC LIMIT 1)
  AND status IN ('PARKED', 'REPLAY_REQUESTED')
RETURNING id

-- name: park
-- Park a message of group $1: topic $2, partition $3, offset $4, key $5, headers $8, value $9, reason $10,
-- error code $11, error $12, attempts $13; $14: whether later messages of its key are parked behind it. $6 is
-- the id of the event in the message, $7 its type, $15 and $16 the type and id of its aggregate; they are
-- null if the message is not an event. The event is recorded as processed, so that no handler is called if
-- the message is delivered again. Return no row if the group has processed or parked the message before.
WITH claimed AS (
    INSERT INTO consumed_events (consumer, event_id) SELECT $1, $6::uuid WHERE $6::uuid IS NOT NULL
    ON CONFLICT DO NOTHING
    RETURNING event_id
)
INSERT INTO dead_letters (consumer_group, topic, partition, message_offset, message_key, event_id, event_type, headers,
                          value, reason, error_code, error, attempts, holds_key, aggregate_type, aggregate_id)
SELECT $1, $2, $3::int, $4::bigint, $5::bytea, $6::uuid, $7::text, $8::text::jsonb, $9::bytea,
       $10::text::dead_letter_reason, $11, $12, $13::int, $14::boolean, $15::text, $16::text
WHERE $6::uuid IS NULL OR EXISTS (SELECT FROM claimed)
ON CONFLICT (consumer_group, topic, partition, message_offset) DO NOTHING
RETURNING id

-- name: requested_replays
-- Return which replays consumers of group $1 can begin now: a row for each partition (topics $2, numbers $3).
-- A letter is requested if its status is REPLAY_REQUESTED. The statement searches the first $5 keys that have
-- a requested letter and whose hash is greater than $4 (one hash per partition). "keys": those of these keys
-- whose first unresolved letter is requested. "last_key_hash": the hash of the last searched key; null if
-- fewer than $5 keys were found. "letter_ids": the first $5 requested letters that block no key. The search
-- reads one index entry per key, however many letters the key has.
WITH assigned AS (
    SELECT * FROM unnest($2::text[], $3::int[], $4::bytea[]) AS assigned (topic, partition, after)
)
SELECT assigned.topic, assigned.partition, keyed.keys, keyed.last_key_hash, single.letter_ids
FROM assigned CROSS JOIN LATERAL (
    WITH RECURSIVE walk (key_hash, place) AS (
        (SELECT first.key_hash, 1 FROM dead_letters AS first
         WHERE first.consumer_group = $1 AND first.topic = assigned.topic AND first.partition = assigned.partition
           AND first.status = 'REPLAY_REQUESTED' AND first.holds_key AND first.key_hash > assigned.after
         ORDER BY first.key_hash LIMIT 1)
        UNION ALL
        SELECT (SELECT next.key_hash FROM dead_letters AS next
                WHERE next.consumer_group = $1 AND next.topic = assigned.topic
                  AND next.partition = assigned.partition AND next.status = 'REPLAY_REQUESTED' AND next.holds_key
                  AND next.key_hash > walk.key_hash
                ORDER BY next.key_hash LIMIT 1), walk.place + 1
        FROM walk WHERE walk.key_hash IS NOT NULL AND walk.place < $5::int
    )
    SELECT coalesce(array_agg(head.message_key) FILTER (WHERE head.status = 'REPLAY_REQUESTED'), '{}') AS keys,
           CASE WHEN count(*) = $5::int THEN (array_agg(walk.key_hash ORDER BY walk.place DESC))[1] END AS last_key_hash
    FROM walk CROSS JOIN LATERAL (
        SELECT letter.message_key, letter.status FROM dead_letters AS letter
        WHERE letter.consumer_group = $1 AND letter.topic = assigned.topic AND letter.key_hash = walk.key_hash
          AND letter.holds_key AND letter.status IN ('PARKED', 'REPLAY_REQUESTED')
        ORDER BY letter.id LIMIT 1
    ) AS head
) AS keyed CROSS JOIN LATERAL (
    SELECT array(
        SELECT one.id FROM dead_letters AS one
        WHERE one.consumer_group = $1 AND one.topic = assigned.topic AND one.partition = assigned.partition
          AND one.status = 'REPLAY_REQUESTED' AND NOT one.holds_key
        ORDER BY one.id LIMIT $5::int
    ) AS letter_ids
) AS single

-- name: park_requests
-- Return the oldest $5 requests of operators to park a message of group $1. Messages before the offsets $4 of
-- the partitions (topics $2, numbers $3) are finished: also delete the requests for these messages, and their
-- rows of watched_messages. A row with a dead letter stays while the replay of the letter is requested.
WITH finished AS MATERIALIZED (
    SELECT * FROM unnest($2::text[], $3::int[], $4::bigint[]) AS finished (topic, partition, before_offset)
), deleted AS (
    DELETE FROM park_requests AS request USING finished
    WHERE request.consumer_group = $1 AND request.topic = finished.topic AND request.partition = finished.partition
      AND request.message_offset < finished.before_offset
), forgotten AS (
    DELETE FROM watched_messages AS watched USING finished
    WHERE watched.consumer_group = $1 AND watched.topic = finished.topic AND watched.partition = finished.partition
      AND watched.message_offset < finished.before_offset
      AND NOT EXISTS (SELECT FROM dead_letters AS letter
                      WHERE letter.id = watched.letter_id AND letter.status = 'REPLAY_REQUESTED')
)
SELECT topic, partition, message_offset, requested_by, reason FROM park_requests
WHERE consumer_group = $1
ORDER BY requested_at, topic, partition, message_offset LIMIT $5::int

-- name: open_partitions
-- Record that the process $4 of group $1 reads these partitions (topics $2, numbers $3). Return those that
-- another process read before, if that process did not record that it stopped reading them.
WITH opened AS MATERIALIZED (
    SELECT * FROM unnest($2::text[], $3::int[]) AS opened (topic, partition)
), left_open AS MATERIALIZED (
    SELECT topic, partition FROM opened JOIN consumer_partitions AS reader USING (topic, partition)
    WHERE reader.consumer_group = $1 AND reader.process <> $4::uuid
), recorded AS (
    INSERT INTO consumer_partitions (consumer_group, topic, partition, process)
    SELECT $1, topic, partition, $4::uuid FROM opened ORDER BY topic, partition
    ON CONFLICT (consumer_group, topic, partition) DO UPDATE SET process = excluded.process
)
SELECT topic, partition FROM left_open

-- name: close_partitions
-- Record that the process $4 of group $1 has stopped reading these partitions (topics $2, numbers $3). If the
-- process is stopping normally ($5), no handler has ended it, so it is removed from watched_messages. If $6
-- or more processes had ended in the handler of a watched message, the message was parked, or the consumer
-- stops because of it and an operator has to repair the handler. The count of this message returns to 0, so
-- that its handler gets all attempts again.
WITH closed AS MATERIALIZED (
    SELECT * FROM unnest($2::text[], $3::int[]) AS closed (topic, partition)
), stopped AS (
    DELETE FROM consumer_partitions AS reader USING closed
    WHERE reader.consumer_group = $1 AND reader.topic = closed.topic AND reader.partition = closed.partition
      AND reader.process = $4::uuid
)
UPDATE watched_messages SET process = NULL, processes_ended = CASE WHEN processes_ended < $6::int THEN processes_ended ELSE 0 END
WHERE $5::boolean AND consumer_group = $1 AND process = $4::uuid

-- name: watch_message
-- Record that the process $6 of group $1 calls the handler of the message at topic $2, partition $3 and
-- offset $4. $5 is the id of the dead letter if the message is replayed, and 0 otherwise. Return how many
-- other processes ended while they called the handler of this message.
INSERT INTO watched_messages AS watched (consumer_group, topic, partition, message_offset, letter_id, process)
VALUES ($1, $2, $3::int, $4::bigint, $5::bigint, $6::uuid)
ON CONFLICT (consumer_group, topic, partition, message_offset, letter_id) DO UPDATE
SET processes_ended = watched.processes_ended + (coalesce(watched.process, $6::uuid) <> $6::uuid)::int, process = $6::uuid
RETURNING processes_ended

-- name: release_message
-- Record that the handler that watch_message recorded has failed without ending its process $6.
UPDATE watched_messages SET process = NULL
WHERE consumer_group = $1 AND topic = $2 AND partition = $3::int AND message_offset = $4::bigint AND letter_id = $5::bigint
  AND process = $6::uuid

-- name: count_unresolved
-- Count the unresolved letters of group $1 and the keys that they block; reads at most $2 letters. The
-- condition on consumer_group is a range, in the order of the index: for an equality with LIMIT the planner
-- would read the letters of all groups.
SELECT count(*)::int AS letters, (count(DISTINCT (letter.topic, letter.key_hash)) FILTER (WHERE letter.holds_key))::int AS keys
FROM (SELECT topic, key_hash, holds_key FROM dead_letters
      WHERE consumer_group >= $1 AND consumer_group <= $1 AND status IN ('PARKED', 'REPLAY_REQUESTED')
      ORDER BY consumer_group LIMIT $2::int) AS letter

-- name: claim_next_letter
-- Mark the letter to replay as REPLAYED, record its event as processed, and return the letter. It is the
-- letter $4 of group $1 or, if $4 is null, the first unresolved letter of topic $2 and key $3 whose id is
-- greater than $5. Return no row if no operator has requested its replay. Also request the replay of the next
-- letter of the key, if that letter was parked only because the key was blocked. This runs in the transaction
-- of the handler, before it. $5: the last replayed letter of the key, or 0. Without $5 each search would read
-- the index entries of all letters that were replayed since the oldest snapshot of the server.
WITH letter AS MATERIALIZED (
    SELECT id FROM dead_letters
    WHERE consumer_group = $1 AND status IN ('PARKED', 'REPLAY_REQUESTED') AND id = $4::bigint
    UNION ALL
    (SELECT id FROM dead_letters
     WHERE $4::bigint IS NULL AND consumer_group = $1 AND topic = $2 AND key_hash = sha256($3::bytea) AND holds_key
       AND status IN ('PARKED', 'REPLAY_REQUESTED') AND id > $5::bigint
     ORDER BY id LIMIT 1)
), claimed AS (
    UPDATE dead_letters SET status = 'REPLAYED', resolved_at = clock_timestamp()
    WHERE id = (SELECT letter.id FROM letter) AND status = 'REPLAY_REQUESTED'
    RETURNING *
), recorded AS (
    INSERT INTO consumed_events (consumer, event_id)
    SELECT $1, claimed.event_id FROM claimed WHERE claimed.event_id IS NOT NULL
    ON CONFLICT DO NOTHING
), requested AS (
    UPDATE dead_letters AS next SET status = 'REPLAY_REQUESTED', resolved_by = claimed.resolved_by,
           resolved_reason = claimed.resolved_reason
    FROM claimed
    WHERE next.id = (
        SELECT behind.id FROM dead_letters AS behind
        WHERE claimed.holds_key AND behind.consumer_group = $1 AND behind.topic = claimed.topic
          AND behind.key_hash = claimed.key_hash AND behind.holds_key
          AND behind.status IN ('PARKED', 'REPLAY_REQUESTED') AND behind.id > claimed.id
        ORDER BY behind.id LIMIT 1
      ) AND next.reason = 'BLOCKED' AND next.status = 'PARKED'
)
SELECT id, topic, partition, message_offset, message_key, headers::text AS headers, value, event_id FROM claimed

-- name: record_replayed
-- Record that group $1 has processed the event $2, whose id was unknown when its message was parked.
INSERT INTO consumed_events (consumer, event_id) VALUES ($1, $2) ON CONFLICT DO NOTHING

-- name: park_again
-- Set the letter $1 back to PARKED after its replay failed with reason $2, error code $3 and error $4; add
-- the $5 failed attempts of the replay to its attempts.
UPDATE dead_letters SET status = 'PARKED', reason = $2::text::dead_letter_reason, error_code = $3, error = $4,
       attempts = attempts + $5::int, resolved_by = NULL, resolved_reason = NULL
WHERE id = $1::bigint AND status = 'REPLAY_REQUESTED'
RETURNING id

-- name: allow_idle
-- Let the current transaction be idle for $1 ms.
SELECT set_config('idle_in_transaction_session_timeout', $1, true)
