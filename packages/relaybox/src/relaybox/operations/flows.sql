-- name: all_flows
-- Flows: tasks whose type ends in "@" and a version. Without input and results, which may contain personal data.
SELECT t.id, t.task_type, t.status::text AS status, t.attempts, t.not_before, t.created_at, t.updated_at,
       t.error_data ->> 'error_code' AS error_code, t.error_data ->> 'message' AS error
FROM async_tasks AS t
WHERE t.task_type ~ '@[1-9][0-9]{0,8}$'

-- name: all_pauses
-- Pauses without resume handles and payloads, which may contain personal data. A waiting pause whose time is over is EXPIRED.
-- task_id is the flow of Relaybox's own engine; a pause of another engine has none.
SELECT h.correlation_id, h.expires_at, h.cancelled, h.registered, h.resume_payload IS NOT NULL AS has_payload, h.generation,
       CASE WHEN NOT h.resume_handle ? 'engine' THEN h.resume_handle ->> 'task_id' END AS task_id, h.created_at, h.updated_at,
       CASE WHEN h.status IN ('PENDING_PAUSE', 'PAUSED') AND h.expires_at <= clock_timestamp() THEN 'EXPIRED'
            ELSE h.status::text END AS status
FROM flow_resume_handles AS h

-- name: list_flows
-- The first $4 flows by age whose name, or name and version, is in $1 (null: all), whose status is in $2,
-- and, if $3 is true, that wait. The pause for which a flow waits is found by its time: it expires at the
-- time until which the task of the flow is suspended (not_before).
WITH chosen AS MATERIALIZED (
    SELECT f.* FROM (
        -- include: all_flows
    ) AS f
    WHERE ($1::text[] IS NULL OR f.task_type = ANY ($1::text[]) OR regexp_replace(f.task_type, '@[0-9]+$', '') = ANY ($1::text[]))
      AND f.status = ANY ($2::text[])
      AND (NOT $3::boolean OR f.status = 'PENDING' AND f.not_before > clock_timestamp())
    ORDER BY f.created_at, f.id LIMIT $4::int
)
SELECT chosen.*, h.correlation_id,
       (SELECT count(*) FROM flow_steps AS step WHERE step.task_id = chosen.id) AS steps
FROM chosen
LEFT JOIN flow_resume_handles AS h
    ON CASE WHEN h.status IN ('PENDING_PAUSE', 'PAUSED') THEN h.expires_at END = chosen.not_before
    AND chosen.status = 'PENDING' AND h.resume_handle ->> 'task_id' = chosen.id::text
ORDER BY chosen.created_at, chosen.id

-- name: other_pauses
-- The first $1 waiting pauses by their expiry that belong to no flow of Relaybox's own engine: those of other engines, and
-- resumes that are kept for a pause which was not requested yet.
SELECT p.*, NULL::text AS event_type, NULL::text AS key FROM (
    -- include: all_pauses
) AS p
WHERE p.status IN ('PENDING_PAUSE', 'PAUSED') AND p.task_id IS NULL
ORDER BY p.expires_at, p.correlation_id LIMIT $1::int

-- name: last_pause
-- The last pause of the correlation id $1. If the flow $2 waits for an event in this pause, also the event's
-- type and key.
SELECT p.*, w.event_type, w.key FROM (
    -- include: all_pauses
) AS p
LEFT JOIN flow_waits AS w ON w.task_id = $2::uuid AND w.correlation_id = p.correlation_id
WHERE p.correlation_id = $1
ORDER BY p.generation DESC LIMIT 1

-- name: show_flow
-- The flow $1, with input and result if $2 is true, and the actions of operators on it.
SELECT f.*, CASE WHEN $2::boolean THEN t.input_data::text END AS input_data,
       CASE WHEN $2::boolean THEN t.result_data::text END AS result_data,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('at', a.at, 'by', a.actor, 'act', a.act, 'reason', a.reason)
                                  ORDER BY a.id), '[]')
        FROM operator_acts AS a WHERE a.target @> jsonb_build_object('tasks', jsonb_build_array(f.id))) AS acts
FROM (
    -- include: all_flows
) AS f JOIN async_tasks AS t ON t.id = f.id
WHERE f.id = $1::uuid

-- name: steps_of_flow
-- The steps of the flow $1 that are done, in their order, with results if $2 is true.
SELECT position, name, ended_at, CASE WHEN $2::boolean THEN result::text END AS result
FROM flow_steps WHERE task_id = $1::uuid ORDER BY position

-- name: pauses_of_flow
-- The first $2 pauses of the flow $1 by age.
SELECT p.*, w.event_type, w.key FROM (
    -- include: all_pauses
) AS p
LEFT JOIN flow_waits AS w ON w.task_id = $1::uuid AND w.correlation_id = p.correlation_id
WHERE split_part(p.correlation_id, '/', 1) = $1::uuid::text
ORDER BY p.created_at, p.correlation_id LIMIT $2::int

-- name: record_act
-- Record the action $2 of operator $1 with reason $3 on the objects $4.
INSERT INTO operator_acts (actor, act, reason, target) VALUES ($1, $2, $3::text, $4::text::jsonb)
