CREATE OR REPLACE FUNCTION backend_grant(service NAME) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON genesis_sessions TO %I', service);
    EXECUTE format('GRANT SELECT ON backend_alembic_version TO %I', service);
END
$$;
DROP FUNCTION workspace_hold(UUID[], UUID[], BOOLEAN), workspace_roots(UUID[]);
DROP INDEX idx_async_tasks_exported, idx_async_tasks_nodes;
DROP TABLE workspace_link_secrets, workspace_links, workspace_grants, workspace_replies, workspace_threads,
    workspace_versions, workspace_chapters, workspace_nodes;
DROP TYPE workspace_thread_kind, workspace_role, workspace_visibility, workspace_kind;
