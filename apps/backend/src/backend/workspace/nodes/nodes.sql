-- name: title_taken
-- Find the live study of the folder $1 with the title $2, other than the study $3.
SELECT node.id FROM workspace_nodes AS node
WHERE node.parent_id = $1 AND node.title = $2 AND node.kind = 'study' AND node.trashed_at IS NULL
    AND node.id IS DISTINCT FROM $3::uuid

-- name: next_position
-- Compute the position after the last child of a node.
SELECT coalesce(max(position) + 1, 0) AS position FROM workspace_nodes WHERE parent_id = $1

-- name: subtree_height
-- Count the levels of the subtree of a node, including the node.
WITH RECURSIVE below AS (
    SELECT id, 1 AS level FROM workspace_nodes WHERE id = $1
    UNION ALL
    SELECT child.id, below.level + 1 FROM below JOIN workspace_nodes AS child ON child.parent_id = below.id
)
SELECT max(level) AS levels FROM below

-- name: node
-- Read the row of one node.
SELECT to_jsonb(node)::text AS row FROM workspace_nodes AS node WHERE node.id = $1

-- name: roots_page
-- Read a page of the roots of the live trees that the user $1 owns, oldest first, after the root with the creation
-- time $2 and the id $3; both are NULL for the first page.
SELECT to_jsonb(node)::text AS row, coalesce(node.visibility, 'shared')::text AS visibility
FROM workspace_nodes AS node
WHERE node.owner_id = $1 AND node.parent_id IS NULL AND node.trashed_at IS NULL
    AND ($2::timestamptz IS NULL OR (node.created_at, node.id) > ($2, $3::uuid))
ORDER BY node.created_at, node.id
LIMIT $4

-- name: children_page
-- Read a page of the live children of the node $1 that the requester may read, in their order, after the child with
-- the position $2 and the id $3; both are NULL for the first page. $5: the node's visibility, own or inherited,
-- $6: the requester owns the tree, $7: the requester has a grant or link on the node or an ancestor,
-- $8: the requester, $9: the share link of the request.
SELECT to_jsonb(node)::text AS row, coalesce(node.visibility, $5::workspace_visibility)::text AS visibility
FROM workspace_nodes AS node
WHERE node.parent_id = $1 AND node.trashed_at IS NULL
    AND ($2::int IS NULL OR (node.position, node.id) > ($2, $3::uuid))
    AND ($6 OR CASE coalesce(node.visibility, $5::workspace_visibility)
        WHEN 'public' THEN true
        WHEN 'private' THEN false
        ELSE $7 OR EXISTS (SELECT FROM workspace_grants AS granted
                WHERE granted.node_id = node.id AND granted.user_id = $8)
            OR node.id IS NOT DISTINCT FROM (SELECT link.node_id FROM workspace_links AS link
                WHERE link.id = $9 AND (link.expires_at IS NULL OR link.expires_at > clock_timestamp()))
    END)
ORDER BY node.position, node.id
LIMIT $4

-- name: tree
-- Read the node $1 and the live nodes of $2 levels below it that the requester may read, as JSON text: parents before
-- their children, siblings in their order. $3: visibility of the node $1, own or inherited, $4: the requester owns the
-- tree, $5: the requester has a grant or link on the node $1 or an ancestor, $6: the requester, $7: the share link of
-- the request, $8: the parent of the node $1; NULL for a root, or if the requester may not read the parent.
-- Nodes below an unreadable node are left out. Studies have no children, so the query does not search for any.
-- Enums are cast to text, because row_to_json would look up their type for each value.
WITH RECURSIVE below AS (
    SELECT node, 0 AS level, $3::workspace_visibility AS visibility, $5::boolean AS granted
    FROM workspace_nodes AS node WHERE node.id = $1
    UNION ALL
    SELECT child, below.level + 1, own.visibility, own.granted
    FROM below
    JOIN workspace_nodes AS child ON child.parent_id = (below.node).id AND child.trashed_at IS NULL
    CROSS JOIN LATERAL (
        SELECT coalesce(child.visibility, below.visibility) AS visibility,
            $4 OR below.granted OR EXISTS (SELECT FROM workspace_grants AS granted
                WHERE granted.node_id = child.id AND granted.user_id = $6)
            OR child.id IS NOT DISTINCT FROM (SELECT link.node_id FROM workspace_links AS link
                WHERE link.id = $7 AND (link.expires_at IS NULL OR link.expires_at > clock_timestamp()))
                AS granted
    ) AS own
    WHERE below.level < $2 AND (below.node).kind <> 'study'
        AND ($4 OR own.visibility = 'public' OR (own.visibility = 'shared' AND own.granted))
)
SELECT '[' || coalesce(string_agg(row_to_json(item)::text, ',' ORDER BY item.depth, item.position, item.id), '') || ']'
    AS items
FROM (
    SELECT (node).id, (node).kind::text, CASE level WHEN 0 THEN $8::uuid ELSE (node).parent_id END AS parent_id, (node).title, (node).description, (node).position,
        (node).layout, visibility::text, (node).version, (node).created_by, (node).created_at, (node).changed_at,
        level AS depth
    FROM below
) AS item
