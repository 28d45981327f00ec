-- name: create_effects
-- Create the table into which the steps insert rows.
CREATE TABLE bench_flow_effects (
    flow_id UUID NOT NULL,
    step INT NOT NULL,
    done_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (flow_id, step)
)

-- name: grant_effects
-- Let the services' role use the table.
GRANT SELECT, INSERT ON bench_flow_effects TO PUBLIC

-- name: empty_effects
-- Delete the effects of the previous turn.
TRUNCATE bench_flow_effects

-- name: grant_create
-- Let DBOS, which connects as the services' role, create its schema in the database.
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO PUBLIC', current_database()); END $$

-- name: insert_effect
-- The effect of step $2 of the flow $1.
INSERT INTO bench_flow_effects (flow_id, step) VALUES ($1, $2)

-- name: count_effects
-- Count the effects of the flows that wait, after their event.
SELECT count(*) AS effects FROM bench_flow_effects WHERE step = 1

-- name: effect_times
-- Return when each flow took effect after its event.
SELECT flow_id, done_at FROM bench_flow_effects WHERE step = 1

-- name: effects_per_s
-- Return the effects per second, without the first tenth.
WITH effect AS MATERIALIZED (
    SELECT done_at, row_number() OVER (ORDER BY done_at) AS place, count(*) OVER () AS effects
    FROM bench_flow_effects WHERE step = 1
)
SELECT (count(*) - 1) / extract(epoch FROM max(done_at) - min(done_at))::float8 AS per_s
FROM effect WHERE place * 10 > effects

-- name: count_tasks
-- Count the flows that wait, those that a runner holds, and those that are not completed.
SELECT count(*) FILTER (WHERE status = 'PENDING' AND not_before IS NOT NULL) AS waiting,
       count(*) FILTER (WHERE status = 'RUNNING') AS running,
       count(*) FILTER (WHERE status <> 'COMPLETED') AS open
FROM async_tasks

-- name: count_connections
-- Count the connections of the application $1, and those of them that are in a transaction.
SELECT count(*) AS connections, count(*) FILTER (WHERE state <> 'idle') AS busy
FROM pg_stat_activity WHERE application_name = $1

-- name: vacuum_tasks
-- Update the statistics of the tables of flows, as autovacuum would have done in production.
VACUUM (ANALYZE) async_tasks, flow_steps, flow_waits, flow_events, flow_event_keys, flow_resume_handles
