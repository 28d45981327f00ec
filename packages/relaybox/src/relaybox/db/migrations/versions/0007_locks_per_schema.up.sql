-- Advisory locks belong to a database, not to a schema: the two retention functions take theirs by their own table, so
-- that the outboxes of two schemas do not wait for each other. Nothing else of the functions changes.
DO $$
DECLARE
    retention RECORD;
BEGIN
    FOR retention IN
        SELECT * FROM (VALUES ('relaybox_retain_outbox(interval)', 'event_outbox'),
                              ('relaybox_retain_bodies(interval)', 'idempotency_bodies')) AS functions (name, locked)
    LOOP
        EXECUTE replace(pg_get_functiondef(retention.name::regprocedure),
            '(hashtext(''relaybox''), ', format('(%L::regclass::int, ', retention.locked));
    END LOOP;
END
$$;
