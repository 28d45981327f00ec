-- Advisory locks belong to a database, not to a schema: the two retention functions take theirs by their own table, so
-- that the outboxes of two schemas do not wait for each other. Nothing else of the functions changes.
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
        after := replace(before, '(hashtext(''relaybox''), ', format('(%L::regclass::int, ', retention.locked));
        IF after = before THEN
            RAISE EXCEPTION 'function % does not take its lock as it was created; restore it and migrate again', retention.name;
        END IF;
        EXECUTE after;
    END LOOP;
END
$$;
