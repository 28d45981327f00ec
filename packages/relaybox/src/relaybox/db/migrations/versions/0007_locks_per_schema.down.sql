-- Advisory locks belong to a database, not to a schema: take those of 0001 and 0002 again.
DO $$
DECLARE
    retention RECORD;
BEGIN
    FOR retention IN
        SELECT * FROM (VALUES ('relaybox_retain_outbox(interval)', 'event_outbox'),
                              ('relaybox_retain_bodies(interval)', 'idempotency_bodies')) AS functions (name, locked)
    LOOP
        EXECUTE replace(pg_get_functiondef(retention.name::regprocedure),
            format('(%L::regclass::int, ', retention.locked), '(hashtext(''relaybox''), ');
    END LOOP;
END
$$;
