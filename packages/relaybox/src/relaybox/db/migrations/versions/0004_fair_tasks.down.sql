ALTER TABLE async_tasks DROP COLUMN fairness_key, DROP COLUMN claim_order_at;
