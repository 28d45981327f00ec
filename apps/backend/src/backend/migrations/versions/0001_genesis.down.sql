DROP FUNCTION backend_grant(NAME);
DROP TABLE genesis_sessions;
DROP TYPE genesis_stage, genesis_status;
