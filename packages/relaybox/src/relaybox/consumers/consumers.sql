-- name: claim_event
-- First statement of a handler's transaction: no row comes back when this consumer has done the event.
INSERT INTO consumed_events (consumer, event_id) VALUES ($1, $2)
ON CONFLICT DO NOTHING
RETURNING event_id
