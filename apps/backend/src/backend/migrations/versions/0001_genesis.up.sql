CREATE TYPE genesis_status AS ENUM ('IN_PROGRESS', 'COMPLETED', 'ABANDONED');
CREATE TYPE genesis_stage AS ENUM
    ('CONCEPT_SELECTION', 'STORY_CONCEPTION', 'WORLDVIEW', 'CHARACTERS', 'PLOT_OUTLINE', 'FINISHED');

-- Snapshots of genesis sessions; `backend rebuild genesis` makes them again from domain_events.
CREATE TABLE genesis_sessions (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    novel_id UUID,
    user_id TEXT NOT NULL,
    status genesis_status NOT NULL DEFAULT 'IN_PROGRESS',
    current_stage genesis_stage NOT NULL DEFAULT 'CONCEPT_SELECTION',
    confirmed_data JSONB,
    -- What the current stage holds before it is confirmed: preferences, request, proposal.
    draft JSONB,
    -- The writer's remarks in this stage; apart, because an UPDATE writes a JSONB anew as a whole.
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

-- What a service may do; called by every migration run with the role that services connect as.
CREATE FUNCTION backend_grant(service NAME) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON genesis_sessions TO %I', service);
    EXECUTE format('GRANT SELECT ON backend_alembic_version TO %I', service);
END
$$;
REVOKE ALL ON FUNCTION backend_grant(NAME) FROM PUBLIC;
