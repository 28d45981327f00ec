-- name: lock
-- Whether nobody else works under this key; until the transaction ends. In a statement of its own, so that the
-- next one reads what the last holder has committed. Of this schema's keys: locks belong to the whole database.
SELECT pg_try_advisory_xact_lock($1 # 'idempotency_cache'::regclass::bigint) AS mine

-- name: claim
-- Lock a key of this schema and say what is kept under it, in one round-trip; see the function.
SELECT mine, result, created_at, expires_at, age_s
FROM relaybox_claim_key($1 # 'idempotency_cache'::regclass::bigint, $2)

-- name: find
-- What is kept under a key. Bodies are read by who needs one: whoever looks at them holds up the emptying of slots.
SELECT result::text AS result, created_at, expires_at,
    extract(epoch FROM clock_timestamp() - created_at)::float8 AS age_s
FROM idempotency_cache
WHERE key = $1 AND expires_at > clock_timestamp()

-- name: body
-- The body that lies apart from its claim. One with another time of expiry belongs to an earlier use of the key.
SELECT body FROM idempotency_bodies WHERE key = $1 AND expires_at = $2

-- name: delete_expired
-- Make room for new claims under keys whose old ones have expired.
DELETE FROM idempotency_cache WHERE key = ANY($1::text[]) AND expires_at <= clock_timestamp()

-- name: keep
-- Keep an answer, unless a live one is there; an expired one gives way. Everything hangs on the claim.
WITH claim AS (
    INSERT INTO idempotency_cache (key, result, expires_at)
    VALUES ($1, $2::jsonb, clock_timestamp() + make_interval(secs => $4))
    ON CONFLICT (key) DO UPDATE
        SET result = excluded.result, created_at = now(), expires_at = excluded.expires_at
        WHERE idempotency_cache.expires_at <= clock_timestamp()
    RETURNING key, expires_at
),
body AS (
    INSERT INTO idempotency_bodies (key, body, expires_at)
    SELECT key, $3, expires_at FROM claim WHERE $3::bytea IS NOT NULL
    ON CONFLICT (key, slot) DO UPDATE SET body = excluded.body, expires_at = excluded.expires_at
)
SELECT key FROM claim

-- name: invalidate
-- Forget a key, live or expired.
WITH body AS (
    DELETE FROM idempotency_bodies WHERE key = $1
)
DELETE FROM idempotency_cache WHERE key = $1
RETURNING key

-- name: expire
-- Remove claims that have expired, the oldest first, $1 at the most; one session at a time, the others do nothing.
-- By the statement's time, which is one value: the index finds where expired ones end. One that a request is using
-- again is left to it: to wait for it would be to hold up who uses the others (WAL 59 -> 115 bytes for each).
-- Which ones are expired is asked once, where they are locked. Asked of the DELETE as well, a planner whose statistics
-- know of few goes through all of them by the index instead (1,000 of 50,000: 1.6 -> 285 ms).
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock('idempotency_cache'::regclass::int, hashtext('expire_claims')) AS mine
),
gone AS (
    DELETE FROM idempotency_cache
    WHERE (SELECT mine FROM turn) AND ctid = ANY(ARRAY(
        SELECT ctid FROM idempotency_cache
        WHERE expires_at <= statement_timestamp() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING key
)
SELECT count(*) AS removed FROM gone

-- name: retain_bodies
-- One step of emptying the slots of bodies.
SELECT relaybox_retain_bodies(make_interval(secs => $1)) AS step

-- name: standing
-- How many claims there are, as the statistics know, and for how long the oldest expired one has waited.
SELECT (SELECT n_live_tup FROM pg_stat_user_tables WHERE relid = 'idempotency_cache'::regclass) AS records,
    greatest(0, extract(epoch FROM clock_timestamp() - (SELECT min(expires_at) FROM idempotency_cache)))::float8 AS lag_s
