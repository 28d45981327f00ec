-- name: relays
-- All relays with the state that each wrote at its last heartbeat.
SELECT m.name, m.place, m.delivery, m.breaker, m.started_at, m.published_total, coalesce(m.troubles, '{}') AS troubles,
       extract(epoch FROM m.lease_until - clock_timestamp())::float8 AS lease_s,
       (SELECT count(*) FROM relay_lanes AS l WHERE l.owner = m.name) AS lanes
FROM relay_members AS m ORDER BY m.started_at, m.name

-- name: lanes
-- Every lane with its owner, the number of its rows among the first $1 PENDING rows of the outbox, and the age of the
-- oldest of these. width_bucket finds a row's lane by binary search: a join of a backlog with 1,000 lanes takes minutes.
WITH bounds AS (
    SELECT lane, row_number() OVER (ORDER BY hash_min) AS place FROM relay_lanes
), waiting AS (
    SELECT width_bucket(o.key_hash, (SELECT array_agg(hash_min ORDER BY hash_min) FROM relay_lanes)) AS place,
           count(*) AS pending, min(o.created_at) AS oldest
    FROM (SELECT key_hash, created_at FROM event_outbox WHERE status = 'PENDING' ORDER BY seq LIMIT $1::int) AS o
    GROUP BY 1
)
SELECT l.lane, l.hash_min, l.hash_max, l.owner, l.epoch, l.fault,
       extract(epoch FROM l.lease_until - clock_timestamp())::float8 AS lease_s,
       coalesce(waiting.pending, 0) AS pending,
       extract(epoch FROM clock_timestamp() - waiting.oldest)::float8 AS oldest_s
FROM relay_lanes AS l JOIN bounds ON bounds.lane = l.lane LEFT JOIN waiting ON waiting.place = bounds.place
ORDER BY l.lane

-- name: backlog
-- Numbers of rows by state, each counted up to $1; the age of the PENDING row with the lowest seq; the time of this query.
SELECT clock_timestamp() AS at, (SELECT lanes_wanted FROM relay_origin) AS lanes_wanted,
       (SELECT count(*) FROM (SELECT FROM event_outbox WHERE status = 'PENDING' LIMIT $1::int) AS rows) AS pending,
       (SELECT count(*) FROM (SELECT FROM event_outbox
                              WHERE status = 'PENDING' AND next_attempt_at IS NOT NULL LIMIT $1::int) AS rows) AS retrying,
       (SELECT count(*) FROM (SELECT FROM event_outbox
                              WHERE status = 'FAILED' AND skipped_at IS NULL LIMIT $1::int) AS rows) AS failed,
       (SELECT count(*) FROM (SELECT FROM event_outbox
                              WHERE status = 'FAILED' AND skipped_at IS NOT NULL LIMIT $1::int) AS rows) AS skipped,
       (SELECT extract(epoch FROM clock_timestamp() - created_at)::float8
        FROM event_outbox WHERE status = 'PENDING' ORDER BY seq LIMIT 1) AS oldest_pending_s

-- name: lanes_wanted
-- The requested number of lanes.
SELECT lanes_wanted FROM relay_origin

-- name: request_lanes
-- Request $2 lanes instead of $1. Record the action with operator $3 and reason $4, and notify the relays on channel $5.
-- Returns no row if another operator has changed the number.
WITH changed AS (
    UPDATE relay_origin SET lanes_wanted = $2::int WHERE lanes_wanted = $1::int RETURNING lanes_wanted
), recorded AS (
    INSERT INTO operator_acts (actor, act, reason, target)
    SELECT $3, 'lanes', $4::text, jsonb_build_object('lanes_before', $1::int, 'lanes_wanted', lanes_wanted) FROM changed
    RETURNING id
)
SELECT pg_notify(left($5 || coalesce('_' || nullif(current_schema(), 'public'), ''), 63), '') FROM recorded

-- name: lane_fault
-- The fault of lane $1.
SELECT fault FROM relay_lanes WHERE lane = $1

-- name: accept_marker
-- Remove fault $2 of lane $1, so that relays continue after marker $3 (id of a batch in Kafka). Record the action with
-- operator $4 and reason $5, and notify the relays on channels $6. Returns no row if the fault has changed.
WITH changed AS (
    UPDATE relay_lanes SET accepted_marker = $3::uuid, fault = NULL WHERE lane = $1 AND fault = $2::text
    RETURNING lane
), recorded AS (
    INSERT INTO operator_acts (actor, act, reason, target)
    SELECT $4, 'accept', $5::text, jsonb_build_object('lane', lane, 'marker', $3::uuid, 'fault', $2::text) FROM changed
    RETURNING id
)
SELECT pg_notify(left(channel || coalesce('_' || nullif(current_schema(), 'public'), ''), 63), '') FROM recorded, unnest($6::text[]) AS channel
