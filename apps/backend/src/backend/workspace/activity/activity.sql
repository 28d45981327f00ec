-- name: stream_version
-- How many events a node has.
SELECT stream_version FROM workspace_nodes WHERE id = $1
