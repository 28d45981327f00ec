-- name: stream
-- One aggregate's events after a version, oldest first; the version is gapless, so nothing is skipped.
SELECT event_id, correlation_id, causation_id, event_type, event_version, aggregate_type, aggregate_id,
    aggregate_version, payload::text, metadata::text, created_at
FROM domain_events
WHERE aggregate_type = $1 AND aggregate_id = $2 AND aggregate_version > $3
ORDER BY aggregate_version
LIMIT $4

-- name: chain
-- Everything that followed from one command, in the order of insertion.
SELECT event_id, correlation_id, causation_id, event_type, event_version, aggregate_type, aggregate_id,
    aggregate_version, payload::text, metadata::text, created_at
FROM domain_events
WHERE correlation_id = $1
ORDER BY id
LIMIT $2

-- name: streams_page
-- All aggregates of a type, stream by stream, for rebuilding snapshots; a page after a position.
SELECT event_id, correlation_id, causation_id, event_type, event_version, aggregate_type, aggregate_id,
    aggregate_version, payload::text, metadata::text, created_at
FROM domain_events
WHERE aggregate_type = $1 AND (aggregate_id, aggregate_version) > ($2, $3)
ORDER BY aggregate_id, aggregate_version
LIMIT $4
