-- name: ping
-- Return whether the server rejects writes, as a standby does.
SELECT current_setting('transaction_read_only')::bool AS read_only
