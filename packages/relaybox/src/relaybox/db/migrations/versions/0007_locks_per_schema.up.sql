-- Advisory locks belong to the database, not to a schema. The two retention functions lock by the OID of their table, so
-- that the outboxes of two schemas do not exclude each other. The rest of the functions does not change.
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
            RAISE EXCEPTION 'function % does not take its lock as it was created; restore the function and migrate again',
                retention.name;
        END IF;
        EXECUTE after;
    END LOOP;
END
$$;
