-- name: study_size
-- How many chapters a study has, and the place behind the last.
SELECT count(*) AS chapters, coalesce(max(position) + 1, 0) AS next_position
FROM workspace_chapters WHERE node_id = $1
