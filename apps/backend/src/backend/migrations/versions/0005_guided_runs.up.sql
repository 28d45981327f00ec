-- The last guided run of a session: id of the flow, status, time limit.
ALTER TABLE genesis_sessions
    ADD COLUMN guided_run JSONB,
    ADD CONSTRAINT genesis_sessions_erased_run_check CHECK (NOT erased OR guided_run IS NULL);

-- Clears the guided run too; otherwise the function of 0003_erased_sessions.
CREATE OR REPLACE FUNCTION genesis_erase_sessions() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ids UUID[] := ARRAY(SELECT id::uuid FROM unnest(NEW.aggregate_ids) AS id
                        WHERE id ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$');
BEGIN
    -- In the order in which commands lock several sessions.
    PERFORM FROM genesis_sessions WHERE id = ANY (ids) ORDER BY id FOR NO KEY UPDATE;
    UPDATE genesis_sessions SET erased = true, status = 'ABANDONED', current_stage = 'CONCEPT_SELECTION',
            novel_id = NULL, confirmed_data = NULL, draft = NULL, guided_run = NULL, feedback = '[]'
        WHERE id = ANY (ids);
    RETURN NULL;
END
$$;
