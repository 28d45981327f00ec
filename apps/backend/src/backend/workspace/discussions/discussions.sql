-- name: target
-- Find the node with the id $1, or the chapter with the id $1 and its node.
SELECT node.id AS node_id, NULL::uuid AS chapter_id FROM workspace_nodes AS node WHERE node.id = $1
UNION ALL
SELECT chapter.node_id, chapter.id FROM workspace_chapters AS chapter WHERE chapter.id = $1

-- name: thread_node
-- Read the id of a thread's node.
SELECT node_id FROM workspace_threads WHERE id = $1

-- name: thread
-- Read one thread, with the number of replies that are not deleted, and the number of all rows of replies.
SELECT to_jsonb(thread)::text AS row,
    (SELECT count(*) FILTER (WHERE reply.deleted_at IS NULL) FROM workspace_replies AS reply
     WHERE reply.thread_id = thread.id) AS replies,
    (SELECT count(*) FROM workspace_replies AS reply WHERE reply.thread_id = thread.id) AS rows
FROM workspace_threads AS thread
WHERE thread.id = $1

-- name: threads_page
-- Read a page of the threads of a node, or, with $2, of one of its chapters; with $3, only resolved or only unresolved
-- threads. Pinned threads are first, then the newest.
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
-- Read the replies of a thread, oldest first, without their history.
SELECT (to_jsonb(reply) - 'history')::text AS row FROM workspace_replies AS reply
WHERE reply.thread_id = $1
ORDER BY reply.created_at, reply.id

-- name: replies_to_delete
-- Read the replies of a thread that is deleted, without their texts.
SELECT jsonb_build_object(
    'id', reply.id, 'node_id', reply.node_id, 'thread_id', reply.thread_id, 'author_id', reply.author_id,
    'body', '', 'created_at', reply.created_at, 'changed_at', reply.changed_at
)::text AS row
FROM workspace_replies AS reply
WHERE reply.thread_id = $1

-- name: reply_node
-- Read the id of a reply's node.
SELECT node_id FROM workspace_replies WHERE id = $1

-- name: reply
-- Read one reply that is not deleted, and whether it has replies.
SELECT to_jsonb(reply)::text AS row, EXISTS (
    SELECT FROM workspace_replies AS child WHERE child.thread_id = reply.thread_id AND child.parent_id = reply.id
) AS answered
FROM workspace_replies AS reply
WHERE reply.id = $1 AND reply.deleted_at IS NULL

-- name: find_emptied_parents
-- Find the deleted ancestors of a reply that have no other replies, and are deleted with it.
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
