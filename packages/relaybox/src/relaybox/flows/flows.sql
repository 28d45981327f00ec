-- name: handle
-- Part of the statements that return a handle: its columns except the status.
    id, correlation_id, resume_handle::text AS resume_handle, resume_payload::text AS resume_payload, expires_at, registered,
    cancelled, version, chain_id

-- name: pause
-- Request a pause with the correlation id $1 and the resume handle $2 in the chain $4; the pause expires
-- after $3 s. A resume that is kept for the correlation id becomes the resume of this pause. No row: another
-- pause with the correlation id is waiting.
INSERT INTO flow_resume_handles AS handle (correlation_id, generation, resume_handle, expires_at, chain_id)
SELECT $1, coalesce(max(earlier.generation), 0) + 1, $2::text::jsonb, clock_timestamp() + make_interval(secs => $3), $4::uuid
FROM flow_resume_handles AS earlier WHERE earlier.correlation_id = $1
ON CONFLICT (correlation_id) WHERE status IN ('PENDING_PAUSE', 'PAUSED') DO UPDATE
    SET registered = true, resume_handle = excluded.resume_handle, expires_at = excluded.expires_at,
        chain_id = excluded.chain_id, version = handle.version + 1
    WHERE NOT handle.registered
RETURNING status::text AS status,
    -- include: handle

-- name: confirm
-- Confirm that the flow with the correlation id $1 is suspended: its handle becomes PAUSED, or RESUMED if a
-- resume is kept for the pause. No row: no requested pause with this id waits for its confirmation.
UPDATE flow_resume_handles
SET status = CASE WHEN resume_payload IS NULL THEN 'PAUSED' ELSE 'RESUMED' END::handle_status, version = version + 1
WHERE correlation_id = $1 AND status = 'PENDING_PAUSE' AND registered AND expires_at > clock_timestamp()
RETURNING status::text AS status,
    -- include: handle

-- name: resume
-- Resume the flow with the correlation id $1 and the payload $2. A PAUSED handle becomes RESUMED. If the
-- pause is not confirmed yet, its handle keeps the payload. If no pause was ever requested, a new handle
-- keeps the payload for $3 s. No row: the last pause has ended, or a resume is kept for it already.
WITH resumed AS (
    UPDATE flow_resume_handles
    SET status = CASE status WHEN 'PAUSED' THEN 'RESUMED' ELSE status END, resume_payload = $2::text::jsonb,
        version = version + 1
    WHERE correlation_id = $1 AND status IN ('PENDING_PAUSE', 'PAUSED') AND resume_payload IS NULL
        AND expires_at > clock_timestamp()
    RETURNING *
), kept AS (
    INSERT INTO flow_resume_handles (correlation_id, registered, resume_handle, resume_payload, expires_at)
    SELECT $1, false, '{}', $2::text::jsonb, clock_timestamp() + make_interval(secs => $3)
    WHERE NOT EXISTS (SELECT FROM flow_resume_handles AS earlier WHERE earlier.correlation_id = $1)
    ON CONFLICT DO NOTHING
    RETURNING *
)
SELECT status::text AS status,
    -- include: handle
FROM (SELECT * FROM resumed UNION ALL SELECT * FROM kept) AS handle

-- name: cancel
-- Cancel the waiting pause of the correlation id $1. No row: no pause with this id is waiting.
UPDATE flow_resume_handles
SET status = 'EXPIRED', cancelled = true, version = version + 1
WHERE correlation_id = $1 AND status IN ('PENDING_PAUSE', 'PAUSED') AND registered AND expires_at > clock_timestamp()
RETURNING status::text AS status,
    -- include: handle

-- name: expire
-- Expire at most $1 waiting handles whose time is over, oldest first; handles that another transaction has
-- locked are skipped. The CASE is the expression of the index. The time comes from a subquery, which is
-- evaluated once, because an index cannot be searched for the result of a volatile function.
UPDATE flow_resume_handles SET status = 'EXPIRED', version = version + 1
WHERE id = ANY(ARRAY(
    SELECT id FROM flow_resume_handles
    WHERE CASE WHEN status IN ('PENDING_PAUSE', 'PAUSED') THEN expires_at END < (SELECT clock_timestamp())
    ORDER BY CASE WHEN status IN ('PENDING_PAUSE', 'PAUSED') THEN expires_at END LIMIT $1 FOR UPDATE SKIP LOCKED))
RETURNING status::text AS status,
    -- include: handle

-- name: expire_one
-- Expire the waiting handle of the correlation id $1 if its time is over. No row: no such handle waits, or it
-- has time left.
UPDATE flow_resume_handles SET status = 'EXPIRED', version = version + 1
WHERE correlation_id = $1 AND status IN ('PENDING_PAUSE', 'PAUSED') AND expires_at <= clock_timestamp()
RETURNING status::text AS status,
    -- include: handle

-- name: fetch
-- Return the last handle of the correlation id $1. A waiting handle whose time is over is EXPIRED.
SELECT CASE WHEN status IN ('PENDING_PAUSE', 'PAUSED') AND expires_at <= clock_timestamp() THEN 'EXPIRED' ELSE status::text END AS status,
    -- include: handle
FROM flow_resume_handles WHERE correlation_id = $1 ORDER BY generation DESC LIMIT 1

-- name: lock_handle
-- Lock the last handle of the correlation id $1 against every transition.
SELECT id FROM flow_resume_handles WHERE correlation_id = $1 ORDER BY generation DESC LIMIT 1 FOR UPDATE

-- name: waiting_pauses
-- Return the correlation ids of the pauses for which the task $1 waits; there is at most one. The correlation
-- ids of a flow begin with the id of its task. If the task drives a run of an external engine, its input has
-- the correlation id. The status is compared as text: otherwise the planner may read all waiting handles by a
-- partial index.
SELECT correlation_id FROM flow_resume_handles
WHERE (split_part(correlation_id, '/', 1) = $1::uuid::text
       OR correlation_id = (SELECT input_data ->> 'correlation_id' FROM async_tasks
                            WHERE id = $1 AND task_type LIKE 'Relaybox.FlowEngine/%'))
    AND status::text IN ('PENDING_PAUSE', 'PAUSED') AND registered AND resume_handle ->> 'task_id' = $1::uuid::text

-- name: command_of_flow
-- Return the command for which the flow $1 was started. No row: the flow has no command, or the task $1 is
-- not a flow. In the second case the application ends the command of the task.
SELECT triggered_by_command_id AS command_id FROM async_tasks
WHERE id = $1 AND triggered_by_command_id IS NOT NULL AND task_type ~ '@[1-9][0-9]{0,8}$'

-- name: start
-- Create the task of a flow: type $1, input $2. A flow with id $3 that exists already is not created again.
INSERT INTO async_tasks (id, task_type, input_data) VALUES (coalesce($3::uuid, gen_random_uuid()), $1, $2::text::jsonb)
ON CONFLICT (id) DO NOTHING
RETURNING id

-- name: start_for_command
-- Create the task (type $1, input $2) of the flow for the command $3, and change the command from RECEIVED to
-- PROCESSING. Return the id of the flow, also if the flow exists already. No row: the command is not RECEIVED
-- and has no flow.
WITH command AS (
    UPDATE command_inbox SET status = 'PROCESSING' WHERE id = $3 AND status = 'RECEIVED' RETURNING id
), started AS (
    INSERT INTO async_tasks (id, task_type, input_data, triggered_by_command_id)
    SELECT command.id, $1, $2::text::jsonb, command.id FROM command
    RETURNING id
)
SELECT id FROM started UNION ALL SELECT id FROM async_tasks WHERE id = $3 AND triggered_by_command_id = $3

-- name: begin_runs
-- Record that the waits of the flows $1 have ended, and return all recorded steps of the flows in their
-- order. A wait is a step. It is recorded if it was resumed, and if the runner with the fencing token in $2
-- still holds the flow. The result of the step is the event if the flow waits for an event, and the payload
-- of the resume otherwise. A flow has at most one such wait: the step after the last recorded one. A RESUMED
-- handle never changes, so it need not be locked.
WITH given AS (
    SELECT id, lease_token FROM unnest($1::uuid[], $2::uuid[]) AS given (id, lease_token)
), resumed AS MATERIALIZED (
    SELECT given.id, given.lease_token, substr(handle.correlation_id, 38) AS name,
        CASE WHEN wait.task_id IS NULL THEN handle.resume_payload ELSE wait.event END AS value
    FROM given
    JOIN flow_resume_handles AS handle
        ON split_part(handle.correlation_id, '/', 1) = given.id::text AND handle.status = 'RESUMED'
        AND handle.resume_handle ->> 'task_id' = given.id::text
    LEFT JOIN flow_waits AS wait ON wait.task_id = given.id AND wait.correlation_id = handle.correlation_id
    WHERE NOT EXISTS (SELECT FROM flow_resume_handles AS later
                      WHERE later.correlation_id = handle.correlation_id AND later.generation > handle.generation)
        AND NOT EXISTS (SELECT FROM flow_steps AS done
                        WHERE done.task_id = given.id AND done.name = substr(handle.correlation_id, 38))
), held AS (
    SELECT task.id FROM async_tasks AS task
    WHERE task.status = 'RUNNING' AND task.id = ANY(ARRAY(SELECT id FROM resumed))
        AND task.lease_token = ANY(ARRAY(SELECT lease_token FROM resumed))
    ORDER BY task.id FOR NO KEY UPDATE
), recorded AS (
    INSERT INTO flow_steps (task_id, position, name, result)
    SELECT held.id, (SELECT count(*) FROM flow_steps AS done WHERE done.task_id = held.id), resumed.name,
        jsonb_build_object('value', resumed.value)
    FROM held JOIN resumed ON resumed.id = held.id WHERE resumed.value IS NOT NULL
    ON CONFLICT DO NOTHING
    RETURNING task_id, position, name, result
)
SELECT task_id, position, name, result::text AS result FROM flow_steps WHERE task_id = ANY($1::uuid[])
UNION ALL SELECT task_id, position, name, result::text FROM recorded
ORDER BY task_id, position

-- name: complete_flows
-- Complete the flows $1 with the results $3 if their runners with the fencing tokens $2 still hold them, and
-- return the ids of the completed flows. The rows are locked in the order of their ids, so that two such
-- statements cannot deadlock.
WITH ended AS (
    SELECT task.id, given.result FROM async_tasks AS task
    JOIN unnest($1::uuid[], $2::uuid[], $3::text[]) AS given (id, lease_token, result)
        ON task.id = given.id AND task.lease_token = given.lease_token
    WHERE task.status = 'RUNNING'
    ORDER BY task.id FOR NO KEY UPDATE OF task
)
UPDATE async_tasks AS task
SET status = 'COMPLETED', progress = 100, result_data = ended.result::jsonb, error_data = NULL, lease_until = NULL,
    lease_token = NULL
FROM ended WHERE task.id = ended.id
RETURNING task.id

-- name: record_step
-- Record that the step with position $3 and name $4 of the flow $1 is done, with result $5. No row: the
-- runner with the fencing token $2 does not hold the flow any more. This is the last statement of the step's
-- transaction, because it locks the task: until the COMMIT, the lease of the task cannot be renewed.
WITH held AS (
    SELECT id FROM async_tasks WHERE id = $1 AND lease_token = $2 AND status = 'RUNNING' FOR NO KEY UPDATE
)
INSERT INTO flow_steps (task_id, position, name, result) SELECT held.id, $3, $4, $5::text::jsonb FROM held
RETURNING result::text AS result

-- name: lock_event_key
-- Lock the event type $1 and key $2 until the transaction ends, so that transactions that record such an
-- event, and transactions that begin to wait for such an event, run one after the other.
INSERT INTO flow_event_keys AS turn (event_type, key) VALUES ($1, $2)
ON CONFLICT (event_type, key) DO UPDATE SET changed_at = clock_timestamp()

-- name: record_events
-- Keep the events $3 of the types $1 and keys $2 for flows that wait for them later. Also lock the types and
-- keys, as lock_event_key does, in the same order in all transactions.
WITH turn AS (
    INSERT INTO flow_event_keys AS turn (event_type, key)
    SELECT DISTINCT event_type, key FROM unnest($1::text[], $2::text[]) AS given (event_type, key) ORDER BY event_type, key
    ON CONFLICT (event_type, key) DO UPDATE SET changed_at = clock_timestamp()
)
INSERT INTO flow_events (event_type, key, envelope)
SELECT event_type, key, envelope::jsonb
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS given (event_type, key, envelope, place) ORDER BY place

-- name: deliver_events
-- Store the events $3 in the waits of flows that wait for an event with the same type (in $1) and key (in
-- $2), and resume those of these flows whose pause has not ended. If several events match a wait, the wait
-- gets the first one. Run this statement after record_events has locked the types and keys: its snapshot then
-- has the waits that began before the locks. The CASE is the expression of the index of open waits.
WITH event AS (
    SELECT DISTINCT ON (event_type, key) event_type, key, envelope::jsonb AS envelope
    FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS given (event_type, key, envelope, place)
    ORDER BY event_type, key, place
), given AS (
    UPDATE flow_waits AS wait SET event = event.envelope FROM event
    WHERE wait.event_type = event.event_type AND CASE WHEN wait.event IS NULL THEN wait.key END = event.key
    RETURNING wait.correlation_id
)
UPDATE flow_resume_handles AS handle SET status = 'RESUMED', resume_payload = '{}', version = version + 1
WHERE correlation_id = ANY(ARRAY(SELECT correlation_id FROM given)) AND status = 'PAUSED' AND expires_at > clock_timestamp()
RETURNING status::text AS status,
    -- include: handle

-- name: begin_wait
-- Let the flow $1 wait with the correlation id $2 for an event of type $3 with key $4. If such an event has
-- arrived already, the wait gets the first one that has arrived since the flow's start or events_since
-- (whichever is earlier), and that no earlier wait of this flow has got. A wait that continues, because it
-- was resumed without an event, keeps an event that it has got meanwhile. Return the event, or null if the
-- wait has none.
INSERT INTO flow_waits (task_id, correlation_id, event_type, key, event)
VALUES ($1, $2, $3, $4, (
    SELECT kept.envelope FROM flow_events AS kept
    WHERE kept.event_type = $3 AND kept.key = $4
        AND kept.received_at >= (SELECT least(task.created_at, (task.input_data ->> 'events_since')::timestamptz)
                                 FROM async_tasks AS task WHERE task.id = $1)
        AND NOT EXISTS (SELECT FROM flow_waits AS earlier
                        WHERE earlier.task_id = $1 AND earlier.event ->> 'event_id' = kept.envelope ->> 'event_id')
    ORDER BY kept.id LIMIT 1))
ON CONFLICT (task_id, correlation_id) DO UPDATE SET event = coalesce(flow_waits.event, excluded.event)
RETURNING event::text AS event

-- name: end_wait
-- Delete the wait of the flow $1 with the correlation id $2, because its pause has expired or was cancelled.
DELETE FROM flow_waits WHERE task_id = $1 AND correlation_id = $2

-- name: awaited_event
-- Return the event that the wait of flow $1 with correlation id $2 has got, or null if the wait has none.
SELECT event::text AS event FROM flow_waits WHERE task_id = $1 AND correlation_id = $2

-- name: seconds_until
-- Return the seconds until the time $1; the result is negative if the time has passed.
SELECT extract(epoch FROM $1::timestamptz - clock_timestamp())::float8 AS seconds

-- name: measure_flows
-- Count the flows of the types $1 by type and state, at most $2 of each state. "oldest_s": the longest time
-- in seconds since a counted flow was last updated; for a waiting flow this is the time since its suspension.
-- A suspended flow whose time has come counts as running, also before a runner claims it.
SELECT flow.task_type, flow.state, count(*)::int AS flows,
    greatest(extract(epoch FROM now() - min(flow.updated_at)), 0)::float8 AS oldest_s
FROM (
    (SELECT task_type, 'waiting' AS state, updated_at FROM async_tasks
     WHERE status = 'PENDING' AND not_before > now() AND task_type = ANY($1::text[]) LIMIT $2::int)
    UNION ALL
    (SELECT task_type, 'running', updated_at FROM async_tasks
     WHERE status IN ('PENDING', 'RUNNING') AND (not_before IS NULL OR not_before <= now())
        AND task_type = ANY($1::text[]) LIMIT $2::int)
    UNION ALL
    (SELECT task_type, 'failed', updated_at FROM async_tasks
     WHERE status = 'FAILED' AND task_type = ANY($1::text[]) LIMIT $2::int)
) AS flow
GROUP BY flow.task_type, flow.state

-- name: time_after
-- Return the time $1 seconds from now.
SELECT clock_timestamp() + make_interval(secs => $1) AS time
