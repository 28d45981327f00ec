-- name: grant_service
-- Grant the services' role, $1, its rights on the applications' tables.
SELECT backend_grant($1)
