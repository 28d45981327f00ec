-- name: grant_service
-- Grant the role of the services the rights that it needs on the applications' tables.
SELECT backend_grant($1)
