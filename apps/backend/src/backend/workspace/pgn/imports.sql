-- name: study_size
-- The number of chapters of a study, and the position after the last one.
SELECT count(*) AS chapters, coalesce(max(position) + 1, 0) AS next_position
FROM workspace_chapters WHERE node_id = $1
