-- name: one_migration_at_a_time
-- Two runs at once wait for each other; the lock ends with the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('relaybox.migrate', 0))

-- name: grant_service
-- Give the services' role what it needs on the backbone's tables, and no more.
SELECT relaybox_grant($1)
