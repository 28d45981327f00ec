-- name: set_limits
-- Set the settings named $1 to the values $2 for this session. Used behind a pooler, which rejects startup parameters.
SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS given (name, value)

-- name: fetch_limits
-- Return the values of the settings named $1 in this session; times in milliseconds.
SELECT name, setting FROM pg_settings WHERE name = ANY ($1::text[])
