-- name: topics_in_use
-- The name of this outbox among others on the same Kafka, null before its first exactly-once relay, and the topics
-- of the first $1 rows that are PENDING and of the first $1 that are FAILED.
SELECT (SELECT id FROM relay_origin) AS origin,
       (SELECT array_agg(DISTINCT rows.topic) FROM (
           (SELECT topic FROM event_outbox WHERE status = 'PENDING' ORDER BY seq LIMIT $1::int)
           UNION ALL
           (SELECT topic FROM event_outbox WHERE status = 'FAILED' AND skipped_at IS NULL ORDER BY seq LIMIT $1::int)
       ) AS rows) AS topics
