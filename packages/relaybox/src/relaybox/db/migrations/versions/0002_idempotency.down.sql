DROP FUNCTION relaybox_grant(NAME);
DROP FUNCTION relaybox_retain_bodies(INTERVAL);
DROP TABLE idempotency_bodies, idempotency_cache;
DROP SEQUENCE idempotency_turn;
