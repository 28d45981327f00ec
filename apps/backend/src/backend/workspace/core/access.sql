-- name: ancestors
-- A node and its ancestors up to the root, with what is granted there to $2 and by the link $3.
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
-- The time of this transaction, which its events and rows will have.
SELECT now() AS now

-- name: lock_nodes
-- Nobody else changes these nodes until the end of the transaction; in the order of ids, so that two who lock
-- the same nodes do not wait for each other.
SELECT to_jsonb(node)::text AS row FROM workspace_nodes AS node
WHERE node.id = ANY($1::uuid[]) ORDER BY node.id FOR UPDATE

-- name: lock_in_trees
-- Nobody moves, trashes or purges in the trees of $1 until the end of the transaction, or changes the nodes $2 of
-- them; $3: nobody keeps anything there either. See the function.
SELECT to_jsonb(node)::text AS row FROM workspace_hold($1::uuid[], $2::uuid[], $3) AS node

-- name: share_lock_nodes
-- Nobody moves, trashes or purges these nodes until the end of the transaction; others may share them.
SELECT node.id FROM workspace_nodes AS node WHERE node.id = ANY($1::uuid[]) ORDER BY node.id FOR SHARE
