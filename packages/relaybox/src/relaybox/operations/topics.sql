-- name: topics_in_use
-- The id of this outbox, which names the control topic (null before the first relay with exactly-once delivery), and the
-- topics of the first $1 PENDING and the first $1 FAILED rows.
SELECT (SELECT id FROM relay_origin) AS origin,
       (SELECT array_agg(DISTINCT rows.topic) FROM (
           (SELECT topic FROM event_outbox WHERE status = 'PENDING' ORDER BY seq LIMIT $1::int)
           UNION ALL
           (SELECT topic FROM event_outbox WHERE status = 'FAILED' AND skipped_at IS NULL ORDER BY seq LIMIT $1::int)
       ) AS rows) AS topics
