CREATE TYPE genesis_status AS ENUM ('IN_PROGRESS', 'COMPLETED', 'ABANDONED');
CREATE TYPE genesis_stage AS ENUM
    ('CONCEPT_SELECTION', 'STORY_CONCEPTION', 'WORLDVIEW', 'CHARACTERS', 'PLOT_OUTLINE', 'FINISHED');

-- Snapshots of genesis sessions; `backend rebuild genesis` computes them again from domain_events.
CREATE TABLE genesis_sessions (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    novel_id UUID,
    user_id TEXT NOT NULL,
    status genesis_status NOT NULL DEFAULT 'IN_PROGRESS',
    current_stage genesis_stage NOT NULL DEFAULT 'CONCEPT_SELECTION',
    confirmed_data JSONB,
    -- State of the current stage before its confirmation: preferences, pending request, proposal.
    draft JSONB,
    -- The writer's feedback in this stage. Not in draft, because each UPDATE writes a JSONB value as a whole.
    feedback JSONB NOT NULL DEFAULT '[]',
    version INT NOT NULL DEFAULT 1,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT genesis_sessions_version_check CHECK (version >= 1),
    CONSTRAINT genesis_sessions_finished_check CHECK ((status = 'COMPLETED') = (current_stage = 'FINISHED'))
);
-- A writer's sessions, newest first; also the index of the list's pages.
CREATE INDEX idx_genesis_sessions_user ON genesis_sessions (user_id, created_at DESC, id DESC);
CREATE TRIGGER genesis_sessions_set_timestamp BEFORE UPDATE ON genesis_sessions
    FOR EACH ROW EXECUTE FUNCTION trigger_set_timestamp();

-- Grants the rights of the services; every migration run calls this function with the role of the services.
CREATE FUNCTION backend_grant(service NAME) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON genesis_sessions TO %I', service);
    EXECUTE format('GRANT SELECT ON backend_alembic_version TO %I', service);
END
$$;
REVOKE ALL ON FUNCTION backend_grant(NAME) FROM PUBLIC;
