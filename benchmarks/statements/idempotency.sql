-- name: create_orders
-- What an ordinary endpoint writes to.
CREATE TABLE bench_orders (
    id UUID PRIMARY KEY,
    customer TEXT NOT NULL,
    item TEXT NOT NULL,
    quantity INT NOT NULL,
    placed_at TIMESTAMPTZ NOT NULL DEFAULT now()
)

-- name: grant_orders
-- To the services' role, like all of them.
GRANT SELECT, INSERT ON bench_orders TO PUBLIC

-- name: wal
-- How far the WAL is.
SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::float8 AS bytes

-- name: checkpoint
-- Every page that is changed from now on goes whole into the WAL once: the dearest that expiring can be.
CHECKPOINT

-- name: empty_answers
-- Each load begins with the same answers.
TRUNCATE idempotency_cache, idempotency_bodies

-- name: write_to_slot
-- Bodies go to slot $1 from now on.
SELECT setval('idempotency_turn', $1::int)

-- name: make_claims
-- $1 claims as the library writes them, kept for 24 hours, the last until $3 hours from now; $2 tells them apart.
-- Keys and fingerprints are parts of hashes in base64url; rows stand in the order in which they expire.
INSERT INTO idempotency_cache (key, result, created_at, expires_at)
SELECT translate(rtrim(encode(substring(hash FOR 16), 'base64'), '='), '+/', '-_'),
    jsonb_build_object('~b', true, 'status', 201, 'fingerprint',
        '1.' || translate(rtrim(encode(substring(hash FROM 17), 'base64'), '='), '+/', '-_')),
    expires_at - interval '24 h', expires_at
FROM generate_series(1, $1::int) AS number,
    LATERAL (SELECT sha256(convert_to($2::text || number, 'UTF8')) AS hash) AS hashes,
    LATERAL (SELECT now() + make_interval(hours => $3::int) - ($1::int - number) * interval '50 ms' AS expires_at) AS times

-- name: make_texts
-- A thousand JSON documents of 2,048 bytes in which a compression finds little.
CREATE TEMPORARY TABLE bench_texts AS
SELECT number, convert_to('{"text":"' || left(string_agg(translate(encode(
    sha512(convert_to(number || '-' || part, 'UTF8')), 'base64'), E'\n', ''), ''), 2037) || '"}', 'UTF8') AS body
FROM generate_series(0, 999) AS number, generate_series(1, 24) AS part
GROUP BY number

-- name: make_bodies
-- A body in slot $1 for every claim that has none.
INSERT INTO idempotency_bodies (key, slot, body, expires_at)
SELECT claim.key, $1::int, text.body, claim.expires_at
FROM (SELECT *, row_number() OVER (ORDER BY expires_at) AS number FROM idempotency_cache) AS claim
JOIN bench_texts AS text ON text.number = claim.number % 1000
WHERE NOT EXISTS (SELECT FROM idempotency_bodies AS body WHERE body.key = claim.key)
ORDER BY claim.number

-- name: vacuum_answers
-- What autovacuum has done in 24 hours.
VACUUM (ANALYZE) idempotency_cache, idempotency_bodies

-- name: vacuum_claims
-- What autovacuum does after a sweep.
VACUUM idempotency_cache

-- name: left_over
-- Claims that have expired, and bodies of theirs.
SELECT (SELECT count(*) FROM idempotency_cache WHERE expires_at <= now()) AS claims,
    (SELECT count(*) FROM idempotency_bodies WHERE expires_at <= now()) AS bodies
