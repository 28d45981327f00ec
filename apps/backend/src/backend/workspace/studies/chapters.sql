-- name: chapter
-- Read one chapter of a study.
SELECT to_jsonb(chapter)::text AS row FROM workspace_chapters AS chapter
WHERE chapter.id = $2 AND chapter.node_id = $1

-- name: chapters
-- Read all chapters of a study, in their order.
SELECT to_jsonb(chapter)::text AS row FROM workspace_chapters AS chapter
WHERE chapter.node_id = $1 ORDER BY chapter.position, chapter.id

-- name: chapter_entries
-- Read the chapters of a study, in their order, without their moves.
SELECT id, position, title, headers::text, version, changed_at FROM workspace_chapters
WHERE node_id = $1 ORDER BY position, id
