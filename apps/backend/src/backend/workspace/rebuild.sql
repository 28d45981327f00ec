-- name: rows_of_nodes
-- Read all rows of the nodes $1 from every table, each row with the name of its table.
SELECT 'nodes' AS table_name, node.id AS node_id, to_jsonb(node)::text AS row
FROM workspace_nodes AS node WHERE node.id = ANY($1::uuid[])
UNION ALL SELECT 'chapters', chapter.node_id, to_jsonb(chapter)::text
FROM workspace_chapters AS chapter WHERE chapter.node_id = ANY($1::uuid[])
UNION ALL SELECT 'versions', version.node_id, to_jsonb(version)::text
FROM workspace_versions AS version WHERE version.node_id = ANY($1::uuid[])
UNION ALL SELECT 'threads', thread.node_id, to_jsonb(thread)::text
FROM workspace_threads AS thread WHERE thread.node_id = ANY($1::uuid[])
UNION ALL SELECT 'replies', reply.node_id, to_jsonb(reply)::text
FROM workspace_replies AS reply WHERE reply.node_id = ANY($1::uuid[])
UNION ALL SELECT 'grants', granted.node_id, to_jsonb(granted)::text
FROM workspace_grants AS granted WHERE granted.node_id = ANY($1::uuid[])
UNION ALL SELECT 'links', link.node_id, to_jsonb(link)::text
FROM workspace_links AS link WHERE link.node_id = ANY($1::uuid[])

-- name: nodes_without_events_page
-- Read the next $2 ids above $1 of nodes that have rows but no events, in the order of ids.
SELECT held.node_id
FROM (
    SELECT id AS node_id FROM workspace_nodes
    UNION SELECT node_id FROM workspace_chapters
    UNION SELECT node_id FROM workspace_versions
    UNION SELECT node_id FROM workspace_threads
    UNION SELECT node_id FROM workspace_replies
    UNION SELECT node_id FROM workspace_grants
    UNION SELECT node_id FROM workspace_links
) AS held
WHERE held.node_id > $1 AND NOT EXISTS (
    SELECT FROM domain_events AS event
    WHERE event.aggregate_type = 'WORKSPACE_NODE' AND event.aggregate_id = held.node_id::text
)
ORDER BY held.node_id
LIMIT $2
