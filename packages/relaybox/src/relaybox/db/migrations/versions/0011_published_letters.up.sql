-- Return the payload of an outbox row without its content. Of a dead letter (a payload with a record and without event type),
-- the value becomes {"erased": true}, and only headers of a CloudEvent and of the failure, except its text, stay.
CREATE FUNCTION relaybox_erased_payload(payload JSONB) RETURNS JSONB LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN payload ->> 'event_type' IS NULL AND jsonb_typeof(payload -> 'record' -> 'headers') = 'array'
        THEN jsonb_set(payload, '{record}', payload -> 'record' || jsonb_build_object(
            'value', encode('{"erased": true}', 'base64'),
            'headers', (SELECT coalesce(jsonb_agg(header ORDER BY place), '[]')
                        FROM jsonb_array_elements(payload -> 'record' -> 'headers') WITH ORDINALITY AS header (header, place)
                        WHERE header ->> 0 IN ('content-type', 'relaybox_record_id') OR header ->> 0 LIKE 'ce\_%'
                            OR (header ->> 0 LIKE 'dead\_letter\_%' AND header ->> 0 <> 'dead_letter_error'))))
        -- target_id may identify a person, and domain_events does not contain it.
        ELSE payload || jsonb_build_object('payload', '{"erased": true}'::jsonb,
            'metadata', relaybox_kept_metadata(payload -> 'metadata'), 'target_id', NULL)
        END
$$;

-- Return rows as in 0003, and also the outbox rows of dead letters of these aggregates. The created_at of such a row is the
-- time at which the letter was parked.
CREATE OR REPLACE FUNCTION relaybox_rows_to_erase(aggregate_type TEXT, aggregate_ids TEXT[])
    RETURNS TABLE (slot INT, seq BIGINT) LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    type CONSTANT TEXT := relaybox_rows_to_erase.aggregate_type;
    times TIMESTAMPTZ[];
BEGIN
    RETURN QUERY
        SELECT o.slot, o.seq FROM event_outbox AS o
        WHERE o.status = 'PENDING' AND o.payload ->> 'aggregate_type' = type
            AND o.payload ->> 'aggregate_id' IN (SELECT unnest(aggregate_ids))
        UNION ALL SELECT o.slot, o.seq FROM event_outbox AS o
        WHERE o.status = 'FAILED' AND o.payload ->> 'aggregate_type' = type
            AND o.payload ->> 'aggregate_id' IN (SELECT unnest(aggregate_ids));
    times := ARRAY(
        SELECT written.at FROM (
            SELECT event.created_at AS at FROM domain_events AS event
            WHERE event.aggregate_type = type AND event.aggregate_id = ANY (aggregate_ids)
                AND event.payload = '{"erased": true}'
            UNION SELECT letter.parked_at FROM dead_letters AS letter
            WHERE letter.aggregate_type = type AND letter.aggregate_id = ANY (aggregate_ids)
        ) AS written
        WHERE written.at >= (SELECT min(created_at) FROM event_outbox WHERE status = 'SENT'));
    RETURN QUERY
        SELECT o.slot, o.seq FROM event_outbox AS o
        WHERE o.status = 'SENT' AND o.created_at = ANY (times) AND o.payload ->> 'aggregate_type' = type
            AND o.payload ->> 'aggregate_id' IN (SELECT unnest(aggregate_ids));
END
$$;

-- Erase outbox rows as in 0003, and also the outbox rows of dead letters.
CREATE OR REPLACE FUNCTION relaybox_erase_rows(seqs BIGINT[]) RETURNS INT LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    erased INT;
BEGIN
    PERFORM FROM event_outbox WHERE seq = ANY (seqs) ORDER BY slot, seq FOR NO KEY UPDATE;
    UPDATE event_outbox AS o SET payload = relaybox_erased_payload(o.payload)
        WHERE o.seq = ANY (seqs) AND o.payload IS DISTINCT FROM relaybox_erased_payload(o.payload);
    GET DIAGNOSTICS erased = ROW_COUNT;
    RETURN erased;
END
$$;
