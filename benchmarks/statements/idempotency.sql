-- name: create_orders
-- Create the table of orders.
CREATE TABLE bench_orders (
    id UUID PRIMARY KEY,
    customer TEXT NOT NULL,
    item TEXT NOT NULL,
    quantity INT NOT NULL,
    placed_at TIMESTAMPTZ NOT NULL DEFAULT now()
)

-- name: grant_orders
-- Grant the services' role its rights on the table of orders.
GRANT SELECT, INSERT ON bench_orders TO PUBLIC

-- name: wal
-- Read the WAL position.
SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::float8 AS bytes

-- name: checkpoint
-- Checkpoint, so that each page changed from now on is written to the WAL once in full: the worst case of expiry.
CHECKPOINT

-- name: empty_answers
-- Remove stored responses, so that each load begins in the same state.
TRUNCATE idempotency_cache, idempotency_bodies

-- name: write_to_slot
-- Make slot $1 the slot to which bodies of responses are written.
SELECT setval('idempotency_turn', $1::int)

-- name: make_claims
-- Insert $1 claims in the library's form, in the order of their expiry, which is 24 hours after creation; the last
-- expires $3 hours from now. Keys and fingerprints are parts of hashes in base64url; $2 makes them unique.
INSERT INTO idempotency_cache (key, result, created_at, expires_at)
SELECT translate(rtrim(encode(substring(hash FOR 16), 'base64'), '='), '+/', '-_'),
    jsonb_build_object('~b', true, 'status', 201, 'fingerprint',
        '1.' || translate(rtrim(encode(substring(hash FROM 17), 'base64'), '='), '+/', '-_')),
    expires_at - interval '24 h', expires_at
FROM generate_series(1, $1::int) AS number,
    LATERAL (SELECT sha256(convert_to($2::text || number, 'UTF8')) AS hash) AS hashes,
    LATERAL (SELECT now() + make_interval(hours => $3::int) - ($1::int - number) * interval '50 ms' AS expires_at) AS times

-- name: make_texts
-- Generate a thousand JSON documents of 2,048 bytes that compress little.
CREATE TEMPORARY TABLE bench_texts AS
SELECT number, convert_to('{"text":"' || left(string_agg(translate(encode(
    sha512(convert_to(number || '-' || part, 'UTF8')), 'base64'), E'\n', ''), ''), 2037) || '"}', 'UTF8') AS body
FROM generate_series(0, 999) AS number, generate_series(1, 24) AS part
GROUP BY number

-- name: make_bodies
-- Insert a body in slot $1 for every claim without one.
INSERT INTO idempotency_bodies (key, slot, body, expires_at)
SELECT claim.key, $1::int, text.body, claim.expires_at
FROM (SELECT *, row_number() OVER (ORDER BY expires_at) AS number FROM idempotency_cache) AS claim
JOIN bench_texts AS text ON text.number = claim.number % 1000
WHERE NOT EXISTS (SELECT FROM idempotency_bodies AS body WHERE body.key = claim.key)
ORDER BY claim.number

-- name: vacuum_answers
-- Vacuum and analyze, as autovacuum would have done in 24 hours.
VACUUM (ANALYZE) idempotency_cache, idempotency_bodies

-- name: vacuum_claims
-- Vacuum, as autovacuum does after a sweep.
VACUUM idempotency_cache

-- name: left_over
-- Count the expired claims, and the bodies of expired claims.
SELECT (SELECT count(*) FROM idempotency_cache WHERE expires_at <= now()) AS claims,
    (SELECT count(*) FROM idempotency_bodies WHERE expires_at <= now()) AS bodies
