DROP INDEX idx_command_inbox_ended;
CREATE INDEX idx_command_inbox_ended ON command_inbox (created_at) WHERE status IN ('COMPLETED', 'FAILED');
