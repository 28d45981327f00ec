-- name: lock_migrations
-- Serialize migrations of this schema; the lock ends with the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('relaybox.migrate ' || current_setting('search_path'), 0))

-- name: has_schema
-- Whether this connection's schema exists.
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = current_setting('search_path')) AS present

-- name: schemas_with_table
-- The names of the schemas that have a table $1; null if this connection's schema is one of them, or if there is none.
SELECT string_agg(schemaname, ', ' ORDER BY schemaname) AS schemas FROM pg_tables
WHERE tablename = $1
HAVING NOT bool_or(schemaname = current_setting('search_path'))

-- name: create_schema
-- Create this connection's schema. The search_path is one plain name, see PostgresSettings.
DO $$ BEGIN EXECUTE format('CREATE SCHEMA %I', current_setting('search_path')); END $$

-- name: grant_service
-- Grant the services' role $1 the rights that it needs on the library's tables.
SELECT relaybox_grant($1)
