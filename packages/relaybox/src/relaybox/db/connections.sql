-- name: set_limits
-- Set the limits of this session where a pooler refuses them as startup parameters: names $1, values $2.
SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS given (name, value)

-- name: fetch_limits
-- What the settings named $1 are here; times in milliseconds.
SELECT name, setting FROM pg_settings WHERE name = ANY ($1::text[])
