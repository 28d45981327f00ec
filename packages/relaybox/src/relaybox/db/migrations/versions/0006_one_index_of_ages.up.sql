-- Each command has one entry in the two indexes that find old rows: by age, those with a client's key apart from the
-- ended ones without. A keyed command wrote two entries before, 64 bytes of WAL each.
DROP INDEX idx_command_inbox_ended;
CREATE INDEX idx_command_inbox_ended ON command_inbox (created_at)
    WHERE status IN ('COMPLETED', 'FAILED') AND idempotency_key IS NULL;
