-- Is anything still on its way to Kafka?
SELECT EXISTS (SELECT FROM event_outbox WHERE status = 'PENDING') AS pending
