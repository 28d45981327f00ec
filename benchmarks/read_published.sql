-- Read the next $2 rows with numbers above $1, to publish them.
SELECT seq, key, payload ->> 'event_id' AS id, payload::text AS value FROM event_outbox WHERE seq > $1 ORDER BY seq LIMIT $2
