-- Restore the advisory locks of 0001 and 0002, which all schemas of the database share.
DO $$
DECLARE
    retention RECORD;
    before TEXT;
    after TEXT;
BEGIN
    FOR retention IN
        SELECT * FROM (VALUES ('relaybox_retain_outbox(interval)', 'event_outbox'),
                              ('relaybox_retain_bodies(interval)', 'idempotency_bodies')) AS functions (name, locked)
    LOOP
        before := pg_get_functiondef(retention.name::regprocedure);
        after := replace(before, format('(%L::regclass::int, ', retention.locked), '(hashtext(''relaybox''), ');
        IF after = before THEN
            RAISE EXCEPTION 'function % does not take its lock as it was created; restore it and migrate again', retention.name;
        END IF;
        EXECUTE after;
    END LOOP;
END
$$;
