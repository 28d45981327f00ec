-- name: ancestors
-- Read the node $1 and its ancestors up to the root, each with the role that the user $2 and the share link $3 have there.
WITH RECURSIVE up AS (
    SELECT node.*, 0 AS level FROM workspace_nodes AS node WHERE node.id = $1
    UNION ALL
    SELECT parent.*, up.level + 1 FROM up JOIN workspace_nodes AS parent ON parent.id = up.parent_id
    WHERE up.level < 1000
)
SELECT up.id, up.kind::text, up.parent_id, up.owner_id, up.title, up.visibility::text,
    up.trashed_at IS NOT NULL AS trashed, up.trashed_by, granted.role::text AS granted, link.role::text AS linked,
    now() AS now
FROM up
LEFT JOIN workspace_grants AS granted ON granted.node_id = up.id AND granted.user_id = $2
LEFT JOIN workspace_links AS link ON link.id = $3 AND link.node_id = up.id
    AND (link.expires_at IS NULL OR link.expires_at > clock_timestamp())
ORDER BY up.level

-- name: now
-- Read the time of this transaction, which its events and rows get.
SELECT now() AS now

-- name: lock_nodes
-- Lock nodes FOR UPDATE in the order of their ids, so that two transactions that lock the same nodes never deadlock.
SELECT to_jsonb(node)::text AS row FROM workspace_nodes AS node
WHERE node.id = ANY($1::uuid[]) ORDER BY node.id FOR UPDATE

-- name: lock_in_trees
-- Lock the roots of the trees of $1 (FOR UPDATE if $3, else FOR SHARE), then the nodes $2 FOR UPDATE. Until the end of
-- the transaction no node of these trees is moved, trashed or purged; with $3 no other transaction locks these roots.
SELECT to_jsonb(node)::text AS row FROM workspace_hold($1::uuid[], $2::uuid[], $3) AS node

-- name: share_lock_nodes
-- Lock nodes, so that none is changed, moved, trashed or purged; FOR SHARE, because transactions may do this concurrently.
SELECT node.id FROM workspace_nodes AS node WHERE node.id = ANY($1::uuid[]) ORDER BY node.id FOR SHARE
