-- name: ping
-- Whether the server rejects writes.
SELECT current_setting('transaction_read_only')::bool AS read_only
