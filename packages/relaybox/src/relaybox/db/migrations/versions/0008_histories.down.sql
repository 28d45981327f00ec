ALTER TABLE relay_lanes DROP COLUMN history_id;
ALTER TABLE relay_origin DROP COLUMN history, DROP COLUMN history_id, DROP COLUMN history_changed_at;
