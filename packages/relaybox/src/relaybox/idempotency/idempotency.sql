-- name: lock
-- Lock a key until the transaction ends; return false if another transaction has the lock. This is a separate statement,
-- so that the next statement sees what the previous holder of the lock committed. The number of the lock depends on the
-- schema, because advisory locks belong to the whole database.
SELECT pg_try_advisory_xact_lock($1 # 'idempotency_cache'::regclass::bigint) AS mine

-- name: claim
-- Lock a key and return its stored response, in one round trip.
SELECT mine, result, created_at, expires_at, age_s
FROM relaybox_claim_key($1 # 'idempotency_cache'::regclass::bigint, $2)

-- name: find
-- Return the response stored under a key, without a body that has a row of its own. This body is read by the query *body*
-- if needed, because a slot of bodies cannot be truncated while it is read.
SELECT result::text AS result, created_at, expires_at,
    extract(epoch FROM clock_timestamp() - created_at)::float8 AS age_s
FROM idempotency_cache
WHERE key = $1 AND expires_at > clock_timestamp()

-- name: body
-- Return a body that is not stored in the row of its claim. A body with another time of expiry belongs to another use of
-- the key.
SELECT body FROM idempotency_bodies WHERE key = $1 AND expires_at = $2

-- name: delete_expired
-- Delete the expired claims of keys, so that new claims can be inserted.
DELETE FROM idempotency_cache WHERE key = ANY($1::text[]) AND expires_at <= clock_timestamp()

-- name: claim_keys
-- Part of the statements that store responses: insert the claims. It reads their part *response* (key, result, ttl_s,
-- body).
INSERT INTO idempotency_cache (key, result, expires_at)
SELECT key, result::jsonb, clock_timestamp() + make_interval(secs => ttl_s) FROM response

-- name: store_bodies
-- Part of the statements that store responses, after the part *claim*: insert the bodies that need a row of their own. A
-- body has the time of expiry of its claim.
INSERT INTO idempotency_bodies (key, body, expires_at)
SELECT claim.key, response.body, claim.expires_at
FROM response JOIN claim ON claim.key = response.key
WHERE response.body IS NOT NULL
ON CONFLICT (key, slot) DO UPDATE SET body = excluded.body, expires_at = excluded.expires_at

-- name: keep
-- Store a response unless a response that has not expired is stored under the key; replace an expired response. The body
-- is written only if the claim is written.
WITH response AS (
    SELECT $1::text AS key, $2::text AS result, $4::float8 AS ttl_s, $3::bytea AS body
),
claim AS (
-- include: claim_keys
    ON CONFLICT (key) DO UPDATE
        SET result = excluded.result, created_at = now(), expires_at = excluded.expires_at
        WHERE idempotency_cache.expires_at <= clock_timestamp()
    RETURNING key, expires_at
),
body AS (
-- include: store_bodies
)
SELECT key FROM claim

-- name: invalidate
-- Delete a key with its response, expired or not.
WITH body AS (
    DELETE FROM idempotency_bodies WHERE key = $1
)
DELETE FROM idempotency_cache WHERE key = $1
RETURNING key

-- name: expire
-- Delete at most $1 expired claims, the oldest first; if several sessions run it, one deletes and the others do nothing.
-- statement_timestamp() is constant in the statement, unlike clock_timestamp(), so the index can be used. A claim that a
-- request has locked is skipped: waiting for it would delay requests that use the other claims (cost: 115 instead of 59
-- bytes of WAL per claim). Only the subquery that locks the claims checks the expiry: with the condition in the DELETE
-- too, a planner with old statistics scans all claims by the index (1,000 of 50,000: 285 instead of 1.6 ms).
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
-- Do one step, and return which. "emptied": a closed slot whose bodies have all expired was truncated. "closed": the open
-- slot, which has bodies and was opened at least $1 s ago, was closed, and an empty slot was opened. "busy": a slot that
-- should be truncated is being read. Null: there is nothing to do.
SELECT relaybox_retain_bodies(make_interval(secs => $1)) AS step

-- name: standing
-- Return the number of claims by PostgreSQL's statistics, and the seconds since the oldest expired claim expired.
SELECT (SELECT n_live_tup FROM pg_stat_user_tables WHERE relid = 'idempotency_cache'::regclass) AS records,
    greatest(0, extract(epoch FROM clock_timestamp() - (SELECT min(expires_at) FROM idempotency_cache)))::float8 AS lag_s
