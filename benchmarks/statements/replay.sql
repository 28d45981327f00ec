-- name: park_letters
-- Park $3 messages of group $1 and topic $2 in turns over $4 keys and $5 partitions, as consumers do: the first message of
-- each key failed, the others wait behind it. $6 is an event with the places EVENT_ID and KEY.
WITH message AS MATERIALIZED (
    SELECT gen_random_uuid() AS event_id, number, 'letter-' || number % $4::int AS key, number < $4::int AS is_first,
           number % $4::int % $5::int AS partition
    FROM generate_series(0, $3::int - 1) AS number
), recorded AS (
    INSERT INTO consumed_events (consumer, event_id) SELECT $1, message.event_id FROM message
)
INSERT INTO dead_letters (consumer_group, topic, partition, message_offset, message_key, event_id, event_type, headers,
                          value, reason, error_code, error, attempts, holds_key, aggregate_type, aggregate_id)
SELECT $1, $2, message.partition, message.number, convert_to(message.key, 'UTF8'), message.event_id, event.type,
       jsonb_build_array(jsonb_build_array('ce_type', event.type)),
       convert_to(replace(replace($6::text, 'EVENT_ID', message.event_id::text), 'KEY', message.key), 'UTF8'),
       CASE WHEN message.is_first THEN 'HANDLER_FAILED' ELSE 'BLOCKED' END::dead_letter_reason,
       CASE WHEN message.is_first THEN 'RuntimeError' ELSE 'KEY_BLOCKED' END, 'error',
       CASE WHEN message.is_first THEN 4 ELSE 0 END, true, 'GENESIS_SESSION', message.key
FROM message CROSS JOIN (SELECT $6::text::jsonb ->> 'event_type' AS type) AS event
ORDER BY message.number

-- name: vacuum_letters
-- Update the statistics of the letters, as autovacuum does after a while.
VACUUM ANALYZE dead_letters

-- name: empty_letters
-- Delete the letters of the previous shape.
TRUNCATE dead_letters, consumed_events, bench_effects

-- name: now
-- The time of PostgreSQL's clock.
SELECT clock_timestamp() AS at

-- name: unresolved
-- Count the letters that are not replayed yet.
SELECT count(*) AS letters FROM dead_letters WHERE status IN ('PARKED', 'REPLAY_REQUESTED')

-- name: replayed
-- The time of the last replay, and the numbers of letters without an effect and of effects before that of an earlier letter of
-- the key.
SELECT max(placed.resolved_at) AS last_at, count(*) FILTER (WHERE placed.handled_at IS NULL) AS missing,
       count(*) FILTER (WHERE placed.handled_at < placed.previous_at) AS reordered
FROM (
    SELECT letter.resolved_at, effect.handled_at,
           lag(effect.handled_at) OVER (PARTITION BY letter.key_hash ORDER BY letter.id) AS previous_at
    FROM dead_letters AS letter LEFT JOIN bench_effects AS effect USING (event_id)
) AS placed

-- name: live_effects
-- Id and time of each effect that is not of a letter.
SELECT event_id, handled_at FROM bench_effects WHERE key NOT LIKE 'letter-%'
