-- name: search
-- Read a page of the live nodes and chapters that the user $1 may read and that match the pattern $3, after the item
-- with the sort values $4 to $6. The query starts at the user's own trees, grants and the share link $2, and descends,
-- so that rows of other users are not read. OFFSET 0 keeps the planner from reading whole tables instead of the rows of
-- one node. UNION visits each node once, even if several grants give access to it.
WITH RECURSIVE begun AS (
    SELECT node.id, coalesce(node.visibility, 'shared') AS visibility, true AS owned
    FROM workspace_nodes AS node
    WHERE node.owner_id = $1 AND node.parent_id IS NULL AND node.trashed_at IS NULL
    UNION
    SELECT entry.node_id, place.visibility, place.owner_id IS NOT DISTINCT FROM $1
    FROM (
        SELECT granted.node_id FROM workspace_grants AS granted WHERE granted.user_id = $1
        UNION
        SELECT link.node_id FROM workspace_links AS link
        WHERE link.id = $2 AND (link.expires_at IS NULL OR link.expires_at > clock_timestamp())
    ) AS entry
    CROSS JOIN LATERAL (
        WITH RECURSIVE up AS (
            SELECT node.parent_id, node.owner_id, node.visibility, node.trashed_at, 0 AS level
            FROM workspace_nodes AS node WHERE node.id = entry.node_id
            UNION ALL
            SELECT parent.parent_id, parent.owner_id, parent.visibility, parent.trashed_at, up.level + 1
            FROM up JOIN workspace_nodes AS parent ON parent.id = up.parent_id
            WHERE up.level < 1000
        )
        SELECT
            coalesce((array_agg(up.visibility ORDER BY up.level) FILTER (WHERE up.visibility IS NOT NULL))[1],
                'shared') AS visibility,
            (array_agg(up.owner_id ORDER BY up.level DESC))[1] AS owner_id,
            bool_or(up.trashed_at IS NOT NULL) AS trashed
        FROM up
    ) AS place
    WHERE NOT place.trashed
),
below AS (
    SELECT begun.id, begun.visibility, begun.owned FROM begun
    UNION
    SELECT child.id, coalesce(child.visibility, below.visibility), below.owned
    FROM below
    CROSS JOIN LATERAL (
        SELECT node.id, node.visibility FROM workspace_nodes AS node
        WHERE node.parent_id = below.id AND node.trashed_at IS NULL
        OFFSET 0
    ) AS child
),
readable AS (
    SELECT node.*
    FROM below
    CROSS JOIN LATERAL (
        SELECT one.id, one.kind, one.title, one.created_at,
            CASE WHEN one.title ILIKE $3 THEN 3 WHEN one.description ILIKE $3 THEN 2 END AS rank
        FROM workspace_nodes AS one WHERE one.id = below.id
        OFFSET 0
    ) AS node
    WHERE below.owned OR below.visibility <> 'private'
),
hits AS (
    SELECT readable.id AS node_id, readable.kind, readable.title, NULL::uuid AS chapter_id,
        NULL::text AS chapter_title, readable.rank, readable.created_at, readable.id AS hit_id
    FROM readable
    WHERE readable.rank IS NOT NULL
    UNION ALL
    SELECT readable.id, readable.kind, readable.title, chapter.id, chapter.title, chapter.rank,
        chapter.created_at, chapter.id
    FROM readable
    CROSS JOIN LATERAL (
        SELECT one.id, one.title, one.created_at, CASE WHEN one.title ILIKE $3 THEN 1 ELSE 0 END AS rank
        FROM workspace_chapters AS one
        WHERE one.node_id = readable.id AND (one.title ILIKE $3 OR one.headers ->> 'White' ILIKE $3
            OR one.headers ->> 'Black' ILIKE $3 OR one.headers ->> 'Event' ILIKE $3)
        OFFSET 0
    ) AS chapter
    WHERE readable.kind = 'study'
)
SELECT hits.node_id, hits.kind::text AS kind, hits.title, hits.chapter_id, hits.chapter_title, hits.rank,
    hits.created_at, hits.hit_id
FROM hits
WHERE $4::int IS NULL OR (hits.rank, hits.created_at, hits.hit_id) < ($4, $5::timestamptz, $6::uuid)
ORDER BY hits.rank DESC, hits.created_at DESC, hits.hit_id DESC
LIMIT $7
