-- name: ping
-- Does PostgreSQL answer at all?
SELECT 1
