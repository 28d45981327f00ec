-- name: lock_migrations
-- Make concurrent migrations of this schema wait for each other; the lock ends with the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('relaybox.migrate ' || current_setting('search_path'), 0))

-- name: has_schema
-- Return whether this connection's schema exists.
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = current_setting('search_path')) AS present

-- name: schemas_with_table
-- Return the names of the schemas that have a table $1; no row if this connection's schema has the table, or no schema has.
SELECT string_agg(schemaname, ', ' ORDER BY schemaname) AS schemas FROM pg_tables
WHERE tablename = $1
HAVING NOT bool_or(schemaname = current_setting('search_path'))

-- name: create_schema
-- Create this connection's schema. The search_path is the name of one schema, which PostgresSettings validates.
DO $$ BEGIN EXECUTE format('CREATE SCHEMA %I', current_setting('search_path')); END $$

-- name: grant_service
-- Grant role $1, which the services use, its rights on the library's tables.
SELECT relaybox_grant($1)
