-- The row of a session whose events were erased keeps only id, owner, version and times, as a rebuild computes it.
ALTER TABLE genesis_sessions
    ADD COLUMN erased BOOLEAN NOT NULL DEFAULT false,
    ADD CONSTRAINT genesis_sessions_erased_check CHECK (NOT erased OR (
        status = 'ABANDONED' AND current_stage = 'CONCEPT_SELECTION' AND feedback = '[]'
        AND num_nonnulls(novel_id, confirmed_data, draft) = 0));

-- Clears the rows of erased sessions in the transaction of every erasure. relaybox_erase inserts the row that fires the
-- trigger before it erases events: the locks make commands on these sessions wait, so that they record no event meanwhile.
CREATE FUNCTION genesis_erase_sessions() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ids UUID[] := ARRAY(SELECT id::uuid FROM unnest(NEW.aggregate_ids) AS id
                        WHERE id ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$');
BEGIN
    -- In the order in which commands lock several sessions.
    PERFORM FROM genesis_sessions WHERE id = ANY (ids) ORDER BY id FOR NO KEY UPDATE;
    UPDATE genesis_sessions SET erased = true, status = 'ABANDONED', current_stage = 'CONCEPT_SELECTION',
            novel_id = NULL, confirmed_data = NULL, draft = NULL, feedback = '[]'
        WHERE id = ANY (ids);
    RETURN NULL;
END
$$;
CREATE TRIGGER genesis_sessions_erased AFTER INSERT ON event_erasures
    FOR EACH ROW WHEN (NEW.aggregate_type = 'GENESIS_SESSION') EXECUTE FUNCTION genesis_erase_sessions();

-- Sessions that were erased before the trigger existed.
UPDATE genesis_sessions SET erased = true, status = 'ABANDONED', current_stage = 'CONCEPT_SELECTION',
        novel_id = NULL, confirmed_data = NULL, draft = NULL, feedback = '[]'
    WHERE id::text IN (SELECT unnest(aggregate_ids) FROM event_erasures WHERE aggregate_type = 'GENESIS_SESSION');
