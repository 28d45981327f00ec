-- name: ping
-- Does PostgreSQL answer, and does it take no writes?
SELECT current_setting('transaction_read_only')::bool AS read_only
