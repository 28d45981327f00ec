-- name: all_rows
-- Rows of the outbox with their state, and without payload, which may contain personal data.
SELECT o.id, o.seq, o.topic, o.key, o.key_hash, o.status, o.attempts, o.created_at, o.next_attempt_at, o.sent_at,
       o.skipped_at,
       CASE WHEN o.skipped_at IS NOT NULL THEN 'skipped'
            WHEN o.status = 'PENDING' AND o.next_attempt_at IS NOT NULL THEN 'retrying'
            ELSE lower(o.status::text) END AS state,
       coalesce(o.skipped_at, o.sent_at, o.created_at) AS since,
       o.payload ->> 'event_id' AS event_id,
       o.payload ->> 'event_type' AS event_type,
       o.error_data ->> 'reason' AS fault,
       o.error_data ->> 'class' AS error_class,
       o.error_data ->> 'message' AS error_message,
       (o.error_data ->> 'at')::timestamptz AS failed_at
FROM event_outbox AS o

-- name: selected
-- Rows that meet all conditions: id in $1, seq in $2, key in $3, error class in $4, fault $5, and sent, skipped or (of other
-- states) written over $6 seconds ago. Every row meets a condition that is null.
SELECT r.* FROM (
    -- include: all_rows
) AS r
WHERE ($1::uuid[] IS NULL OR r.id = ANY ($1::uuid[]))
  AND ($2::bigint[] IS NULL OR r.seq = ANY ($2::bigint[]))
  AND ($3::text[] IS NULL OR r.key = ANY ($3::text[]))
  AND ($4::text[] IS NULL OR r.error_class = ANY ($4::text[]))
  AND ($5::text IS NULL OR r.fault = $5::text)
  AND ($6::float8 IS NULL OR r.since < now() - make_interval(secs => $6::float8))

-- name: list_rows
-- The first $8 selected rows by seq in one of the states $7. One condition per state, because each state except SENT has its
-- own small index.
SELECT s.* FROM (
    -- include: selected
) AS s
WHERE ('pending' = ANY ($7::text[]) AND s.status = 'PENDING' AND s.next_attempt_at IS NULL)
   OR ('retrying' = ANY ($7::text[]) AND s.status = 'PENDING' AND s.next_attempt_at IS NOT NULL)
   OR ('failed' = ANY ($7::text[]) AND s.status = 'FAILED' AND s.skipped_at IS NULL)
   OR ('skipped' = ANY ($7::text[]) AND s.status = 'FAILED' AND s.skipped_at IS NOT NULL)
   OR ('sent' = ANY ($7::text[]) AND s.status = 'SENT')
ORDER BY s.seq LIMIT $8::int

-- name: show_row
-- The row with id $1 or seq $2, the fields $4 of its envelope, its payload if $3 is true, and the actions of operators on
-- the row. Other fields are left out: rows written without the library may have personal data there.
SELECT r.*,
       (SELECT coalesce(jsonb_object_agg(field.key, field.value), '{}')
        FROM jsonb_each(CASE jsonb_typeof(o.payload) WHEN 'object' THEN o.payload ELSE '{}' END) AS field
        WHERE field.key = ANY ($4::text[])) AS envelope,
       CASE WHEN $3::boolean THEN o.payload END AS payload,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('at', a.at, 'by', a.actor, 'act', a.act, 'reason', a.reason)
                                  ORDER BY a.id), '[]')
        FROM operator_acts AS a
        WHERE a.target @> jsonb_build_object('rows', jsonb_build_array(jsonb_build_object('id', r.id)))) AS acts
FROM (
    -- include: all_rows
) AS r JOIN event_outbox AS o ON o.id = r.id AND o.seq = r.seq
WHERE r.id = $1::uuid OR r.seq = $2::bigint

-- name: blocked_keys
-- The first $7 selected rows that block their keys (FAILED or waiting for the next attempt), by the time of the failure. A
-- row without a key is listed too, although it blocks no other row. behind: number of rows that the row blocks.
WITH heads AS (
    SELECT DISTINCT ON (coalesce(s.key, s.id::text)) s.* FROM (
        -- include: selected
    ) AS s
    WHERE (s.status = 'FAILED' AND s.skipped_at IS NULL) OR (s.status = 'PENDING' AND s.next_attempt_at IS NOT NULL)
    ORDER BY coalesce(s.key, s.id::text), s.seq
), shown AS (
    SELECT *, count(*) OVER () AS total FROM heads ORDER BY coalesce(failed_at, created_at), seq LIMIT $7::int
), waiting AS (
    SELECT shown.key, count(*) AS rows FROM shown
    JOIN event_outbox AS o ON o.key = shown.key AND o.seq > shown.seq
    WHERE o.status = 'PENDING' OR (o.status = 'FAILED' AND o.skipped_at IS NULL)
    GROUP BY shown.key
)
SELECT shown.*, coalesce(waiting.rows, 0) AS behind, l.lane
FROM shown
LEFT JOIN waiting ON waiting.key = shown.key
LEFT JOIN relay_lanes AS l ON shown.key_hash BETWEEN l.hash_min AND l.hash_max
ORDER BY coalesce(shown.failed_at, shown.created_at), shown.seq

-- name: blocked_lanes
-- Lanes with a fault, from which no relay publishes, with the number of their PENDING rows and the time of the oldest.
SELECT l.lane, l.fault, count(o.seq) AS pending, min(o.created_at) AS oldest
FROM relay_lanes AS l
LEFT JOIN event_outbox AS o ON o.status = 'PENDING' AND o.key_hash BETWEEN l.hash_min AND l.hash_max
WHERE l.fault IS NOT NULL
GROUP BY l.lane, l.fault ORDER BY l.lane

-- name: selected_failed
-- The selected FAILED rows that are not skipped. "behind_another": whether an earlier FAILED row of the same key is not
-- selected.
WITH chosen AS (
    SELECT s.* FROM (
        -- include: selected
    ) AS s
    WHERE s.status = 'FAILED' AND s.skipped_at IS NULL
)
SELECT chosen.*, EXISTS (
    SELECT FROM event_outbox AS head
    WHERE head.key = chosen.key AND head.seq < chosen.seq AND head.status = 'FAILED' AND head.skipped_at IS NULL
      AND head.seq NOT IN (SELECT c.seq FROM chosen AS c)
) AS behind_another
FROM chosen

-- name: preview_retry
-- Rows that retry would change: the first $7 selected FAILED rows by seq, the number of all of them, and how many of them
-- are behind another.
SELECT *, count(*) OVER () AS total, count(*) FILTER (WHERE behind_another) OVER () AS total_behind_another
FROM (
    -- include: selected_failed
) AS f
ORDER BY seq LIMIT $7::int

-- name: preview_skip
-- Rows that skip would change: the first $7 selected FAILED rows by seq that are not behind another, and the number of all
-- of them. After them come rows behind another, which skip leaves unchanged, and in each row is their number.
SELECT *, count(*) FILTER (WHERE NOT behind_another) OVER () AS total,
       count(*) FILTER (WHERE behind_another) OVER () AS total_behind_another
FROM (
    -- include: selected_failed
) AS f
ORDER BY behind_another, seq LIMIT $7::int

-- name: preview_done
-- Rows that purge would remove: the first $7 selected rows by seq that are SENT or skipped, and the number of all of them.
WITH chosen AS MATERIALIZED (
    SELECT s.seq FROM (
        -- include: selected
    ) AS s
    WHERE s.status = 'SENT' OR s.skipped_at IS NOT NULL
)
SELECT r.*, false AS behind_another, (SELECT count(*) FROM chosen) AS total, 0 AS total_behind_another
FROM (
    -- include: all_rows
) AS r
WHERE r.seq = ANY (ARRAY(SELECT seq FROM chosen ORDER BY seq LIMIT $7::int))
ORDER BY r.seq

-- name: retry
-- Set the first $8 selected FAILED rows after seq $7 to PENDING, and their attempts to 0. Record the action
-- with operator $9, reason $10 and selection $11, and notify the relays on channel $12. Relays publish the
-- rows of each key by seq.
WITH chosen AS MATERIALIZED (
    SELECT s.* FROM (
        -- include: selected
    ) AS s
    WHERE s.status = 'FAILED' AND s.skipped_at IS NULL AND s.seq > $7::bigint
    ORDER BY s.seq LIMIT $8::int
    FOR UPDATE OF s
), changed AS (
    UPDATE event_outbox AS o SET status = 'PENDING', attempts = 0, next_attempt_at = NULL, error_data = NULL
    FROM chosen WHERE o.id = chosen.id AND o.seq = chosen.seq
    RETURNING o.seq
), recorded AS (
    INSERT INTO operator_acts (actor, act, reason, target)
    SELECT $9, 'retry', $10::text, jsonb_build_object('selection', $11::text::jsonb, 'count', count(*), 'rows', jsonb_agg(
        jsonb_build_object('id', chosen.id, 'seq', chosen.seq, 'key', chosen.key, 'topic', chosen.topic,
                           'event_id', chosen.event_id, 'event_type', chosen.event_type, 'fault', chosen.fault,
                           'error_class', chosen.error_class, 'attempts', chosen.attempts) ORDER BY chosen.seq))
    FROM changed JOIN chosen ON chosen.seq = changed.seq
    HAVING count(*) > 0
    RETURNING id
)
SELECT (SELECT max(seq) FROM chosen) AS last_seq, (SELECT count(*) FROM changed) AS rows,
       (SELECT pg_notify(left($12 || coalesce('_' || nullif(current_schema(), 'public'), ''), 63), '') FROM recorded) AS woken

-- name: skip
-- Mark the first $8 selected FAILED rows after seq $7 as never to be published. Record and notify as "retry" does. A row
-- behind an earlier FAILED row of its key that is not selected is left out: rows of a key are skipped in order.
WITH chosen AS MATERIALIZED (
    SELECT s.* FROM (
        -- include: selected
    ) AS s
    WHERE s.status = 'FAILED' AND s.skipped_at IS NULL AND s.seq > $7::bigint
    ORDER BY s.seq LIMIT $8::int
    FOR UPDATE OF s
), heads AS (
    SELECT chosen.* FROM chosen
    WHERE NOT EXISTS (
        SELECT FROM event_outbox AS head
        WHERE head.key = chosen.key AND head.seq < chosen.seq AND head.status = 'FAILED' AND head.skipped_at IS NULL
          AND head.seq NOT IN (SELECT c.seq FROM chosen AS c)
    )
), changed AS (
    UPDATE event_outbox AS o SET skipped_at = clock_timestamp()
    FROM heads WHERE o.id = heads.id AND o.seq = heads.seq
    RETURNING o.seq
), recorded AS (
    INSERT INTO operator_acts (actor, act, reason, target)
    SELECT $9, 'skip', $10::text, jsonb_build_object('selection', $11::text::jsonb, 'count', count(*), 'rows', jsonb_agg(
        jsonb_build_object('id', heads.id, 'seq', heads.seq, 'key', heads.key, 'topic', heads.topic,
                           'event_id', heads.event_id, 'event_type', heads.event_type, 'fault', heads.fault,
                           'error_class', heads.error_class, 'attempts', heads.attempts) ORDER BY heads.seq))
    FROM changed JOIN heads ON heads.seq = changed.seq
    HAVING count(*) > 0
    RETURNING id
)
SELECT (SELECT max(seq) FROM chosen) AS last_seq, (SELECT count(*) FROM changed) AS rows,
       (SELECT pg_notify(left($12 || coalesce('_' || nullif(current_schema(), 'public'), ''), 63), '') FROM recorded) AS woken

-- name: purge
-- Remove at most $8 selected rows after seq $7 that are SENT or skipped. Record the action with operator $9,
-- reason $10 and selection $11. Both states are final, so the rows need no lock. Of SENT rows, only the
-- number is recorded. Each skipped row is listed in the record, because after its removal nothing else shows
-- that its event was not published.
WITH chosen AS MATERIALIZED (
    SELECT s.id, s.seq FROM (
        -- include: selected
    ) AS s
    WHERE (s.status = 'SENT' OR s.skipped_at IS NOT NULL) AND s.seq > $7::bigint
    ORDER BY s.seq LIMIT $8::int
), changed AS (
    DELETE FROM event_outbox AS o USING chosen
    WHERE o.id = chosen.id AND o.seq = chosen.seq
    RETURNING o.id, o.seq, o.key, o.topic, o.skipped_at, o.payload ->> 'event_id' AS event_id,
              o.payload ->> 'event_type' AS event_type
), recorded AS (
    INSERT INTO operator_acts (actor, act, reason, target)
    SELECT $9, 'purge', $10::text, jsonb_build_object(
        'selection', $11::text::jsonb, 'count', count(*), 'seq_min', min(seq), 'seq_max', max(seq),
        'rows', coalesce(jsonb_agg(
            jsonb_build_object('id', id, 'seq', seq, 'key', key, 'topic', topic, 'event_id', event_id,
                               'event_type', event_type) ORDER BY seq)
            FILTER (WHERE skipped_at IS NOT NULL), '[]'))
    FROM changed
    HAVING count(*) > 0
    RETURNING id
)
SELECT (SELECT max(seq) FROM chosen) AS last_seq, (SELECT count(*) FROM changed) AS rows

-- name: list_actions
-- The last $1 actions of operators, newest first.
SELECT id, at, actor, act, reason, target FROM operator_acts ORDER BY id DESC LIMIT $1::int
