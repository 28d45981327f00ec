-- name: stream_version
-- The number of events of a node.
SELECT stream_version FROM workspace_nodes WHERE id = $1
