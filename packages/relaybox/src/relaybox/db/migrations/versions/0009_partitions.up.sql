-- Which of the lane's transactional.ids its owner publishes with. A transaction cannot end while one of its partitions
-- takes no writes, and neither can another one of the same id begin: the owner then goes on with the next id.
ALTER TABLE relay_lanes ADD COLUMN producer_number INT NOT NULL DEFAULT 0;
-- For operators: why the relay publishes only some of its rows, a sentence for each partition and lane, 20 at the most.
-- Null: the relay is of a version that knows one transactional.id for each lane, and could not fence the next one.
ALTER TABLE relay_members ADD COLUMN troubles TEXT[];
