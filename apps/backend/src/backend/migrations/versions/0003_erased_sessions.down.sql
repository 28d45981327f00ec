DROP TRIGGER genesis_sessions_erased ON event_erasures;
DROP FUNCTION genesis_erase_sessions();
ALTER TABLE genesis_sessions DROP COLUMN erased;
