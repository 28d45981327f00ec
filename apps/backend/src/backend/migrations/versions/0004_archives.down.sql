CREATE OR REPLACE FUNCTION backend_grant(service NAME) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON genesis_sessions, workspace_nodes, workspace_chapters, '
        'workspace_versions, workspace_threads, workspace_replies, workspace_grants, workspace_links, '
        'workspace_link_secrets TO %I', service);
    EXECUTE format('GRANT SELECT ON backend_alembic_version TO %I', service);
END
$$;

DROP TABLE workspace_archives;
CREATE INDEX idx_async_tasks_exported ON async_tasks (updated_at) WHERE task_type = 'workspace.export';
