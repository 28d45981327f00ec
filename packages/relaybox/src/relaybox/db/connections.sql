-- name: set_limits
-- Set this session's limits if a pooler rejects them as startup parameters; names $1, values $2.
SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS given (name, value)

-- name: fetch_limits
-- The values of the settings named $1; times in milliseconds.
SELECT name, setting FROM pg_settings WHERE name = ANY ($1::text[])
