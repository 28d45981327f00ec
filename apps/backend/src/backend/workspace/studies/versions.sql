-- name: version
-- Read one version of a study.
SELECT to_jsonb(version)::text AS row FROM workspace_versions AS version
WHERE version.node_id = $1 AND version.number = $2

-- name: last_number
-- Read the number of a study's latest version, or 0 without versions.
SELECT coalesce(max(number), 0) AS number FROM workspace_versions WHERE node_id = $1

-- name: versions_page
-- Read a page of the versions of a study with numbers below $2, newest first, without their content.
SELECT number, label, restored_from, title, jsonb_array_length(chapters) AS chapters_count, created_by, created_at
FROM workspace_versions
WHERE node_id = $1 AND ($2::int IS NULL OR number < $2)
ORDER BY number DESC
LIMIT $3

-- name: version_detail
-- Read one version of a study as the JSON text of the response.
SELECT json_build_object(
        'number', number, 'label', label, 'restored_from', restored_from, 'title', title,
        'description', description, 'chapters_count', jsonb_array_length(chapters), 'chapters', chapters,
        'created_by', created_by, 'created_at', created_at
    )::text AS detail
FROM workspace_versions WHERE node_id = $1 AND number = $2

-- name: study_bytes
-- Compute the size of a study's chapters as JSON text, in bytes.
SELECT coalesce(sum(octet_length(moves::text) + octet_length(headers::text) + octet_length(title)), 0)::bigint AS bytes
FROM workspace_chapters WHERE node_id = $1
