-- name: count_nodes_to_trash
-- Count the nodes that are trashed with the node $1: its subtree without batches that were trashed before.
WITH RECURSIVE below AS (
    SELECT id FROM workspace_nodes WHERE id = $1
    UNION ALL
    SELECT child.id FROM below JOIN workspace_nodes AS child ON child.parent_id = below.id
    WHERE child.trashed_at IS NULL
)
SELECT count(*) AS nodes FROM below

-- name: find_restore_parent
-- Find the node below which a trashed node is restored: the nearest former ancestor that is live, in a tree of the same
-- owner. No row: there is no such ancestor.
WITH RECURSIVE own AS (
    SELECT id, parent_id, owner_id FROM workspace_nodes WHERE id = $1
    UNION ALL
    SELECT parent.id, parent.parent_id, parent.owner_id
    FROM own JOIN workspace_nodes AS parent ON parent.id = own.parent_id
),
up AS (
    SELECT former.place, former.id AS place_id, node.parent_id, node.owner_id, node.trashed_at
    FROM workspace_nodes AS trashed
    CROSS JOIN unnest(trashed.trash_path) WITH ORDINALITY AS former (id, place)
    JOIN workspace_nodes AS node ON node.id = former.id
    WHERE trashed.id = $1
    UNION ALL
    SELECT up.place, up.place_id, parent.parent_id, parent.owner_id, parent.trashed_at
    FROM up JOIN workspace_nodes AS parent ON parent.id = up.parent_id
    WHERE up.trashed_at IS NULL
)
SELECT up.place_id AS id FROM up
WHERE up.parent_id IS NULL AND up.trashed_at IS NULL
    AND up.owner_id = (SELECT own.owner_id FROM own WHERE own.parent_id IS NULL)
ORDER BY up.place DESC
LIMIT 1

-- name: trash_page
-- Read a page of the batches that the user $1 sees in the bin, last trashed first: all batches of the user's own trees,
-- and the batches that the user trashed in other trees and could read if they were live. $5: the share link of the
-- request. The title of the former parent is returned only if the user may read that node.
WITH RECURSIVE mine AS (
    SELECT id, trashed_at FROM workspace_nodes WHERE owner_id = $1 AND parent_id IS NULL
    UNION ALL
    SELECT child.id, child.trashed_at FROM mine JOIN workspace_nodes AS child ON child.parent_id = mine.id
),
up AS (
    SELECT node.id AS trashed_id, 0 AS level, node.id, node.parent_id, node.owner_id, node.visibility
    FROM workspace_nodes AS node WHERE node.trashed_by = $1 AND node.trashed_at IS NOT NULL
    UNION ALL
    SELECT up.trashed_id, up.level + 1, parent.id, parent.parent_id, parent.owner_id, parent.visibility
    FROM up JOIN workspace_nodes AS parent ON parent.id = up.parent_id
),
chain AS (
    SELECT up.trashed_id, max(up.owner_id) FILTER (WHERE up.parent_id IS NULL) AS owner_id,
        (array_agg(up.visibility ORDER BY up.level) FILTER (WHERE up.visibility IS NOT NULL))[1] AS visibility,
        (array_agg(up.visibility ORDER BY up.level)
            FILTER (WHERE up.visibility IS NOT NULL AND up.level > 0))[1] AS above,
        bool_or(granted.node_id IS NOT NULL OR link.id IS NOT NULL) AS granted,
        bool_or((granted.node_id IS NOT NULL OR link.id IS NOT NULL) AND up.level > 0) AS granted_above
    FROM up
    LEFT JOIN workspace_grants AS granted ON granted.node_id = up.id AND granted.user_id = $1
    LEFT JOIN workspace_links AS link ON link.id = $5 AND link.node_id = up.id
        AND (link.expires_at IS NULL OR link.expires_at > clock_timestamp())
    GROUP BY up.trashed_id
),
seen AS (
    SELECT id, true AS owned, true AS parent_seen FROM mine WHERE trashed_at IS NOT NULL
    UNION ALL
    SELECT trashed_id, false,
        above = 'public' OR (coalesce(above, 'shared') = 'shared' AND granted_above)
    FROM chain
    WHERE owner_id <> $1 AND (visibility = 'public' OR (coalesce(visibility, 'shared') = 'shared' AND granted))
)
SELECT to_jsonb(node)::text AS row, seen.owned, seen.parent_seen, former.title AS former_title
FROM seen
JOIN workspace_nodes AS node ON node.id = seen.id
LEFT JOIN workspace_nodes AS former
    ON former.id = node.trash_path[cardinality(node.trash_path)] AND seen.parent_seen
WHERE $2::timestamptz IS NULL OR (node.trashed_at, node.id) < ($2, $3::uuid)
ORDER BY node.trashed_at DESC, node.id DESC
LIMIT $4
