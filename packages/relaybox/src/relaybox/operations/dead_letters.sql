-- name: all_letters
-- Dead letters without headers and value, which may contain personal data.
SELECT l.id, l.consumer_group, l.topic, l.partition, l.message_offset, l.message_key, l.key_hash, l.event_id, l.event_type,
       l.reason, l.error_code, l.error, l.attempts, l.holds_key, l.status, l.parked_at, l.resolved_at, l.resolved_by,
       l.resolved_reason
FROM dead_letters AS l

-- name: selected_letters
-- Letters that meet all conditions: id in $1, key in $2, event type in $3, consumer group in $4, reason in $5 and status in
-- $6. Every letter meets a condition that is null.
SELECT r.* FROM (
    -- include: all_letters
) AS r
WHERE ($1::bigint[] IS NULL OR r.id = ANY ($1::bigint[]))
  AND ($2::bytea[] IS NULL OR r.message_key = ANY ($2::bytea[]))
  AND ($3::text[] IS NULL OR r.event_type = ANY ($3::text[]))
  AND ($4::text[] IS NULL OR r.consumer_group = ANY ($4::text[]))
  AND ($5::dead_letter_reason[] IS NULL OR r.reason = ANY ($5::dead_letter_reason[]))
  AND ($6::dead_letter_status[] IS NULL OR r.status = ANY ($6::dead_letter_status[]))

-- name: list_letters
-- The first $7 selected letters by id; resolved letters only if $6 or $1 is given.
SELECT s.* FROM (
    -- include: selected_letters
) AS s
WHERE $1::bigint[] IS NOT NULL OR $6::dead_letter_status[] IS NOT NULL OR s.status IN ('PARKED', 'REPLAY_REQUESTED')
ORDER BY s.id LIMIT $7::int

-- name: show_letter
-- The letter with id $1, its headers, its value if $2 is true, the number of unresolved letters of its key behind it, and
-- the actions of operators on it.
SELECT r.*, l.headers, CASE WHEN $2::boolean THEN l.value END AS value,
       (SELECT count(*) FROM dead_letters AS later
        WHERE r.holds_key AND later.consumer_group = r.consumer_group AND later.topic = r.topic
          AND later.key_hash = r.key_hash AND later.holds_key AND later.status IN ('PARKED', 'REPLAY_REQUESTED')
          AND later.id > r.id) AS behind,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('at', a.at, 'by', a.actor, 'act', a.act, 'reason', a.reason)
                                  ORDER BY a.id), '[]')
        FROM operator_acts AS a
        WHERE a.target @> jsonb_build_object('letters', jsonb_build_array(jsonb_build_object('id', r.id)))) AS acts
FROM (
    -- include: all_letters
) AS r JOIN dead_letters AS l ON l.id = r.id
WHERE r.id = $1::bigint

-- name: behind_another
-- Part of other queries: the letters in "chosen" that would not be replayed yet, because an earlier letter of
-- the same key is PARKED, is not in "chosen", and has another reason than BLOCKED. (The replay of a BLOCKED
-- letter is requested automatically when the letter before it was replayed.) "key" is materialized, so that
-- the search runs once for each key and not for each letter.
WITH key AS MATERIALIZED (
    SELECT keys.*, (
        SELECT earlier.id FROM dead_letters AS earlier
        WHERE earlier.consumer_group = keys.consumer_group AND earlier.topic = keys.topic
          AND earlier.key_hash = keys.key_hash AND earlier.holds_key AND earlier.status = 'PARKED'
          AND earlier.id < keys.last_id AND earlier.reason <> 'BLOCKED'
          AND earlier.id NOT IN (SELECT c.id FROM chosen AS c)
        ORDER BY earlier.id LIMIT 1
    ) AS stops_at
    FROM (
        SELECT consumer_group, topic, key_hash, max(id) AS last_id FROM chosen WHERE holds_key
        GROUP BY consumer_group, topic, key_hash
    ) AS keys
)
SELECT chosen.id FROM chosen JOIN key USING (consumer_group, topic, key_hash)
WHERE chosen.holds_key AND key.stops_at < chosen.id

-- name: preview_letters
-- Return the first $8 by id of the selected letters with a status in $7. "total": the number of all these
-- letters. "total_behind_another": the number of those that the query behind_another returns.
WITH chosen AS MATERIALIZED (
    SELECT s.* FROM (
        -- include: selected_letters
    ) AS s
    WHERE s.status = ANY ($7::dead_letter_status[]) AND s.status IN ('PARKED', 'REPLAY_REQUESTED')
), behind AS (
    -- include: behind_another
)
SELECT chosen.*, count(*) OVER () AS total, (SELECT count(*) FROM behind) AS total_behind_another
FROM chosen ORDER BY chosen.id LIMIT $8::int

-- name: replay_letters
-- Request the replay of the first $8 selected PARKED letters after id $7. Record operator $9, reason $10 and selection $11.
-- Consumers find requested letters by themselves. A letter that another operator requests meanwhile is left out.
WITH chosen AS MATERIALIZED (
    SELECT s.* FROM (
        -- include: selected_letters
    ) AS s
    WHERE s.status = 'PARKED' AND s.id > $7::bigint
    ORDER BY s.id LIMIT $8::int
    FOR UPDATE OF s
), behind AS (
    -- include: behind_another
), changed AS (
    -- The ids are an array, because with a join the planner would read the whole table in every step.
    UPDATE dead_letters AS l SET status = 'REPLAY_REQUESTED', resolved_by = $9, resolved_reason = $10::text
    WHERE l.id = ANY (ARRAY(SELECT chosen.id FROM chosen))
    RETURNING l.id
), recorded AS (
    INSERT INTO operator_acts (actor, act, reason, target)
    SELECT $9, 'replay', $10::text,
           jsonb_build_object('selection', $11::text::jsonb, 'count', count(*), 'letters', jsonb_agg(
               jsonb_build_object('id', chosen.id, 'group', chosen.consumer_group, 'topic', chosen.topic,
                                  'partition', chosen.partition, 'offset', chosen.message_offset,
                                  'event_id', chosen.event_id, 'event_type', chosen.event_type, 'letter_reason',
                                  chosen.reason, 'error_code', chosen.error_code) ORDER BY chosen.id))
    FROM changed JOIN chosen ON chosen.id = changed.id
    HAVING count(*) > 0
)
SELECT (SELECT max(id) FROM chosen) AS last_id, (SELECT count(*) FROM changed) AS letters,
       (SELECT count(*) FROM behind) AS behind_another

-- name: discard_letters
-- Discard the last $8 selected unresolved letters before id $7, and record the action as "replay_letters"
-- does. The later letters of a key are discarded before the earlier ones: while an earlier letter is PARKED,
-- consumers replay no later letter of the key. Rows are locked in the order of their ids, as consumers lock
-- them. This is the first statement of the transaction; "request_next" is the second.
WITH chosen AS MATERIALIZED (
    SELECT s.id FROM (
        -- include: selected_letters
    ) AS s
    WHERE s.status IN ('PARKED', 'REPLAY_REQUESTED') AND s.id < $7::bigint
    ORDER BY s.id DESC LIMIT $8::int
), locked AS MATERIALIZED (
    SELECT l.* FROM dead_letters AS l
    WHERE l.id = ANY (ARRAY(SELECT chosen.id FROM chosen)) AND l.status IN ('PARKED', 'REPLAY_REQUESTED')
    ORDER BY l.id
    FOR UPDATE
), changed AS (
    UPDATE dead_letters AS l SET status = 'DISCARDED', resolved_at = clock_timestamp(), resolved_by = $9,
           resolved_reason = $10::text
    WHERE l.id = ANY (ARRAY(SELECT locked.id FROM locked))
    RETURNING l.id
), recorded AS (
    INSERT INTO operator_acts (actor, act, reason, target)
    SELECT $9, 'discard', $10::text,
           jsonb_build_object('selection', $11::text::jsonb, 'count', count(*), 'letters', jsonb_agg(
               jsonb_build_object('id', locked.id, 'group', locked.consumer_group, 'topic', locked.topic,
                                  'partition', locked.partition, 'offset', locked.message_offset,
                                  'event_id', locked.event_id, 'event_type', locked.event_type, 'letter_reason',
                                  locked.reason, 'error_code', locked.error_code) ORDER BY locked.id))
    FROM changed JOIN locked ON locked.id = changed.id
    HAVING count(*) > 0
)
SELECT (SELECT min(id) FROM chosen) AS last_id, array(SELECT id FROM changed) AS ids

-- name: request_next
-- For each key of the discarded letters $1, request the replay of its first unresolved letter, if that letter
-- was parked only because the key was blocked; record operator $2 and reason $3 in the letter. This is a
-- separate statement, because its snapshot must have the letters that consumers parked while
-- "discard_letters" waited for locks of consumers.
WITH keys AS (
    SELECT DISTINCT consumer_group, topic, key_hash FROM dead_letters WHERE id = ANY ($1::bigint[]) AND holds_key
)
UPDATE dead_letters AS next SET status = 'REPLAY_REQUESTED', resolved_by = $2, resolved_reason = $3::text
FROM keys
WHERE next.id = (
    SELECT first.id FROM dead_letters AS first
    WHERE first.consumer_group = keys.consumer_group AND first.topic = keys.topic AND first.key_hash = keys.key_hash
      AND first.holds_key AND first.status IN ('PARKED', 'REPLAY_REQUESTED')
    ORDER BY first.id LIMIT 1
  ) AND next.reason = 'BLOCKED' AND next.status = 'PARKED'
RETURNING next.id

-- name: parked_or_requested
-- For the message of group $1 at topic $2, partition $3 and offset $4: return the id of its dead letter
-- (null: none), and the name of the operator who requested to park it (null: no request).
SELECT (SELECT id FROM dead_letters
        WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND message_offset = $4) AS letter_id,
       (SELECT requested_by FROM park_requests
        WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND message_offset = $4) AS requested_by

-- name: request_parking
-- Request for operator $5 with reason $6 that a consumer of group $1 parks the message at topic $2, partition $3, offset $4.
-- No row if that was requested before.
INSERT INTO park_requests (consumer_group, topic, partition, message_offset, requested_by, reason)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING
RETURNING message_offset
