-- name: stream_version
-- Read the number of events of a node.
SELECT stream_version FROM workspace_nodes WHERE id = $1
