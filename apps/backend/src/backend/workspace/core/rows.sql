-- name: write_nodes
-- Insert or update rows of workspace_nodes.
INSERT INTO workspace_nodes (
    id, kind, parent_id, owner_id, title, description, position, layout, visibility, version,
    stream_version, created_by, created_at, changed_at, trashed_at, trashed_by, trash_reason,
    trash_batch_id, trash_count, trash_path
)
SELECT
    id, kind, parent_id, owner_id, title, description, position, layout, visibility, version,
    stream_version, created_by, created_at, changed_at, trashed_at, trashed_by, trash_reason,
    trash_batch_id, trash_count, trash_path
FROM jsonb_populate_recordset(NULL::workspace_nodes, $1::text::jsonb)
ON CONFLICT (id) DO UPDATE SET
    kind = excluded.kind, parent_id = excluded.parent_id, owner_id = excluded.owner_id,
    title = excluded.title, description = excluded.description, position = excluded.position,
    layout = excluded.layout, visibility = excluded.visibility, version = excluded.version,
    stream_version = excluded.stream_version, created_by = excluded.created_by,
    created_at = excluded.created_at, changed_at = excluded.changed_at, trashed_at = excluded.trashed_at,
    trashed_by = excluded.trashed_by, trash_reason = excluded.trash_reason,
    trash_batch_id = excluded.trash_batch_id, trash_count = excluded.trash_count,
    trash_path = excluded.trash_path

-- name: delete_nodes
-- Delete rows of workspace_nodes.
DELETE FROM workspace_nodes AS stored
USING jsonb_to_recordset($1::text::jsonb) AS deleted (id uuid)
WHERE stored.id = deleted.id

-- name: write_chapters
-- Insert or update rows of workspace_chapters.
INSERT INTO workspace_chapters (
    id, node_id, position, title, headers, moves, version, created_at, changed_at
)
SELECT
    id, node_id, position, title, headers, moves, version, created_at, changed_at
FROM jsonb_populate_recordset(NULL::workspace_chapters, $1::text::jsonb)
ON CONFLICT (id) DO UPDATE SET
    node_id = excluded.node_id, position = excluded.position, title = excluded.title,
    headers = excluded.headers, moves = excluded.moves, version = excluded.version,
    created_at = excluded.created_at, changed_at = excluded.changed_at

-- name: delete_chapters
-- Delete rows of workspace_chapters.
DELETE FROM workspace_chapters AS stored
USING jsonb_to_recordset($1::text::jsonb) AS deleted (id uuid)
WHERE stored.id = deleted.id

-- name: write_versions
-- Insert or update rows of workspace_versions.
INSERT INTO workspace_versions (
    node_id, number, label, restored_from, title, description, chapters, created_by, created_at
)
SELECT
    node_id, number, label, restored_from, title, description, chapters, created_by, created_at
FROM jsonb_populate_recordset(NULL::workspace_versions, $1::text::jsonb)
ON CONFLICT (node_id, number) DO UPDATE SET
    label = excluded.label, restored_from = excluded.restored_from, title = excluded.title,
    description = excluded.description, chapters = excluded.chapters, created_by = excluded.created_by,
    created_at = excluded.created_at

-- name: delete_versions
-- Delete rows of workspace_versions.
DELETE FROM workspace_versions AS stored
USING jsonb_to_recordset($1::text::jsonb) AS deleted (node_id uuid, number int)
WHERE stored.node_id = deleted.node_id AND stored.number = deleted.number

-- name: write_threads
-- Insert or update rows of workspace_threads.
INSERT INTO workspace_threads (
    id, node_id, chapter_id, move_path, kind, title, body, mentions, author_id, resolved_at, resolved_by,
    pinned, version, created_at, changed_at
)
SELECT
    id, node_id, chapter_id, move_path, kind, title, body, mentions, author_id, resolved_at, resolved_by,
    pinned, version, created_at, changed_at
FROM jsonb_populate_recordset(NULL::workspace_threads, $1::text::jsonb)
ON CONFLICT (id) DO UPDATE SET
    node_id = excluded.node_id, chapter_id = excluded.chapter_id, move_path = excluded.move_path,
    kind = excluded.kind, title = excluded.title, body = excluded.body, mentions = excluded.mentions,
    author_id = excluded.author_id, resolved_at = excluded.resolved_at, resolved_by = excluded.resolved_by,
    pinned = excluded.pinned, version = excluded.version, created_at = excluded.created_at,
    changed_at = excluded.changed_at

-- name: delete_threads
-- Delete rows of workspace_threads.
DELETE FROM workspace_threads AS stored
USING jsonb_to_recordset($1::text::jsonb) AS deleted (id uuid)
WHERE stored.id = deleted.id

-- name: write_replies
-- Insert or update rows of workspace_replies.
INSERT INTO workspace_replies (
    id, node_id, thread_id, parent_id, depth, body, mentions, author_id, edited_by, history, reactions,
    version, created_at, changed_at, deleted_at
)
SELECT
    id, node_id, thread_id, parent_id, depth, body, mentions, author_id, edited_by, history, reactions,
    version, created_at, changed_at, deleted_at
FROM jsonb_populate_recordset(NULL::workspace_replies, $1::text::jsonb)
ON CONFLICT (id) DO UPDATE SET
    node_id = excluded.node_id, thread_id = excluded.thread_id, parent_id = excluded.parent_id,
    depth = excluded.depth, body = excluded.body, mentions = excluded.mentions,
    author_id = excluded.author_id, edited_by = excluded.edited_by, history = excluded.history,
    reactions = excluded.reactions, version = excluded.version, created_at = excluded.created_at,
    changed_at = excluded.changed_at, deleted_at = excluded.deleted_at

-- name: delete_replies
-- Delete rows of workspace_replies.
DELETE FROM workspace_replies AS stored
USING jsonb_to_recordset($1::text::jsonb) AS deleted (id uuid)
WHERE stored.id = deleted.id

-- name: write_grants
-- Insert or update rows of workspace_grants.
INSERT INTO workspace_grants (
    node_id, user_id, role, granted_by, created_at, changed_at
)
SELECT
    node_id, user_id, role, granted_by, created_at, changed_at
FROM jsonb_populate_recordset(NULL::workspace_grants, $1::text::jsonb)
ON CONFLICT (node_id, user_id) DO UPDATE SET
    role = excluded.role, granted_by = excluded.granted_by, created_at = excluded.created_at,
    changed_at = excluded.changed_at

-- name: delete_grants
-- Delete rows of workspace_grants.
DELETE FROM workspace_grants AS stored
USING jsonb_to_recordset($1::text::jsonb) AS deleted (node_id uuid, user_id text)
WHERE stored.node_id = deleted.node_id AND stored.user_id = deleted.user_id

-- name: write_links
-- Insert or update rows of workspace_links.
INSERT INTO workspace_links (
    id, node_id, role, has_password, expires_at, created_by, created_at
)
SELECT
    id, node_id, role, has_password, expires_at, created_by, created_at
FROM jsonb_populate_recordset(NULL::workspace_links, $1::text::jsonb)
ON CONFLICT (id) DO UPDATE SET
    node_id = excluded.node_id, role = excluded.role, has_password = excluded.has_password,
    expires_at = excluded.expires_at, created_by = excluded.created_by, created_at = excluded.created_at

-- name: delete_links
-- Delete rows of workspace_links.
DELETE FROM workspace_links AS stored
USING jsonb_to_recordset($1::text::jsonb) AS deleted (id uuid)
WHERE stored.id = deleted.id
