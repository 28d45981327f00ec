ALTER TABLE async_tasks
    -- The user or tenant of the task. Null: the task is claimed by its age alone.
    ADD COLUMN fairness_key TEXT,
    -- Open tasks are claimed in this order: the time of creation, or one hour after the last open task of the same key.
    -- Null: the time of creation.
    ADD COLUMN claim_order_at TIMESTAMPTZ;
CREATE INDEX idx_async_tasks_claim ON async_tasks (coalesce(claim_order_at, created_at), task_type)
    WHERE status IN ('PENDING', 'RUNNING');
-- Index for the last open task of a fairness key, and for the number of its open tasks.
CREATE INDEX idx_async_tasks_fairness ON async_tasks (fairness_key, coalesce(claim_order_at, created_at))
    WHERE fairness_key IS NOT NULL AND status IN ('PENDING', 'RUNNING');
