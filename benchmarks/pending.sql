-- Return whether the outbox has rows that are not published yet.
SELECT EXISTS (SELECT FROM event_outbox WHERE status = 'PENDING') AS pending
