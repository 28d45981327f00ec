-- The next $2 rows after $1, for publishing.
SELECT seq, key, payload ->> 'event_id' AS id, payload::text AS value FROM event_outbox WHERE seq > $1 ORDER BY seq LIMIT $2
