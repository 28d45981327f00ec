-- name: grant_service
-- Give the services' role what it needs on the applications' tables, and no more.
SELECT backend_grant($1)
