ALTER TABLE relay_members DROP COLUMN troubles;
ALTER TABLE relay_lanes DROP COLUMN producer_number;
