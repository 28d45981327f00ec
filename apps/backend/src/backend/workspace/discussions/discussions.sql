-- name: target
-- The node that is meant by its own id or by a chapter's, and the chapter if it is one.
SELECT node.id AS node_id, NULL::uuid AS chapter_id FROM workspace_nodes AS node WHERE node.id = $1
UNION ALL
SELECT chapter.node_id, chapter.id FROM workspace_chapters AS chapter WHERE chapter.id = $1

-- name: thread_node
-- Which node a thread is on.
SELECT node_id FROM workspace_threads WHERE id = $1

-- name: thread
-- One thread, with how many replies are shown, and how many there are with the places of deleted ones.
SELECT to_jsonb(thread)::text AS row,
    (SELECT count(*) FILTER (WHERE reply.deleted_at IS NULL) FROM workspace_replies AS reply
     WHERE reply.thread_id = thread.id) AS replies,
    (SELECT count(*) FROM workspace_replies AS reply WHERE reply.thread_id = thread.id) AS places
FROM workspace_threads AS thread
WHERE thread.id = $1

-- name: threads_page
-- The threads of a node, or of one of its chapters ($2), pinned ones first, then the newest; those that are resolved,
-- or not ($3); a page after a place.
SELECT to_jsonb(thread)::text AS row,
    (SELECT count(*) FROM workspace_replies AS reply
     WHERE reply.thread_id = thread.id AND reply.deleted_at IS NULL) AS replies
FROM workspace_threads AS thread
WHERE thread.node_id = $1
    AND ($2::uuid IS NULL OR thread.chapter_id = $2)
    AND ($3::boolean IS NULL OR (thread.resolved_at IS NOT NULL) = $3)
    AND ($4::boolean IS NULL OR (thread.pinned, thread.created_at, thread.id) < ($4, $5::timestamptz, $6::uuid))
ORDER BY thread.pinned DESC, thread.created_at DESC, thread.id DESC
LIMIT $7

-- name: replies
-- The replies of a thread, oldest first, without what they said before.
SELECT (to_jsonb(reply) - 'history')::text AS row FROM workspace_replies AS reply
WHERE reply.thread_id = $1
ORDER BY reply.created_at, reply.id

-- name: replies_to_delete
-- The replies of a thread that is deleted; of rows that go, only what names them is read.
SELECT jsonb_build_object(
    'id', reply.id, 'node_id', reply.node_id, 'thread_id', reply.thread_id, 'author_id', reply.author_id,
    'body', '', 'created_at', reply.created_at, 'changed_at', reply.changed_at
)::text AS row
FROM workspace_replies AS reply
WHERE reply.thread_id = $1

-- name: reply_node
-- Which node a reply is on.
SELECT node_id FROM workspace_replies WHERE id = $1

-- name: reply
-- One reply that is not deleted, and whether it was answered.
SELECT to_jsonb(reply)::text AS row, EXISTS (
    SELECT FROM workspace_replies AS answer WHERE answer.thread_id = reply.thread_id AND answer.parent_id = reply.id
) AS answered
FROM workspace_replies AS reply
WHERE reply.id = $1 AND reply.deleted_at IS NULL

-- name: find_emptied_parents
-- The deleted replies above a reply that are there for its sake alone.
WITH RECURSIVE up AS (
    SELECT reply.id, reply.thread_id, reply.parent_id FROM workspace_replies AS reply WHERE reply.id = $1
    UNION ALL
    SELECT parent.id, parent.thread_id, parent.parent_id
    FROM up
    JOIN workspace_replies AS parent ON parent.id = up.parent_id
    WHERE parent.deleted_at IS NOT NULL AND NOT EXISTS (
        SELECT FROM workspace_replies AS other
        WHERE other.thread_id = parent.thread_id AND other.parent_id = parent.id AND other.id <> up.id
    )
)
SELECT to_jsonb(reply)::text AS row FROM up JOIN workspace_replies AS reply ON reply.id = up.id
WHERE up.id <> $1
