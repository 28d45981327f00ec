-- history: system identifier and timeline of the server from which relays last published this outbox. A promoted standby
-- and a restored server have another history. history_id: a new UUID for each new history, because two standbys of one
-- primary that are promoted one after the other have the same timeline number.
ALTER TABLE relay_origin ADD COLUMN history TEXT, ADD COLUMN history_id UUID,
    -- Time at which a relay found a new history; null: never.
    ADD COLUMN history_changed_at TIMESTAMPTZ;
-- relay_origin.history_id when the lane was last compared with Kafka; null: never since this column exists.
ALTER TABLE relay_lanes ADD COLUMN history_id UUID;
