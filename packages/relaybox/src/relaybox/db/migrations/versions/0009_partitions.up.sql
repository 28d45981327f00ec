-- Number of the transactional.id with which the owner publishes the lane. While a partition accepts no writes, a transaction
-- that wrote to it cannot end, and its transactional.id cannot begin another: the owner then continues with the next id.
ALTER TABLE relay_lanes ADD COLUMN producer_number INT NOT NULL DEFAULT 0;
-- For operators: why the relay publishes only some of its rows, one sentence per partition or lane, at most 20. Null: a
-- relay of an older version, which knows only one transactional.id per lane and cannot fence the others.
ALTER TABLE relay_members ADD COLUMN troubles TEXT[];
