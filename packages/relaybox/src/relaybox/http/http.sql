-- name: command
-- Return the command $1 of the aggregate $2, with the id of the command's latest task (null if it has no task).
SELECT inbox.id, inbox.command_type, inbox.status::text AS status, inbox.created_at,
    inbox.error_data::text AS error,
    (SELECT task.id FROM async_tasks AS task WHERE task.triggered_by_command_id = inbox.id
     ORDER BY task.created_at DESC LIMIT 1) AS task_id
FROM command_inbox AS inbox
WHERE inbox.id = $1 AND inbox.session_id = $2

-- name: open_tasks
-- Return at most 20 open tasks of an aggregate, whose progress its live stream sends.
SELECT id, task_type, status::text AS status, progress
FROM async_tasks
WHERE aggregate_id = $1 AND status IN ('PENDING', 'RUNNING')
ORDER BY created_at
LIMIT 20

-- name: positions
-- Return, for each of many aggregates, its version and the time at which one of its tasks last changed. The caller
-- compares them with those of the last call, to find the streams that missed a notification.
SELECT followed.id,
    (SELECT max(event.aggregate_version) FROM domain_events AS event
     WHERE event.aggregate_type = followed.type AND event.aggregate_id = followed.id) AS version,
    (SELECT max(task.updated_at) FROM async_tasks AS task WHERE task.aggregate_id = followed.id::uuid) AS worked_at
FROM unnest($1::text[], $2::text[]) AS followed (type, id)

-- name: issue_ticket
-- Insert a single-use ticket, stored as a hash only; delete expired tickets.
WITH expired AS (
    DELETE FROM stream_tickets WHERE expires_at < now()
)
INSERT INTO stream_tickets (ticket_hash, aggregate_id, owner, expires_at)
VALUES ($1, $2, $3, now() + make_interval(secs => $4))

-- name: use_ticket
-- Delete a ticket and return its owner; no row if the ticket was used, has expired, or is for another aggregate.
DELETE FROM stream_tickets
WHERE ticket_hash = $1 AND aggregate_id = $2 AND expires_at >= now()
RETURNING owner
