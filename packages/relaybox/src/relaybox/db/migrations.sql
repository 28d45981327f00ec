-- name: lock_migrations
-- Two runs at once in one schema wait for each other; the lock ends with the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('relaybox.migrate ' || current_setting('search_path'), 0))

-- name: has_schema
-- Whether the schema that this connection works in exists.
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = current_setting('search_path')) AS present

-- name: schemas_with_table
-- The schemas that have a table named $1, as one text; null when the schema that this connection works in has it, or none.
SELECT string_agg(schemaname, ', ' ORDER BY schemaname) AS schemas FROM pg_tables
WHERE tablename = $1
HAVING NOT bool_or(schemaname = current_setting('search_path'))

-- name: create_schema
-- Create the schema that this connection works in. The search_path is one plain name, see PostgresSettings.
DO $$ BEGIN EXECUTE format('CREATE SCHEMA %I', current_setting('search_path')); END $$

-- name: grant_service
-- Give the services' role what it needs on the backbone's tables, and no more.
SELECT relaybox_grant($1)
