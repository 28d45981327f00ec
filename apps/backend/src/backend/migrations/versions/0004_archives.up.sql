-- The files of exports. A file is deleted with its task, by a purge of its node, or after WORKSPACE_EXPORT_KEEP_H hours.
-- Not a column of the task, because each change of a task's result would write the whole file again.
CREATE TABLE workspace_archives (
    task_id UUID PRIMARY KEY REFERENCES async_tasks (id) ON DELETE CASCADE,
    node_id UUID NOT NULL,
    -- The user who started the export; no other user may read the file.
    owner_id TEXT NOT NULL,
    -- EXTERNAL: not compressed, because the file is a zip already.
    file BYTEA STORAGE EXTERNAL NOT NULL,
    size_bytes BIGINT NOT NULL GENERATED ALWAYS AS (octet_length(file)) STORED,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX idx_workspace_archives_owner ON workspace_archives (owner_id);
CREATE INDEX idx_workspace_archives_node ON workspace_archives (node_id);
CREATE INDEX idx_workspace_archives_created ON workspace_archives (created_at);

INSERT INTO workspace_archives (task_id, node_id, owner_id, file, created_at)
    SELECT id, aggregate_id, input_data #>> '{asker,actor}', decode(result_data ->> 'zip', 'base64'), updated_at
    FROM async_tasks
    WHERE task_type = 'workspace.export' AND result_data ? 'zip' AND input_data #>> '{asker,actor}' IS NOT NULL;
UPDATE async_tasks SET result_data = result_data - 'zip'
    WHERE task_type = 'workspace.export' AND result_data ? 'zip';
DROP INDEX idx_async_tasks_exported;

-- Replaces the function of 0002: the same rights on all tables of the applications.
CREATE OR REPLACE FUNCTION backend_grant(service NAME) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON genesis_sessions, workspace_nodes, workspace_chapters, '
        'workspace_versions, workspace_threads, workspace_replies, workspace_grants, workspace_links, '
        'workspace_link_secrets, workspace_archives TO %I', service);
    EXECUTE format('GRANT SELECT ON backend_alembic_version TO %I', service);
END
$$;
