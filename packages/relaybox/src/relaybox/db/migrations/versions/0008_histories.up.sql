-- Which history of the server this outbox was last published from: its system identifier and timeline. A promoted
-- standby and a restored server are in another one. The id is new whenever the history is: two standbys of one primary
-- that were promoted one after the other are in timelines of the same number.
ALTER TABLE relay_origin ADD COLUMN history TEXT, ADD COLUMN history_id UUID,
    -- When a relay found another history than before; null: never.
    ADD COLUMN history_changed_at TIMESTAMPTZ;
-- In which of them the lane was last compared with Kafka; null: never since this column exists.
ALTER TABLE relay_lanes ADD COLUMN history_id UUID;
