-- name: study_size
-- Count the chapters of a study, and compute the position after the last chapter.
SELECT count(*) AS chapters, coalesce(max(position) + 1, 0) AS next_position
FROM workspace_chapters WHERE node_id = $1
