-- name: link
-- Read one link.
SELECT to_jsonb(link)::text AS row FROM workspace_links AS link WHERE link.id = $1

-- name: count_links
-- Count the links of a node, including expired links.
SELECT count(*) AS links FROM workspace_links WHERE node_id = $1

-- name: insert_link_secret
-- Store the secrets of a link: the SHA-256 of its token, and the scrypt hash of its password.
INSERT INTO workspace_link_secrets (link_id, node_id, token_hash, password_hash) VALUES ($1, $2, $3, $4)

-- name: delete_link_secret
-- Delete the secrets of a revoked link.
DELETE FROM workspace_link_secrets WHERE link_id = $1

-- name: link_of_token
-- Find the link with the token hash $1 that has not expired, with its node.
SELECT link.id, link.node_id, link.role::text AS role, link.has_password, link.expires_at, node.title,
    node.kind::text AS kind
FROM workspace_link_secrets AS secret
JOIN workspace_links AS link ON link.id = secret.link_id
JOIN workspace_nodes AS node ON node.id = link.node_id
WHERE secret.token_hash = $1 AND (link.expires_at IS NULL OR link.expires_at > clock_timestamp())

-- name: begin_password_try
-- Count an attempt as a failure before its password is checked, so that concurrent attempts in several processes stay
-- within the limit. No row: attempts are refused at the moment. $2 failures are allowed without a pause; each further
-- failure starts a pause, the first of $3 seconds, each next twice as long, up to $4 seconds. The count decreases by one
-- for each $5 seconds since the end of the last pause, so that wrong passwords do not lock a link for ever.
UPDATE workspace_link_secrets SET
    failures = greatest(failures - coalesce(
        floor(extract(epoch FROM clock_timestamp() - refused_until) / $5::float8), 0), 0)::int + 1,
    refused_until = clock_timestamp() + interval '1 second' * CASE
        WHEN greatest(failures - coalesce(
            floor(extract(epoch FROM clock_timestamp() - refused_until) / $5::float8), 0), 0)::int + 1 >= $2::int
        THEN least($3::float8 * 2 ^ least(greatest(failures - coalesce(
            floor(extract(epoch FROM clock_timestamp() - refused_until) / $5::float8), 0), 0)::int + 1 - $2::int, 30),
            $4::float8)
        ELSE 0 END
WHERE link_id = $1 AND (refused_until IS NULL OR refused_until <= clock_timestamp())
RETURNING password_hash

-- name: remaining_pause
-- Compute the seconds until attempts are accepted again.
SELECT coalesce(ceil(extract(epoch FROM refused_until - clock_timestamp())), 0)::int AS pause_s
FROM workspace_link_secrets WHERE link_id = $1

-- name: reset_password_tries
-- Reset the number of failures of a link after a correct password.
UPDATE workspace_link_secrets SET failures = 0, refused_until = NULL WHERE link_id = $1

-- name: node_of_link
-- Read the id of a link's node.
SELECT link.node_id FROM workspace_links AS link WHERE link.id = $1
