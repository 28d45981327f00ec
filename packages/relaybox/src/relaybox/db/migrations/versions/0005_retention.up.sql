-- With these indexes the sweeper finds old rows without reading the rows that stay.
CREATE INDEX idx_command_inbox_ended ON command_inbox (created_at) WHERE status IN ('COMPLETED', 'FAILED');
CREATE INDEX idx_command_inbox_keyed ON command_inbox (created_at) WHERE idempotency_key IS NOT NULL;
CREATE INDEX idx_async_tasks_ended ON async_tasks (updated_at) WHERE status IN ('COMPLETED', 'FAILED', 'CANCELLED');
CREATE INDEX idx_consumed_events_consumed ON consumed_events (consumed_at);
