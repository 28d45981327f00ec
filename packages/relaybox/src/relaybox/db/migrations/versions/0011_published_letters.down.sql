-- As in 0003.
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
        SELECT DISTINCT event.created_at FROM domain_events AS event
        WHERE event.aggregate_type = type AND event.aggregate_id = ANY (aggregate_ids)
            AND event.payload = '{"erased": true}'
            AND event.created_at >= (SELECT min(created_at) FROM event_outbox WHERE status = 'SENT'));
    RETURN QUERY
        SELECT o.slot, o.seq FROM event_outbox AS o
        WHERE o.status = 'SENT' AND o.created_at = ANY (times) AND o.payload ->> 'aggregate_type' = type
            AND o.payload ->> 'aggregate_id' IN (SELECT unnest(aggregate_ids));
END
$$;
CREATE OR REPLACE FUNCTION relaybox_erase_rows(seqs BIGINT[]) RETURNS INT LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    content CONSTANT JSONB := '{"erased": true}';
    erased INT;
BEGIN
    PERFORM FROM event_outbox WHERE seq = ANY (seqs) ORDER BY slot, seq FOR NO KEY UPDATE;
    -- target_id may identify a person, and domain_events does not contain it.
    UPDATE event_outbox AS o SET payload = o.payload || jsonb_build_object('payload', content,
            'metadata', relaybox_kept_metadata(o.payload -> 'metadata'), 'target_id', NULL)
        WHERE o.seq = ANY (seqs) AND o.payload -> 'payload' IS DISTINCT FROM content;
    GET DIAGNOSTICS erased = ROW_COUNT;
    RETURN erased;
END
$$;
DROP FUNCTION relaybox_erased_payload(JSONB);
