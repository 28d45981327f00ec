-- name: grant
-- Read the grant of a user on a node itself, not on an ancestor.
SELECT to_jsonb(granted)::text AS row FROM workspace_grants AS granted
WHERE granted.node_id = $1 AND granted.user_id = $2

-- name: count_grants
-- Count the grants on a node itself.
SELECT count(*) AS grants FROM workspace_grants WHERE node_id = $1

-- name: grants_page
-- Read a page of the effective grants on a node, by user id: for each user the grant on the nearest node of the node and
-- its ancestors.
WITH RECURSIVE up AS (
    SELECT node.id, node.parent_id, 0 AS level FROM workspace_nodes AS node WHERE node.id = $1
    UNION ALL
    SELECT parent.id, parent.parent_id, up.level + 1
    FROM up JOIN workspace_nodes AS parent ON parent.id = up.parent_id
    WHERE up.level < 1000
)
SELECT DISTINCT ON (granted.user_id) to_jsonb(granted)::text AS row
FROM up JOIN workspace_grants AS granted ON granted.node_id = up.id
WHERE $2::text IS NULL OR granted.user_id > $2
ORDER BY granted.user_id, up.level
LIMIT $3

-- name: links_of_ancestors
-- Read the links of a node and of its ancestors, oldest first, including expired links.
WITH RECURSIVE up AS (
    SELECT node.id, node.parent_id, 0 AS level FROM workspace_nodes AS node WHERE node.id = $1
    UNION ALL
    SELECT parent.id, parent.parent_id, up.level + 1
    FROM up JOIN workspace_nodes AS parent ON parent.id = up.parent_id
    WHERE up.level < 1000
)
SELECT to_jsonb(link)::text AS row
FROM up JOIN workspace_links AS link ON link.node_id = up.id
ORDER BY link.created_at, link.id

-- name: shared_page
-- Read a page of the nodes on which a user has an effective grant, the newest grant first: live nodes in trees of other
-- owners that are not private. parent_seen: whether the user may read the parent.
SELECT to_jsonb(node)::text AS row, place.visibility,
    place.above = 'public' OR (place.above = 'shared' AND place.granted_above) AS parent_seen, granted.role::text AS role, granted.granted_by,
    granted.created_at AS granted_at
FROM workspace_grants AS granted
JOIN workspace_nodes AS node ON node.id = granted.node_id
CROSS JOIN LATERAL (
    WITH RECURSIVE up AS (
        SELECT node.id, node.parent_id, node.owner_id, node.visibility, node.trashed_at, 0 AS level
        UNION ALL
        SELECT parent.id, parent.parent_id, parent.owner_id, parent.visibility, parent.trashed_at, up.level + 1
        FROM up JOIN workspace_nodes AS parent ON parent.id = up.parent_id
        WHERE up.level < 1000
    )
    SELECT
        coalesce((array_agg(up.visibility ORDER BY up.level) FILTER (WHERE up.visibility IS NOT NULL))[1],
            'shared')::text AS visibility,
        coalesce((array_agg(up.visibility ORDER BY up.level)
            FILTER (WHERE up.visibility IS NOT NULL AND up.level > 0))[1], 'shared')::text AS above,
        bool_or(up.level > 0 AND EXISTS (SELECT FROM workspace_grants AS other
            WHERE other.node_id = up.id AND other.user_id = $1)) AS granted_above,
        (array_agg(up.owner_id ORDER BY up.level DESC))[1] AS owner_id,
        bool_or(up.trashed_at IS NOT NULL) AS trashed
    FROM up
) AS place
WHERE granted.user_id = $1 AND NOT place.trashed AND place.visibility <> 'private' AND place.owner_id <> $1
    AND ($2::timestamptz IS NULL OR (granted.created_at, granted.node_id) < ($2, $3::uuid))
ORDER BY granted.created_at DESC, granted.node_id DESC
LIMIT $4
