-- name: known_groups
-- Return at most $1 names of groups that have consumed an event or parked a message. Reads one index entry
-- per group.
WITH RECURSIVE consuming (name, place) AS (
    (SELECT first.consumer, 1 FROM consumed_events AS first ORDER BY first.consumer LIMIT 1)
    UNION ALL
    SELECT (SELECT next.consumer FROM consumed_events AS next WHERE next.consumer > consuming.name
            ORDER BY next.consumer LIMIT 1), consuming.place + 1
    FROM consuming WHERE consuming.name IS NOT NULL AND consuming.place < $1::int
), parking (name, place) AS (
    (SELECT first.consumer_group, 1 FROM dead_letters AS first ORDER BY first.consumer_group LIMIT 1)
    UNION ALL
    SELECT (SELECT next.consumer_group FROM dead_letters AS next WHERE next.consumer_group > parking.name
            ORDER BY next.consumer_group LIMIT 1), parking.place + 1
    FROM parking WHERE parking.name IS NOT NULL AND parking.place < $1::int
)
SELECT name FROM consuming WHERE name IS NOT NULL
UNION SELECT name FROM parking WHERE name IS NOT NULL
ORDER BY name LIMIT $1::int

-- name: letters_of_groups
-- Return for each of the groups $1 whether the group has consumed an event or parked a message ("known"), the
-- number of its unresolved dead letters, and the number of keys that these letters block. Reads at most $2
-- letters of each group.
SELECT asked.name,
       -- Read the first name that is equal or later, and compare it: for EXISTS the planner would read the
       -- whole table if a group has no row.
       coalesce((SELECT consumed.consumer FROM consumed_events AS consumed WHERE consumed.consumer >= asked.name
                 ORDER BY consumed.consumer LIMIT 1) = asked.name, false)
       OR coalesce((SELECT parked.consumer_group FROM dead_letters AS parked WHERE parked.consumer_group >= asked.name
                    ORDER BY parked.consumer_group LIMIT 1) = asked.name, false) AS known,
       counted.letters, counted.keys
FROM unnest($1::text[]) AS asked (name) CROSS JOIN LATERAL (
    SELECT count(*)::int AS letters,
           (count(DISTINCT (letter.topic, letter.key_hash)) FILTER (WHERE letter.holds_key))::int AS keys
    -- The condition on consumer_group is a range, in the order of the index: for an equality with LIMIT the
    -- planner would read the letters of all groups.
    FROM (SELECT l.topic, l.key_hash, l.holds_key FROM dead_letters AS l
          WHERE l.consumer_group >= asked.name AND l.consumer_group <= asked.name
                AND l.status IN ('PARKED', 'REPLAY_REQUESTED')
          ORDER BY l.consumer_group LIMIT $2::int) AS letter
) AS counted
ORDER BY asked.name
