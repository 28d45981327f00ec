-- Two indexes find old commands: that of commands with an idempotency key, and this one of ended commands. A command with a
-- key had an entry in both, each 64 bytes of WAL; from now on only in the first.
DROP INDEX idx_command_inbox_ended;
CREATE INDEX idx_command_inbox_ended ON command_inbox (created_at)
    WHERE status IN ('COMPLETED', 'FAILED') AND idempotency_key IS NULL;
