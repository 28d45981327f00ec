-- name: link
-- One link.
SELECT to_jsonb(link)::text AS row FROM workspace_links AS link WHERE link.id = $1

-- name: count_links
-- How many links a node has, expired ones too.
SELECT count(*) AS links FROM workspace_links WHERE node_id = $1

-- name: insert_link_secret
-- What opens a link: the SHA-256 of its token, and its password as scrypt makes it.
INSERT INTO workspace_link_secrets (link_id, node_id, token_hash, password_hash) VALUES ($1, $2, $3, $4)

-- name: delete_link_secret
-- The link is revoked.
DELETE FROM workspace_link_secrets WHERE link_id = $1

-- name: link_of_token
-- The link that a token opens, with where it leads.
SELECT link.id, link.node_id, link.role::text AS role, link.has_password, link.expires_at, node.title,
    node.kind::text AS kind
FROM workspace_link_secrets AS secret
JOIN workspace_links AS link ON link.id = secret.link_id
JOIN workspace_nodes AS node ON node.id = link.node_id
WHERE secret.token_hash = $1 AND (link.expires_at IS NULL OR link.expires_at > clock_timestamp())

-- name: begin_password_try
-- A try counts as a wrong one before its password is looked at, so that no number of tries at once, in whatever
-- processes, are more than they may be. $2: wrong ones in a row that are free; from then on each is followed by a
-- pause, of $3 seconds first and twice as long each time, up to $4. One is forgotten for each $5 seconds since the
-- last pause has ended, so that wrong passwords do not lock a link for ever.
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
-- For how many seconds tries are refused.
SELECT coalesce(ceil(extract(epoch FROM refused_until - clock_timestamp())), 0)::int AS pause_s
FROM workspace_link_secrets WHERE link_id = $1

-- name: reset_password_tries
-- The password was right.
UPDATE workspace_link_secrets SET failures = 0, refused_until = NULL WHERE link_id = $1

-- name: node_of_link
-- The node that a link leads to.
SELECT link.node_id FROM workspace_links AS link WHERE link.id = $1
