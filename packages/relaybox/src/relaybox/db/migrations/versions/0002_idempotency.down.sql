DROP FUNCTION relaybox_grant(NAME);
DROP FUNCTION relaybox_retain_bodies(INTERVAL);
DROP FUNCTION relaybox_claim_key(BIGINT, TEXT);
DROP TABLE idempotency_slots, idempotency_bodies, idempotency_cache;
DROP SEQUENCE idempotency_turn;
