-- name: claim_event
-- Record that the consumer $1 has processed the event $2; no row if it has done so before. First statement of the
-- handler's transaction.
INSERT INTO consumed_events (consumer, event_id) VALUES ($1, $2)
ON CONFLICT DO NOTHING
RETURNING event_id
